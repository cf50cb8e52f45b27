"""Where the time of a durable step goes: the disk, the second page, the processor."""

from __future__ import annotations

import time
from collections.abc import Callable

from holdfast.bench.figures import Bench, Figure, figure
from holdfast.bench.floor import raw_commits
from holdfast.bench.steps import in_one_task
from holdfast.states import Effect
from holdfast.store.sqlite import AUTOCHECKPOINT

STEPS = 5000
"""Enough for the write-ahead log to have stopped growing."""

MICRO = 1_000_000


def spent(bench: Bench) -> list[Figure]:
    """Measure what a step's time consists of, in microseconds."""
    count = bench.size(STEPS)
    one: list[float] = []
    two: list[float] = []
    ours: list[float] = []
    cpu_raw: list[float] = []
    cpu_ours: list[float] = []
    for _ in range(bench.rounds):
        rate, busy = _processor(
            lambda: raw_commits(bench.place(), count, autocheckpoint=AUTOCHECKPOINT)
        )
        one.append(MICRO / rate)
        cpu_raw.append(busy / count)
        rate = raw_commits(bench.place(), count, tables=2, autocheckpoint=AUTOCHECKPOINT)
        two.append(MICRO / rate)
        _, fixed = _processor(lambda: in_one_task(bench.place(), 1, Effect.IDEMPOTENT))
        rate, busy = _processor(lambda: in_one_task(bench.place(), count, Effect.IDEMPOTENT))
        ours.append(MICRO / rate)
        cpu_ours.append((busy - fixed) / count)
    return [
        figure("spent", "a raw commit of one page", "µs", one),
        figure("spent", "… of it processor time, the kernel's included", "µs", cpu_raw),
        figure("spent", "a raw commit of two pages, as most steps write", "µs", two),
        figure("spent", "a durable step", "µs", ours),
        figure("spent", "… of it processor time, the kernel's included", "µs", cpu_ours),
    ]


def _processor(measure: Callable[[], float]) -> tuple[float, float]:
    """Return a rate, and the microseconds of processor time it took to measure."""
    started = time.process_time()
    return measure(), (time.process_time() - started) * MICRO

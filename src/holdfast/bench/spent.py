"""Where the time of a durable step goes: the disk, the second page, the processor."""

from __future__ import annotations

import time
from collections.abc import Callable

from holdfast.bench.figures import Bench, Figure, figure
from holdfast.bench.sites import SqliteSite
from holdfast.bench.steps import in_one_task
from holdfast.states import Effect

STEPS = 5000
"""Enough for the write-ahead log to have stopped growing."""

MICRO = 1_000_000


def spent(bench: Bench) -> list[Figure]:
    """Measure what a step's time consists of, in microseconds."""
    count = bench.size(STEPS)
    site = bench.site
    one: list[float] = []
    two: list[float] = []
    ours: list[float] = []
    cpu_raw: list[float] = []
    cpu_ours: list[float] = []
    for _ in range(bench.rounds):
        rate, busy = _processor(lambda: site.commits_of_one(count))
        one.append(MICRO / rate)
        cpu_raw.append(busy / count)
        if isinstance(site, SqliteSite):
            two.append(MICRO / site.raw_commits(count, tables=2))
        _, fixed = _processor(lambda: in_one_task(bench.place(), 1, Effect.IDEMPOTENT))
        rate, busy = _processor(lambda: in_one_task(bench.place(), count, Effect.IDEMPOTENT))
        ours.append(MICRO / rate)
        cpu_ours.append((busy - fixed) / count)
    processor = "… of it this process's processor time, the kernel's included"
    figures = [
        figure("spent", "a raw commit of one row", "µs", one),
        figure("spent", processor, "µs", cpu_raw),
        figure("spent", "a durable step", "µs", ours),
        figure("spent", processor, "µs", cpu_ours),
    ]
    if two:
        what = "a raw commit of two pages, as most steps write"
        figures.insert(2, figure("spent", what, "µs", two))
    return figures


def _processor(measure: Callable[[], float]) -> tuple[float, float]:
    """Return a rate, and the microseconds of processor time it took to measure."""
    started = time.process_time()
    return measure(), (time.process_time() - started) * MICRO

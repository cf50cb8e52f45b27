"""Many tasks on several worker processes that share one database."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

from holdfast.bench.child import several
from holdfast.bench.figures import Bench, Figure, figure
from holdfast.bench.restart import child, expect
from holdfast.bench.sites import Place
from holdfast.runner import TaskRunner

PROCESSES = (1, 4, 16)
TASKS = 400
STEPS_EACH = 20
CONCURRENCY = 100
"""Items at a time, over all processes."""

IDLE_SECONDS = 10.0
"""How long workers with nothing to do are watched."""


def in_processes(place: Place, processes: int, tasks: int) -> float:
    """Let workers run tasks of some steps; return steps a second, from submission to result."""
    runner = TaskRunner(place.url, workspace=str(place.directory))
    job = runner.task(several)

    async def submit() -> float:
        started = time.perf_counter()
        handles = await asyncio.gather(
            *(runner.asubmit(job, count=STEPS_EACH, name=n) for n in range(tasks))
        )
        for handle in handles:
            await handle.result()
        return time.perf_counter() - started

    with ExitStack() as workers:
        _start(workers, place, processes, CONCURRENCY // processes)
        try:
            return tasks * STEPS_EACH / asyncio.run(submit())
        finally:
            runner.close()


def _start(workers: ExitStack, place: Place, count: int, concurrency: int) -> None:
    """Start worker processes, and return when all of them serve."""
    started = [workers.enter_context(child("serve", place, concurrency)) for _ in range(count)]
    for lines in started:
        expect(lines, "imported")
        expect(lines, "serving")


def processes(bench: Bench) -> list[Figure]:
    """Measure one, four and sixteen worker processes."""
    figures: list[Figure] = []
    for count in PROCESSES:
        bench.tell(f"{count} worker processes")
        tasks = bench.size(TASKS)
        rates = [in_processes(bench.place(), count, tasks) for _ in range(bench.rounds)]
        what = f"{tasks} tasks x {STEPS_EACH} durable steps, worker processes: {count}"
        figures.append(figure("processes", what, "/s", rates))
    return figures


def idle(bench: Bench) -> list[Figure]:
    """Measure what workers ask of the database while there is nothing to do."""
    figures: list[Figure] = []
    for count in PROCESSES:
        bench.tell(f"{count} idle worker processes")
        place = bench.place()
        with ExitStack() as workers:
            _start(workers, place, count, 1)
            time.sleep(IDLE_SECONDS / 5)  # what is done once is done then
            before = bench.site.transactions(place)
            started = time.perf_counter()
            time.sleep(IDLE_SECONDS)
            after, seconds = bench.site.transactions(place), time.perf_counter() - started
        if before is None or after is None:
            break
        what = f"an idle worker's transactions, one of {count}"
        figures.append(figure("idle", what, "/s", [(after - before) / seconds / count]))
    return figures

"""Steps: one after another in one task, and many tasks side by side."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import msgspec

from holdfast.bench.figures import Bench, Figure, figure
from holdfast.bench.floor import Compared
from holdfast.bench.sites import PAYLOAD, WARM_UP, Place
from holdfast.context import Context
from holdfast.handlers import Handler
from holdfast.runner import TaskRunner
from holdfast.states import Effect

COUNT = 1000
MANY = 10_000
"""Steps of a long run, in which the write-ahead log has long stopped growing."""
AIMS = {"sqlite": 1.3, "postgresql": 1.6}
"""Times that a durable step in sequence may take of a raw commit."""

AIMS_TOGETHER = {"sqlite": 15_000, "postgresql": 8_000}
"""Steps a second of many tasks side by side in one process."""

TASKS = 100
STEPS_EACH = 20

_RESULT = "x" * PAYLOAD


async def work(number: int) -> str:
    """Do nothing, and return a payload."""
    del number
    return _RESULT


def in_one_task(place: Place, count: int, effect: Effect) -> float:
    """Run steps one after another in one task; return steps a second, timed inside the task."""
    runner = TaskRunner(place.url, workspace=str(place.directory))

    @runner.task
    async def job(ctx: Context) -> float:
        calls = ctx.options(effect=effect)
        for number in range(-WARM_UP, 0):
            await calls.step(work, number)
        started = time.perf_counter()
        for number in range(count):
            await calls.step(work, number)
        # What was written behind is part of the price: this is durable after everything before.
        await ctx.options(effect=Effect.IDEMPOTENT).step(work, count)
        return time.perf_counter() - started

    try:
        return count / runner.run(job)
    finally:
        runner.close()


def in_many_tasks(place: Place, tasks: int) -> float:
    """Run tasks of some steps side by side; return steps a second, from submission to result."""
    runner, job = _runner_of_many(place)

    async def serve() -> float:
        worker = runner.new_worker(concurrency=tasks)
        await worker.start()
        try:
            started = time.perf_counter()
            handles = await asyncio.gather(*(runner.asubmit(job, name=n) for n in range(tasks)))
            await asyncio.gather(*(handle.result() for handle in handles))
            return time.perf_counter() - started
        finally:
            await worker.stop()

    try:
        return tasks * STEPS_EACH / asyncio.run(serve())
    finally:
        runner.close()


def in_many_runs(place: Place, tasks: int) -> float:
    """Do the same with a call of `runner.arun` for each task, whose worker starts and stops."""
    runner, job = _runner_of_many(place)

    async def run() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(runner.arun(job, name=n) for n in range(tasks)))
        return time.perf_counter() - started

    try:
        return tasks * STEPS_EACH / asyncio.run(run())
    finally:
        runner.close()


def _runner_of_many(place: Place) -> tuple[TaskRunner, Handler[..., int]]:
    runner = TaskRunner(place.url, workspace=str(place.directory))

    @runner.task
    async def job(ctx: Context, name: int) -> int:
        for number in range(STEPS_EACH):
            await ctx.step(work, number)
        return name

    return runner, job


def steps(bench: Bench) -> list[Figure]:
    """Measure durable steps in sequence against raw commits."""
    figures: list[Figure] = []
    aim = AIMS[bench.site.name]
    for count in (bench.size(COUNT), bench.size(MANY)):
        measure = partial(in_one_task, count=count, effect=Effect.IDEMPOTENT)
        found = Compared(bench, measure, count)
        what = f"one task, {count:,} durable steps"
        ours = figure(
            "steps", what, "/s", found.rates, ratio=found.ratio, ratio_alike=found.ratio_alike
        )
        if count == bench.size(COUNT):
            # One client's step isn't measured by what sixteen clients commit together.
            ratios = [found.ratio, found.ratio_alike][: 2 if bench.site.name == "sqlite" else 1]
            ours = msgspec.structs.replace(
                ours,
                aim=f"≤ {aim}x the floor" + "s" * (len(ratios) > 1),
                reached=max(ratios) <= aim,
                peers="Absurd 3.1x",
            )
        figures += [
            *(
                figure("steps", text.format(count), "/s", [each[which] for each in found.floors])
                for which, text in enumerate(bench.site.floors)
            ),
            ours,
        ]
    return figures


def once(bench: Bench) -> list[Figure]:
    """Measure `once` steps, which commit an intent and an outcome."""
    count = bench.size(COUNT)
    found = Compared(bench, partial(in_one_task, count=count, effect=Effect.ONCE), count)
    what = f"one task, {count:,} `once` steps (two commits each)"
    return [
        figure("once", what, "/s", found.rates, ratio=found.ratio, ratio_alike=found.ratio_alike)
    ]


def read(bench: Bench) -> list[Figure]:
    """Measure `read` steps, which are written behind, against `idempotent` ones."""
    count = bench.size(COUNT)
    found = Compared(bench, partial(in_one_task, count=count, effect=Effect.READ), count)
    what = f"one task, {count:,} `read` steps and one durable step"
    return [
        figure("read", what, "/s", found.rates, ratio=found.ratio, ratio_alike=found.ratio_alike)
    ]


def tasks(bench: Bench) -> list[Figure]:
    """Measure many tasks side by side in one process."""
    found = Compared(bench, partial(in_many_tasks, tasks=TASKS), bench.size(COUNT))
    runs = Compared(bench, partial(in_many_runs, tasks=TASKS), bench.size(COUNT))
    what = f"{TASKS} tasks x {STEPS_EACH} durable steps, one process"
    return [
        figure(
            "tasks", what, "/s", found.rates,
            ratio=found.ratio, ratio_alike=found.ratio_alike,
            at_least=AIMS_TOGETHER[bench.site.name], peers="Restate 1,537/s",
        ),
        figure(
            "tasks", "… each run with `arun`, a worker started for them", "/s", runs.rates,
            ratio=runs.ratio, ratio_alike=runs.ratio_alike,
        ),
    ]  # fmt: skip

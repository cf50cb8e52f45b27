"""Checkpoints: taking one with a claim about a small file, and verifying it again."""

from __future__ import annotations

import asyncio
import time

from holdfast.bench.figures import Bench, Figure, figure, percentile
from holdfast.bench.sites import Place
from holdfast.context import Context
from holdfast.evidence import Evidence
from holdfast.runner import TaskRunner

FILE = "report.md"
_TEXT = "A small file whose hash is the evidence.\n" * 50


async def take_and_verify(place: Place, count: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds that each checkpoint took, and each verification.

    The file is written again before either, so that it is read and hashed every time.
    """
    runner = TaskRunner(place.url, workspace=str(place.directory))
    taken: list[float] = []
    file = place.directory / FILE

    @runner.task
    async def job(ctx: Context) -> None:
        for number in range(count):
            file.write_text(_TEXT)
            started = time.perf_counter()
            await ctx.checkpoint({"number": number}, evidence=Evidence.file(FILE))
            taken.append((time.perf_counter() - started) * 1000)

    verified: list[float] = []
    try:
        handle = await runner.asubmit(job)
        await runner.drive(handle.task_id)
        for _ in range(count):
            file.write_text(_TEXT)
            started = time.perf_counter()
            await runner.collect_evidence(handle.task_id)
            verified.append((time.perf_counter() - started) * 1000)
    finally:
        runner.close()
    return taken, verified


def checkpoint(bench: Bench) -> list[Figure]:
    """Measure creating checkpoints and verifying their evidence."""
    count = bench.size(200)
    rounds = [asyncio.run(take_and_verify(bench.place(), count)) for _ in range(bench.rounds)]
    figures: list[Figure] = []
    for index, what, aim in ((0, "checkpoint with a file's hash", 10.0), (1, "verifying it", 50.0)):
        for name, part in (("p50", 0.5), ("p99", 0.99)):
            values = [percentile(found[index], part) for found in rounds]
            figures.append(figure("checkpoint", f"{what}, {name}", "ms", values, at_most=aim))
    return figures

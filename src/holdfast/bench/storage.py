"""Storage: what a step whose state grows by 500 bytes leaves on disk."""

from __future__ import annotations

import os

from holdfast.bench.figures import Bench, Figure, figure
from holdfast.bench.sites import Site
from holdfast.context import Context
from holdfast.runner import TaskRunner
from holdfast.store import open_store

COUNT = 1000
STATE = 500
"""Bytes by which each step's result makes the state grow; random, so they can't be compressed."""


async def grow() -> bytes:
    """Return what a step adds to the state."""
    return os.urandom(STATE)


def grow_in_steps(site: Site, count: int) -> tuple[float, float | None]:
    """Return what a step adds to the database, and what was written for it, in bytes."""
    place = site.place()
    runner = TaskRunner(place.url, workspace=str(place.directory))

    @runner.task
    async def job(ctx: Context) -> int:
        state = bytearray()
        for _ in range(count):
            state += await ctx.step(grow)
        return len(state)

    open_store(place.url).close()
    empty, before = site.size(place), site.written()
    runner.run(job)
    runner.close()
    after = site.written()
    spent = None if before is None or after is None else (after - before) / count
    return (site.size(place) - empty) / count, spent


def storage(bench: Bench) -> list[Figure]:
    """Measure bytes a step on disk."""
    count = bench.size(COUNT)
    kept: list[float] = []
    spent: list[float] = []
    for _ in range(bench.rounds):
        size, cost = grow_in_steps(bench.site, count)
        kept.append(size)
        if cost is not None:
            spent.append(cost)
    what = f"in the database, {count:,} steps with {STATE} bytes each"
    figures = [
        figure("storage", what, "bytes/step", kept, at_most=700, peers="LangGraph functional 930")
    ]
    if spent:
        figures.append(
            figure(
                "storage",
                "… written to disk",
                "bytes/step",
                spent,
                peers="LangGraph functional 17,281",
            )
        )
    return figures

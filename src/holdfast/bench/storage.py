"""Storage: what a step whose state grows by 500 bytes leaves on disk."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.bench.figures import Bench, Figure, figure
from holdfast.context import Context
from holdfast.runner import TaskRunner
from holdfast.store import open_store

COUNT = 1000
STATE = 500
"""Bytes by which each step's result makes the state grow; random, so they can't be compressed."""


async def grow() -> bytes:
    """Return what a step adds to the state."""
    return os.urandom(STATE)


def grow_in_steps(directory: Path, count: int) -> tuple[float, float | None]:
    """Return what a step adds to the database file, and what was written for it, in bytes.

    Closing the last connection moves everything from the write-ahead log into the file.
    """
    file = directory / "growing.db"
    runner = TaskRunner(f"sqlite:///{file}", workspace=str(directory))

    @runner.task
    async def job(ctx: Context) -> int:
        state = bytearray()
        for _ in range(count):
            state += await ctx.step(grow)
        return len(state)

    open_store(f"sqlite:///{file}").close()
    empty, before = file.stat().st_size, written()
    runner.run(job)
    runner.close()
    after = written()
    spent = None if before is None or after is None else (after - before) / count
    return (file.stat().st_size - empty) / count, spent


def written() -> int | None:
    """Return the bytes this process has caused to be written, where the kernel counts them."""
    try:
        lines = Path("/proc/self/io").read_text("ascii").splitlines()
    except OSError:
        return None
    counts = dict(line.split(": ") for line in lines)
    return int(counts["write_bytes"])


def storage(bench: Bench) -> list[Figure]:
    """Measure bytes a step on disk."""
    count = bench.size(COUNT)
    kept: list[float] = []
    spent: list[float] = []
    for _ in range(bench.rounds):
        size, cost = grow_in_steps(bench.place(), count)
        kept.append(size)
        if cost is not None:
            spent.append(cost)
    what = f"in the file, {count:,} steps with {STATE} bytes each"
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

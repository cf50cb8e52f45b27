"""An application whose workers each believe to be on a machine of their own.

Each executes one endless item at a time, which leaves a trace of every step in the database, with
the name of the machine, and of every moment it runs in a file.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from holdfast import Context, TaskRunner
from holdfast.store import processes
from holdfast.testing.load import PULSES, Notes

MACHINE = os.environ["HOLDFAST_TEST_MACHINE"]
processes._here = lambda: MACHINE  # noqa: SLF001  what says that two workers share a machine

notes = Notes(Path(os.environ["HOLDFAST_TEST_FOLDER"]))
runner = TaskRunner(concurrency=1)


async def where(number: int) -> str:
    return f"at {MACHINE}"


@runner.task(name="wander", max_crashes=1000)
async def wander(ctx: Context) -> None:
    for number in range(100_000):
        for _ in range(3):
            notes.add(PULSES, MACHINE)
            await asyncio.sleep(0.02)
        await ctx.step(where, number)

"""An application whose workers each believe to be on a machine of their own.

Each executes one item at a time, which goes on until a file says that it is enough. It leaves a
trace of every step in the database, with the name of the machine, and of every step and every
moment it runs in files.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from holdfast import Context, TaskRunner, errors, tool
from holdfast.clock import SystemClock
from holdfast.store import processes
from holdfast.testing.load import OUTBOX, PULSES, Notes

MACHINE = os.environ["HOLDFAST_TEST_MACHINE"]
processes._here = lambda: MACHINE  # noqa: SLF001  what says that two workers share a machine

STEPS = "steps.jsonl"
ENOUGH = "enough"
"""Ends every item when it is there."""

_PULSE = 0.02
_CLOCK = SystemClock()

notes = Notes(Path(os.environ["HOLDFAST_TEST_FOLDER"]))
runner = TaskRunner(concurrency=1)


@tool
async def set_out(name: str) -> None:
    notes.add(OUTBOX, name)


async def go_on(name: str, number: int) -> str:
    notes.add(STEPS, name, machine=MACHINE, number=number)
    end = " enough" if (notes.folder / ENOUGH).exists() else ""
    return f"{name} at {MACHINE}{end}"


@runner.task(name="wander", max_crashes=1000)
async def wander(ctx: Context, name: str) -> int:
    pulse = asyncio.create_task(_pulse(name))
    try:
        await ctx.tool(set_out, name)
        number = 0
        while not (await ctx.step(go_on, name, number)).endswith("enough"):
            number += 1
            await asyncio.sleep(_PULSE)
    except errors.HoldfastError:
        await pulse  # like code that catches everything: it goes on until it is stopped
        raise
    finally:
        pulse.cancel()
        _note(name, ended=True)
    return number


async def _pulse(name: str) -> None:
    """Show that the item runs, whatever the call it is in waits for."""
    while True:
        _note(name, ended=False)
        await asyncio.sleep(_PULSE)


def _note(name: str, *, ended: bool) -> None:
    notes.add(PULSES, name, machine=MACHINE, wall=_CLOCK.now(), ended=ended)

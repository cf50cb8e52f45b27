"""The programs that are started, killed and timed: `python -m holdfast.bench.child PROGRAM …`.

They end when their standard input does, so none outlives the benchmark.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from holdfast.context import Context
from holdfast.runner import TaskRunner

CHECKPOINT_EVERY = 50
"""Steps between two checkpoints of the loop that restores."""

_RESULT = "x" * 200


async def work(number: int) -> str:
    """Do nothing, and return 200 bytes."""
    del number
    return _RESULT


async def arrive() -> None:
    """Say that the first new step was reached, and how much memory that took; never return."""
    say(f"reached {peak_memory()}")
    await asyncio.to_thread(sys.stdin.buffer.read)
    sys.exit()


async def replaying(ctx: Context, count: int) -> None:
    """Make steps; a restart replays all of them."""
    for number in range(count):
        await ctx.step(work, number)
    await ctx.step(arrive)


async def restoring(ctx: Context, count: int) -> None:
    """Make steps with a checkpoint now and then; a restart goes on from the last."""
    start = await ctx.restore(0)
    for number in range(start, count):
        await ctx.step(work, number)
        if (number + 1) % CHECKPOINT_EVERY == 0:
            await ctx.checkpoint(number + 1)
    await ctx.step(arrive)


async def first(ctx: Context, count: int) -> str:
    """Make one step."""
    return await ctx.step(work, count)


def peak_memory() -> int:
    """Return the most memory this process ever had, in bytes."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    # Linux's ru_maxrss begins with what the parent had when it forked.
    return 1024 * next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmHWM"))


def say(line: str) -> None:
    """Tell the benchmark something, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


PROGRAMS = {"replaying": replaying, "restoring": restoring, "first": first}


def main(program: str, directory: str, count: str) -> None:
    """Run one of the programs as a task of the directory's database."""
    say("imported")
    runner = TaskRunner(f"sqlite:///{directory}/child.db", workspace=directory)
    runner.run(runner.task(PROGRAMS[program]), count=int(count))
    say("finished")


if __name__ == "__main__":
    main(*sys.argv[1:])

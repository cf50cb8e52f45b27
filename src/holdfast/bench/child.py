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


async def several(ctx: Context, count: int, name: int) -> int:
    """Make steps, one task of many."""
    for number in range(count):
        await ctx.step(work, number)
    return name


async def serve(runner: TaskRunner, concurrency: int) -> None:
    """Execute such tasks until the standard input ends."""
    runner.task(several)
    worker = runner.new_worker(concurrency=concurrency)
    await worker.start()
    say("serving")
    await asyncio.to_thread(sys.stdin.buffer.read)
    await worker.stop()


PROGRAMS = {"replaying": replaying, "restoring": restoring, "first": first}


def main(program: str, url: str, directory: str, count: str) -> None:
    """Run one of the programs as a task of the database, or serve it."""
    say("imported")
    runner = TaskRunner(url, workspace=directory)
    if program == "serve":
        asyncio.run(serve(runner, int(count)))
    elif program == "claim":
        from holdfast.bench.claims import WANTED, claim

        say("claimed " + " ".join(map(str, claim(url, WANTED, int(count)))))
    else:
        runner.run(runner.task(PROGRAMS[program]), count=int(count))
        say("finished")


if __name__ == "__main__":
    main(*sys.argv[1:])

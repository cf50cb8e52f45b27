"""A program whose handlers end their own process; the tests start it as a child."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from holdfast import Context, ItemPolicy, RetryPolicy, TaskRunner, WorkItem

runner = TaskRunner(f"sqlite:///{sys.argv[1]}/holdfast.db", workspace=sys.argv[1], lease=5.0)
notes = Path(sys.argv[1], "notes")


def note(text: str) -> None:
    with notes.open("a") as file:
        file.write(f"{text}\n")


def first_time(name: str) -> bool:
    mark = Path(sys.argv[1], name)
    known = mark.exists()
    mark.touch()
    return not known


def repaired() -> bool:
    return Path(sys.argv[1], "repaired").exists()


@runner.task(name="part", retry=RetryPolicy(initial=0.01))
async def part(ctx: Context, kind: str) -> str:
    if kind == "killer":
        await asyncio.sleep(0.05)  # the others have started
    note(f"start {kind} {os.getpid()}")
    if kind == "progress":
        for n in range(6):
            await ctx.step(lambda n=n: n)
            if first_time(f"progress{n}"):
                os.kill(os.getpid(), signal.SIGKILL)
    if kind == "killer" and not repaired():
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0.1)
    note(f"end {kind} {os.getpid()}")
    return kind


@runner.task(name="whole", retry=RetryPolicy(max_attempts=1))
async def whole(ctx: Context, kinds: list[str]) -> list[str]:
    return sorted(ctx.results.values())


@runner.planner(whole)
def plan(task: object) -> list[WorkItem]:
    kinds = sys.argv[3].split(",") if len(sys.argv) > 3 else []
    policy = ItemPolicy(RetryPolicy(initial=0.01), max_crashes=2)
    return [
        WorkItem(f"{kind}{n}", "part", {"kind": kind}, policy=policy)
        for n, kind in enumerate(kinds)
    ]


async def work() -> None:
    worker = runner.new_worker(concurrency=4)
    await worker.start()
    await asyncio.sleep(60)


if __name__ == "__main__" and sys.argv[2] == "work":
    asyncio.run(work())

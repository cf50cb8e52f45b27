# ruff: noqa: C901, S603, S608, T201  a whole program in one function; what it makes is printed
"""A program as users of the first release wrote it, and the maker of `migration_1.jsonl`.

Every task of it stops in another state. The data was made with the code of the last commit that
knows one migration only, from the root of a clone:

    git archive COMMIT src | tar -x -C OLD
    PYTHONPATH=OLD/src python tests/upgrade/program.py make FOLDER > tests/upgrade/migration_1.jsonl

It must go on working with that code and with today's.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from holdfast import (
    Context,
    Evidence,
    RetryPolicy,
    Reuse,
    TaskRunner,
    WorkItem,
    operations,
    tool,
)
from holdfast.store import verbs

PLACE = "@FOLDER@"
"""Stands in the data for the workspace, wherever that is."""

LARGE = "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(100))
"""More than a row keeps: it goes among the blobs."""

KEYS = (
    "done", "failing", "skipping", "canceled", "waiting", "sleeping", "doubtful", "crashing",
    "counting", "parent", "planned", "hanging", "later", "unplanned",
)  # fmt: skip


def make(url: str, folder: Path) -> TaskRunner:
    """Return the program's runner."""
    runner = TaskRunner(url, workspace=str(folder), lease=5.0, concurrency=1)
    runner.verifier.register("fact", lambda params, root: True)
    once = RetryPolicy(max_attempts=1)

    def mended() -> bool:
        return (folder / "mended").exists()

    def die() -> None:
        if not mended():
            os.kill(os.getpid(), signal.SIGKILL)

    @tool(effect="once", name="send")
    async def send(to: str, *, deadly: bool = False) -> str:
        with (folder / "outbox").open("a") as outbox:
            outbox.write(to + "\n")
        if deadly:
            die()
        return f"sent to {to}"

    async def ask(prompt: str) -> dict:
        with (folder / "asked").open("a") as asked:
            asked.write(prompt + "\n")
        return {"text": prompt + LARGE, "usage": {"input_tokens": 3, "output_tokens": 4}}

    @runner.task(name="done")
    async def done(ctx: Context) -> str:
        answer = await ctx.options(reuse=Reuse()).llm(ask, "notes")
        await ctx.checkpoint({"n": 1}, evidence=[Evidence.custom("fact", "tides", wet=True)])
        await ctx.step(len, answer["text"])
        return await ctx.tool(send, "done") + answer["text"]

    @runner.task(name="failing", retry=once)
    async def failing(ctx: Context) -> str:
        await ctx.tool(send, "failing")
        if not mended():
            raise ValueError("no luck")
        return "mended"

    @runner.task(name="skipping")
    async def skipping(ctx: Context) -> list:
        return sorted(map(str, ctx.results.values()))

    @runner.planner(skipping)
    def plan_skipping(task):
        return [WorkItem("bad", failing), WorkItem("after", part, {"n": 2}, after=["bad"])]

    @runner.task(name="waiting")
    async def waiting(ctx: Context) -> object:
        return await ctx.signal("go")

    @runner.task(name="sleeping")
    async def sleeping(ctx: Context) -> None:
        await ctx.sleep("nap", 1e9)

    @runner.task(name="doubtful")
    async def doubtful(ctx: Context) -> str:
        return await ctx.tool(send, "doubtful", deadly=True)

    @runner.task(name="crashing", max_crashes=1)
    async def crashing(ctx: Context) -> str:
        die()
        return "no crash"

    @runner.task(name="counting")
    async def counting(ctx: Context) -> int:
        state = await ctx.restore({"n": 0})
        while state["n"] < 5:
            await ctx.tool(send, f"count {state['n']}")
            state = {"n": state["n"] + 1}
            await ctx.checkpoint(state)
            if state["n"] == 3:
                await ctx.signal("count on")
        return state["n"]

    @runner.task(name="part")
    async def part(ctx: Context, n: int) -> int:
        return await ctx.step(pow, n, 2)

    @runner.task(name="parent")
    async def parent(ctx: Context) -> object:
        return await ctx.child(waiting)

    @runner.task(name="planned")
    async def planned(ctx: Context) -> int:
        return max(ctx.results.values())

    @runner.planner(planned)
    def plan(task):
        return [
            WorkItem("one", part, {"n": 1}),
            WorkItem("hold", waiting, after=["one"]),
            WorkItem("two", part, {"n": 2}, after=["hold"]),
        ]

    @runner.task(name="hanging")
    async def hanging(ctx: Context) -> str:
        await ctx.tool(send, "hanging")
        (folder / "hangs").touch()
        while not mended():
            await asyncio.sleep(0.05)
        return "let go"

    return runner


def submit(runner: TaskRunner, *keys: str) -> None:
    for key in keys:
        name = {"canceled": "waiting", "later": "part", "unplanned": "planned"}.get(key, key)
        arguments = {"n": 7} if key == "later" else {}
        runner.options(key=key).submit(runner.handlers.get(name), **arguments)


def by_key(runner: TaskRunner) -> dict:
    return {task.key: task for task in runner.store.read(verbs.list_tasks(None, 100))}


def statuses(runner: TaskRunner) -> dict:
    """Return every task's status and its items', by the task's key."""
    return {
        key: (
            str(task.status),
            {
                item.item_id: str(item.status)
                for item in runner.store.read(verbs.list_items(task.task_id))
            },
        )
        for key, task in by_key(runner).items()
    }


async def work(runner: TaskRunner, until=lambda: False, seconds: float = 60.0) -> None:
    worker = runner.new_worker()
    await worker.start()
    ends = time.monotonic() + seconds
    while not until() and time.monotonic() < ends:
        await asyncio.sleep(0.02)
    await worker.stop(grace=1)


def make_data(folder: Path) -> None:
    """Bring one task into each state, and write down all that is then in the database."""
    url = f"sqlite:///{folder}/made.db"
    runner = make(url, folder)
    submit(runner, *(key for key in KEYS if key not in {"hanging", "later", "unplanned"}))
    ready = {
        "doubtful": "blocked",
        "crashing": "blocked",
        "failing": "failed",
        "planned": "waiting",
    }
    while any(statuses(runner)[key][0] != wanted for key, wanted in ready.items()) or any(
        status in {"ready", "running"}
        for _, items in statuses(runner).values()
        for status in items.values()
    ):
        child = subprocess.Popen([sys.executable, __file__, "work", str(folder)])
        time.sleep(3)
        child.terminate()
        child.wait()
    asyncio.run(operations.cancel(runner.store, by_key(runner)["canceled"].task_id))
    asyncio.run(operations.send_signal(runner.store, by_key(runner)["sleeping"].task_id, "kept"))
    submit(runner, "hanging")
    child = subprocess.Popen([sys.executable, __file__, "work", str(folder)])
    while not (folder / "hangs").exists():
        time.sleep(0.05)
    time.sleep(0.3)
    child.kill()
    child.wait()
    submit(runner, "later", "unplanned")
    print(json.dumps({"statuses": statuses(runner)}), file=sys.stderr)
    runner.close()
    database = sqlite3.connect(folder / "made.db")
    tables = [
        row[0] for row in database.execute("SELECT name FROM sqlite_schema WHERE type='table'")
    ]
    for table in tables:
        if table in {"meta", "migrations", "writers"} or table.startswith("sqlite_"):
            continue
        cursor = database.execute(f"SELECT * FROM {table}")
        columns = [each[0] for each in cursor.description]
        for row in cursor:
            values = dict(zip(columns, (as_text(value, folder) for value in row), strict=True))
            print(json.dumps({table: values}))


def as_text(value: object, folder: Path) -> object:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, str):
        return value.replace(str(folder), PLACE).replace(platform.node(), "host")
    return value


def from_text(value: object, folder: Path) -> object:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"])
    return value.replace(PLACE, str(folder)) if isinstance(value, str) else value


if __name__ == "__main__":
    place = Path(sys.argv[2])
    if sys.argv[1] == "make":
        make_data(place)
    else:
        asyncio.run(work(make(f"sqlite:///{place}/made.db", place)))

"""What is moved, as programs of an empty directory that share `outbox`, `paid` and `hung`.

begin URL             run tasks until each has ended, waits, or hangs inside a call; then hang
finish URL            run them to their end, wherever they are by then
kill SOURCE TARGET    copy, killed at one call to a database after another
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from holdfast import Context, Done, NotDone, RetryPolicy, Secret, TaskRunner, WorkItem, tool
from holdfast.moving import move
from holdfast.operations import needs_of, resolve, send_signal
from holdfast.store import open_store, verbs
from holdfast.testing import Process

HUNG = {"before", "after", "unsure", "third"}
"""The calls that the first process hangs in."""

hangs = False


def note(file: str, what: str) -> None:
    with Path(file).open("a") as lines:
        lines.write(what + "\n")


def noted(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).exists() else []


def say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


async def hang(where: str) -> None:
    if hangs:
        note("hung", where)
        await asyncio.Event().wait()


# -- the tasks ------------------------------------------------------------------------------------


def was_posted(arguments: dict[str, Any], key: str) -> Done | NotDone:
    return Done("found") if arguments["to"] in noted("outbox") else NotDone()


@tool(effect="once", reconcile=was_posted, settle_after=0)
async def post(to: str) -> str:
    if to == "before":
        await hang(to)
    note("outbox", to)
    if to == "after":
        await hang(to)
    return "posted"


@tool(effect="once")
async def wire(to: str) -> str:
    note("outbox", to)
    await hang(to)
    return "wired"


@tool(effect="once")
async def log_in(key: Secret[str]) -> str:
    note("outbox", f"login {key.reveal()}")
    return "in"


async def ask(prompt: str) -> str:
    note("paid", prompt)
    return "".join(f"{prompt} {n} " for n in range(3000))


async def waits(ctx: Context, key: Secret[str]) -> str:
    text = await ctx.llm(ask, "notes")
    await ctx.tool(log_in, key)
    word = await ctx.signal("go")
    return f"{text[:7]} {word} {await ctx.tool(post, to='word')}"


async def posts(ctx: Context, to: str) -> str:
    return await ctx.tool(post, to=to)


async def unsure(ctx: Context) -> str:
    return await ctx.tool(wire, to="unsure")


async def loops(ctx: Context) -> int:
    state: int = await ctx.restore(0)
    while state < 5:
        await ctx.options(name="ask").llm(ask, f"round {state}")
        state += 1
        await ctx.checkpoint(state)
        if state == 3:
            await hang("third")
    return state


async def part(ctx: Context, n: int) -> int:
    await ctx.sleep("pause", 0.5)
    return n


async def planned(ctx: Context) -> list[int]:
    return sorted(ctx.results.values())


async def fails(ctx: Context) -> None:
    raise ValueError("no luck")


RESULTS = {
    "waits": "notes 0 now posted", "before": "posted", "after": "found",
    "unsure": "a person saw it", "loops": 5, "planned": [2],
}  # fmt: skip


class Application:
    def __init__(self, url: str) -> None:
        self.runner = runner = TaskRunner(url)
        self.handlers: dict[str, tuple[Any, dict[str, Any]]] = {
            "waits": (runner.task(waits), {"key": Secret("s3cret-key")}),
            "before": (runner.task(posts), {"to": "before"}),
            "after": (runner.task(posts), {"to": "after"}),
            "unsure": (runner.task(unsure), {}),
            "loops": (runner.task(loops), {}),
            "planned": (runner.task(planned), {}),
        }
        self.fails = runner.task(retry=RetryPolicy(max_attempts=1))(fails)
        handler = runner.task(part)

        @runner.planner(self.handlers["planned"][0])
        def plan(task: object) -> list[WorkItem]:
            return [
                WorkItem("one", handler, {"n": 1}),
                WorkItem("two", handler, {"n": 2}, after=["one"]),
            ]

    async def submit(self) -> dict[str, Any]:
        """Submit each task, or find it again by its key."""
        return {
            key: await self.runner.options(key=key).asubmit(handler, **arguments)
            for key, (handler, arguments) in self.handlers.items()
        }


async def begin(url: str) -> None:
    global hangs  # noqa: PLW0603  this process is the first
    hangs = True
    app = Application(url)
    await app.runner.asubmit(app.fails)
    handles = await app.submit()
    await app.runner.new_worker().start()
    store = app.runner.store
    while set(noted("hung")) != HUNG or (
        store.read(verbs.get_task(handles["waits"].task_id)).status != "waiting"
    ):
        await asyncio.sleep(0.01)
    say("ready")
    await asyncio.Event().wait()


async def finish(url: str) -> None:
    app = Application(url)
    store = app.runner.store
    before = len(store.read(verbs.list_tasks(None, 1000)))
    handles = await app.submit()
    assert len(store.read(verbs.list_tasks(None, 1000))) == before
    worker = app.runner.new_worker()
    await worker.start()
    await send_signal(store, handles["waits"].task_id, "go", "now")
    while not (needs := needs_of(store, handles["unsure"].task_id)):
        await asyncio.sleep(0.01)
    await resolve(store, needs[0].split()[2].removesuffix(":"), "done", "a person saw it")
    results = {key: await handle.result(timeout=30) for key, handle in handles.items()}
    await worker.stop()
    app.runner.close()
    assert results == RESULTS, results
    say(json.dumps({"outbox": sorted(noted("outbox")), "paid": sorted(noted("paid"))}))


# -- killing a copy -------------------------------------------------------------------------------


class Counted:
    """An engine that kills its process at the n-th call of any of them."""

    calls = 0
    last = sys.maxsize

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in {"execute", "commit", "set_secret_key"}:
            return found

        def call(*args: Any) -> Any:
            Counted.calls += 1
            if Counted.calls == Counted.last:
                os.kill(os.getpid(), signal.SIGKILL)
            return found(*args)

        return call


def copy(source: str, target: str, last: int = sys.maxsize, *, seal: bool = True) -> Any:
    Counted.last = last
    with open_store(source) as old, open_store(target) as new:
        for store in (old, new):
            store.engine = Counted(store.engine)
        copied = asyncio.run(move(old, new, lambda _: None, seal=seal)).copied
        return Counted.calls, copied.before, [[t.table, t.rows, t.digest] for t in copied.tables]


def held(url: str) -> dict[str, int]:
    with open_store(url) as store:
        return {what: count for what, count in store.read(verbs.count_rows()).items() if count}


def forked(function: Any) -> Any:
    with Process.fork(lambda tell: function()) as process:
        return process.result()


def kill(source: str, target: str) -> None:
    """Kill a copy again and again, later and later, and then complete it."""
    calls, _, expected = forked(lambda: copy(source, "sqlite:///dry.db", seal=False))
    seal = calls  # the target's commit comes before it, and the source's behind it
    for number in (1, calls // 3, 2 * calls // 3, seal - 1, seal):
        last = partial(copy, source, target, number)
        with Process.fork(lambda tell, last=last: last()) as process:
            assert process.wait().how == "killed"
        assert bool(forked(lambda: held(target))) is (number == seal), number
    assert forked(lambda: copy(source, target))[1:] == [True, expected]
    with Process.fork(lambda tell: copy(source, target)) as process:
        assert process.wait().how == "exited"
    assert "StoreMovedError" in process.messages[-1]
    say(f"killed in {calls} calls")


if __name__ == "__main__":
    command, *urls = sys.argv[1:]
    if command == "kill":
        kill(*urls)
    else:
        asyncio.run({"begin": begin, "finish": finish}[command](*urls))

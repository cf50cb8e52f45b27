"""Many tasks run at the same time in one process: with one worker, and none in another's way."""

from __future__ import annotations

import asyncio
import threading

import pytest

from holdfast import Context, RetryPolicy, errors, tool
from holdfast.store import verbs

MANY = 30


def workers(runner):
    return runner.store.read(verbs.list_workers())


def test_many_that_run_at_once_are_executed_by_one_worker(runner):
    together = asyncio.Event()
    running, seen = [], []

    @runner.task
    async def job(ctx: Context, n: int) -> int:
        running.append(n)
        if len(running) == MANY:
            seen.extend(workers(runner))
            together.set()
        await together.wait()  # all of them at the same time, however few slots a worker has
        return n

    async def main() -> list[int]:
        return await asyncio.gather(*(runner.arun(job, n) for n in range(MANY)))

    assert asyncio.run(main()) == list(range(MANY))
    assert len(seen) == 1
    assert workers(runner) == []


def test_one_that_nobody_waits_for_any_more_is_handed_back_and_the_others_go_on(runner):
    started, go = asyncio.Event(), asyncio.Event()
    ended = []

    @runner.task
    async def job(ctx: Context, name: str) -> str:
        await ctx.step(lambda: name)
        if name == "left" and not go.is_set():
            started.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(name)
        await go.wait()
        return name

    async def main() -> str:
        kept = asyncio.ensure_future(runner.arun(job, "kept"))
        left = asyncio.ensure_future(runner.arun(job, "left"))
        await started.wait()
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert ended == ["left"]  # its `finally` has run
        items = [
            runner.store.read(verbs.get_item(task.task_id, "main"))
            for task in runner.store.read(verbs.list_tasks("running", 9))
        ]
        assert sorted(item.status for item in items) == ["ready", "running"]
        go.set()
        assert await kept == "kept"
        return await runner.arun(job, "left")  # and it can be taken up again

    assert asyncio.run(main()) == "left"


def test_one_that_needs_a_person_says_so_while_the_others_run(runner):
    go = asyncio.Event()

    @tool(effect="once")
    async def send() -> None:
        raise OSError("no answer")

    @runner.task
    async def doubtful(ctx: Context) -> None:
        await ctx.tool(send)

    @runner.task
    async def steady(ctx: Context) -> str:
        await go.wait()
        return "done"

    async def main() -> str:
        other = asyncio.ensure_future(runner.arun(steady))
        async with asyncio.timeout(10):
            with pytest.raises(errors.TaskBlockedError):
                await runner.arun(doubtful)
        go.set()
        return await other

    assert asyncio.run(main()) == "done"


def test_one_that_fails_leaves_the_others_alone(runner):
    @runner.task(retry=RetryPolicy(max_attempts=1))
    async def job(ctx: Context, n: int) -> int:
        await asyncio.sleep(0.01)
        if n % 2:
            raise ValueError(n)
        return n

    async def main() -> list[object]:
        calls = (runner.arun(job, n) for n in range(6))
        return await asyncio.gather(*calls, return_exceptions=True)

    for n, found in enumerate(asyncio.run(main())):
        assert isinstance(found, errors.TaskFailedError) if n % 2 else found == n


def test_two_who_run_the_same_task_both_get_its_result(runner):
    made = []

    @runner.task
    async def job(ctx: Context) -> int:
        await asyncio.sleep(0.05)
        made.append(1)
        return len(made)

    async def main() -> list[int]:
        return await asyncio.gather(runner.arun(job), runner.arun(job))

    assert asyncio.run(main()) == [1, 1]


def test_one_of_two_who_run_the_same_task_may_give_up(runner):
    started, go = asyncio.Event(), asyncio.Event()

    @runner.task
    async def job(ctx: Context) -> str:
        started.set()
        await go.wait()
        return "done"

    async def main() -> str:
        first = asyncio.ensure_future(runner.arun(job))
        second = asyncio.ensure_future(runner.arun(job))
        await started.wait()
        first.cancel()
        await asyncio.wait([first])
        go.set()
        return await second

    assert asyncio.run(main()) == "done"


def test_a_handler_may_run_another_task_although_it_holds_the_only_slot(new_runner):
    runner = new_runner(concurrency=1)

    @runner.task
    async def inner(ctx: Context) -> str:
        return "inner"

    @runner.task
    async def outer(ctx: Context) -> str:
        return "outer " + await runner.arun(inner)

    assert runner.run(outer) == "outer inner"


def test_threads_run_tasks_beside_each_other(runner):
    meeting = threading.Barrier(3, timeout=20)
    results = []

    @runner.task
    def job(ctx, n: int) -> int:
        meeting.wait()
        return n

    threads = [
        threading.Thread(target=lambda n=n: results.append(runner.run(job, n))) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2]

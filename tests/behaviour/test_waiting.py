"""Waiting: durable, without a slot, and not counted as an attempt."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from holdfast import TaskRunner, errors, operations, tool
from holdfast.models import RetryPolicy
from holdfast.store import verbs

NOW = RetryPolicy(max_attempts=3, initial=0.0)


@pytest.fixture
def runner(tmp_path):
    made = TaskRunner(f"sqlite:///{tmp_path}/h.db", workspace=str(tmp_path), concurrency=1)
    yield made
    made.close()


def drive(runner, handle, *between, seconds=10):
    """Run a task here while other things happen at the same time."""

    async def main():
        running = asyncio.ensure_future(runner.drive(handle.task_id))
        for happens in between:
            await happens(handle.task_id)
        async with asyncio.timeout(seconds):
            return await running

    return asyncio.run(main())


def item(runner, task_id):
    return runner.store.read(verbs.get_item(task_id, "main"))


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_sleep_holds_no_slot_and_counts_as_no_attempt(runner):
    starts = []

    @runner.task
    async def naps(ctx, n: int) -> int:
        starts.append(n)
        await ctx.sleep("nap", 0.3)
        return ctx.attempt

    handles = [runner.submit(naps, n=n) for n in range(3)]
    started = time.monotonic()

    async def main():
        async with asyncio.timeout(5):
            return await asyncio.gather(*(runner.drive(h.task_id) for h in handles))

    assert asyncio.run(main()) == [1, 1, 1]
    assert time.monotonic() - started < 2
    assert len(starts) > 3  # the attempts had ended meanwhile


@pytest.mark.parametrize("when", ["before", "parked", "while another branch runs"])
def test_a_signal_arrives_whenever_it_is_sent(runner, when):
    @runner.task
    async def waits(ctx) -> list:
        async def busy():
            if when == "while another branch runs":
                await ctx.step(pause)
            return "busy"

        return await ctx.gather(ctx.signal("go"), busy())

    async def pause() -> None:
        await asyncio.sleep(0.3)

    handle = runner.submit(waits)

    async def send(task_id):
        if when == "parked":
            await until(lambda: item(runner, task_id).status == "waiting")
        else:
            await asyncio.sleep(0.1)
        await operations.send_signal(runner.store, task_id, "go", {"n": 1})

    if when == "before":
        runner.signal(handle.task_id, "go", {"n": 1})
        assert drive(runner, handle) == [{"n": 1}, "busy"]
    else:
        assert drive(runner, handle, send) == [{"n": 1}, "busy"]


def test_two_branches_that_wait_for_one_name_take_a_signal_each(runner):
    @runner.task
    async def waits(ctx) -> list:
        return sorted(await ctx.gather(ctx.signal("go"), ctx.signal("go")))

    handle = runner.submit(waits)
    runner.signal(handle.task_id, "go", 1)

    async def second(task_id):
        await until(lambda: item(runner, task_id).status == "waiting")
        await operations.send_signal(runner.store, task_id, "go", 2)

    assert drive(runner, handle, second) == [1, 2]
    assert item(runner, handle.task_id).failures == 0


def test_a_signal_that_does_not_come_in_time_is_an_error_the_handler_may_catch(runner):
    @runner.task
    async def waits(ctx) -> str:
        try:
            await ctx.signal("go", timeout=0.1)
        except errors.CallTimeoutError:
            await ctx.sleep("later", 0.1)
            return "too late"
        return "came"

    assert runner.run(waits) == "too late"


def test_each_signal_keeps_its_own_time_when_the_handler_starts_over(runner):
    times = []

    @runner.task
    async def waits(ctx) -> list:
        got = [await ctx.signal("go", timeout=0.5)]
        await ctx.sleep("between", 0.6)
        times.append(1)
        got.append(await ctx.signal("go", timeout=5))
        return got

    handle = runner.submit(waits)
    runner.signal(handle.task_id, "go", 1)

    async def second(task_id):
        await until(lambda: times)
        await asyncio.sleep(0.1)
        await operations.send_signal(runner.store, task_id, "go", 2)

    # The second wait must not find the first one's time, which is over by then.
    assert drive(runner, handle, second) == [1, 2]


def test_a_branch_whose_wait_is_over_goes_on_beside_its_sibling(runner):
    order = []

    @runner.task
    async def both(ctx) -> int:
        async def short():
            await ctx.sleep("short", 0.05)
            order.append("short")

        async def long():
            await ctx.step(work)
            order.append("long")

        await ctx.gather(short(), long())
        return ctx.attempt

    async def work() -> None:
        await asyncio.sleep(0.3)

    assert runner.run(both) == 1
    assert order == ["short", "long"]


def test_plain_gather_and_nested_branches_work(runner):
    calls = []

    async def note(name: str) -> str:
        calls.append(name)
        return name

    @runner.task
    async def nested(ctx) -> object:
        async def inner(n):
            await ctx.sleep("nap", 0.05)
            return await ctx.gather(ctx.step(note, f"a{n}"), ctx.step(note, f"b{n}"))

        plain = await asyncio.gather(ctx.step(note, "p"), ctx.sleep("q", 0.05))
        return [plain[0], await ctx.map(inner, [1, 2])]

    assert runner.run(nested) == ["p", [["a1", "b1"], ["a2", "b2"]]]
    assert sorted(calls) == ["a1", "a2", "b1", "b2", "p"]


def test_equal_items_and_values_of_branches_are_told_apart(runner):
    seen = []

    @runner.task
    async def values(ctx) -> list:
        async def one(n):
            return [await ctx.uuid("id"), await ctx.random("r")]

        drawn = [await ctx.map(one, [1, 1, 2]), await ctx.now("t"), await ctx.uuid("id")]
        seen.append(drawn)
        await ctx.sleep("nap", 0.05)
        return drawn

    result = runner.run(values)
    assert len(seen) == 2
    assert seen[0] == seen[1] == result
    ids = [str(pair[0]) for pair in result[0]] + [str(result[2])]
    assert len(set(ids)) == 4


# -- children -------------------------------------------------------------------------------------


def test_a_child_runs_though_there_is_one_slot_and_its_result_comes_back(runner):
    @runner.task
    async def part(ctx, n: int) -> tuple:
        await ctx.sleep("nap", 0.05)
        return (n, "x" * 10_000)

    @runner.task
    async def whole(ctx) -> list:
        return await ctx.gather(*(ctx.child(part, n=n) for n in range(3)))

    assert runner.run(whole) == [(n, "x" * 10_000) for n in range(3)]


def test_a_child_that_fails_fails_its_parent_and_a_retry_makes_a_new_one(runner):
    tries = []

    @runner.task(retry=RetryPolicy(max_attempts=1))
    async def part(ctx) -> str:
        tries.append(ctx.task.task_id)
        if len(tries) == 1:
            raise ValueError("no")
        return "yes"

    @runner.task(retry=NOW)
    async def whole(ctx) -> str:
        return await ctx.child(part)

    assert runner.run(whole) == "yes"
    assert len(set(tries)) == 2


def test_canceling_the_parent_cancels_the_child(runner):
    cleaned = []

    @runner.task
    async def part(ctx) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.append(1)

    @runner.task
    async def whole(ctx) -> None:
        await ctx.child(part)

    handle = runner.submit(whole)

    async def cancel(task_id):
        await until(lambda: runner.store.read(verbs.list_children(task_id)))
        await asyncio.sleep(0.2)
        await operations.cancel(runner.store, task_id)

    with pytest.raises(errors.TaskCanceledError):
        drive(runner, handle, cancel)
    assert cleaned == [1]


def test_a_child_in_doubt_blocks_its_parent(runner):
    @tool(effect="once")
    async def send() -> None:
        raise ConnectionError("reset")

    @runner.task
    async def part(ctx) -> None:
        await ctx.tool(send)

    @runner.task
    async def whole(ctx) -> None:
        await ctx.child(part)

    handle = runner.submit(whole)
    with pytest.raises(errors.TaskBlockedError) as caught:
        drive(runner, handle)
    assert "holdfast resolve" in caught.value.needs[0]


# -- sync handlers --------------------------------------------------------------------------------


def test_a_sync_handler_waits_branches_and_has_children(runner):
    threads = set()

    def note(n: int) -> int:
        threads.add(threading.get_ident())
        return n

    @runner.task
    def part(ctx, n: int) -> int:
        ctx.sleep("nap", 0.05)
        return n

    @runner.task
    def whole(ctx) -> list:
        with ctx.scope("s"):
            first = ctx.uuid("u")

        def branch():
            ctx.sleep("nap", 0.05)
            return ctx.step(note, 1)

        both = ctx.gather(branch, lambda: ctx.step(note, 2))
        mapped = ctx.map(lambda n: ctx.step(note, n), [3, 4], limit=1)
        got = ctx.signal("go")
        child = ctx.child(part, n=5)
        with ctx.scope("s"):
            assert ctx.uuid("other") != first
        return [*both, *mapped, got, child]

    handle = runner.submit(whole)
    runner.signal(handle.task_id, "go", 6)
    assert drive(runner, handle) == [1, 2, 3, 4, 6, 5]


def test_a_failing_sync_branch_stops_its_siblings(runner):
    after = []

    def note() -> None:
        after.append(1)

    @runner.task(retry=RetryPolicy(max_attempts=1))
    def whole(ctx) -> None:
        def fails():
            raise ValueError("no")

        def goes_on():
            try:
                ctx.signal("never")
            finally:
                try:
                    ctx.step(note)
                except BaseException as refused:
                    after.append(type(refused).__name__)
                    raise

        try:
            ctx.gather(goes_on, fails)
        except ValueError:
            ctx.step(note)
            raise

    with pytest.raises(errors.TaskFailedError, match="no"):
        runner.run(whole)
    assert after == ["CancelledError", 1]


def test_a_call_in_doubt_beside_another_wait_is_shown_and_wakes_its_item_when_it_is_resolved(
    runner,
):
    went_on = []

    @tool(effect="once")
    async def send() -> str:
        raise ConnectionError("reset")

    @tool(effect="once")
    async def post() -> str:
        raise TimeoutError("no answer")

    @runner.task
    async def job(ctx) -> list[str]:
        async def calls() -> str:
            sent = await ctx.tool(send)
            went_on.append(await ctx.tool(post))
            return sent

        return await ctx.gather(calls(), ctx.signal("go"))

    async def resolve(task_id, name, value):
        await until(lambda: item(runner, task_id).status == "waiting")
        await until(lambda: name in "".join(operations.needs_of(runner.store, task_id)))
        (need,) = operations.needs_of(runner.store, task_id)
        assert need.count("holdfast resolve") == 1
        await operations.resolve(runner.store, need.split()[2].rstrip(":"), "done", value)

    async def people(task_id):
        await resolve(task_id, "send", "sent")
        await resolve(task_id, "post", "posted")
        await until(lambda: went_on)  # though the signal hasn't come
        await operations.send_signal(runner.store, task_id, "go", "gone")

    assert drive(runner, runner.submit(job), people) == ["sent", "gone"]
    assert set(went_on) == {"posted"}

"""Failed attempts: when they are repeated, what they repeat, and time limits."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from holdfast import Context, RetryPolicy, SyncContext, errors, invocation, operations, tool
from holdfast.store import verbs


def test_a_failed_attempt_is_repeated_and_recorded_calls_are_not(runner, quick):
    calls, attempts = [], []

    @runner.task(retry=quick)
    async def flaky(ctx: Context) -> str:
        attempts.append(ctx.attempt)
        done = await ctx.step(lambda: calls.append("good") or "done")
        if ctx.attempt < 3:
            raise RuntimeError("not yet")
        return done

    assert runner.run(flaky) == "done"
    assert (calls, attempts) == (["good"], [1, 2, 3])


def test_the_call_whose_failure_ended_the_attempt_is_made_again(runner, quick):
    calls = []

    def fails_once() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("first")
        return "second"

    @runner.task(retry=quick)
    async def flaky(ctx: Context) -> str:
        return await ctx.step(fails_once)

    assert runner.run(flaky) == "second"


def test_a_failure_that_the_handler_caught_replays_as_that_failure(runner, quick):
    calls = []

    def fails() -> None:
        calls.append(1)
        raise ValueError("always")

    @runner.task(retry=quick)
    async def flaky(ctx: Context) -> str:
        try:
            await ctx.step(fails)
        except ValueError as error:
            text = str(error)
        if ctx.attempt == 1:
            raise RuntimeError("something else")
        return text

    assert runner.run(flaky) == "always"
    assert calls == [1]


def test_pauses_grow_and_are_spread():
    policy = RetryPolicy(max_attempts=9, initial=1.0, factor=2.0, maximum=5.0)
    for failures, full in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (60, 5.0), (5000, 5.0)):
        pauses = {policy.pause(failures) for _ in range(50)}
        assert all(full / 2 <= pause <= full for pause in pauses)
        assert len(pauses) > 40


def test_the_pause_before_the_next_attempt_is_kept(runner):
    times = []

    @runner.task(retry=RetryPolicy(max_attempts=2, initial=0.2))
    async def flaky(ctx: Context) -> None:
        times.append(time.monotonic())
        if ctx.attempt == 1:
            raise RuntimeError("once")

    runner.run(flaky)
    assert 0.1 <= times[1] - times[0] < 2.0


def test_an_async_attempt_ends_at_its_time_limit(runner):
    ended = []

    @runner.task(retry=RetryPolicy(max_attempts=2, initial=0.001), timeout=0.1)
    async def slow(ctx: Context) -> str:
        if ctx.attempt == 2:
            return "in time"
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("finally")
        return "late"

    assert runner.run(slow) == "in time"
    assert ended == ["finally"]


def test_a_sync_attempt_that_blocks_is_given_up_at_its_time_limit(runner, monkeypatch):
    monkeypatch.setattr(invocation, "LINGER", 0.1)
    release, later = threading.Event(), []

    @runner.task(retry=RetryPolicy(max_attempts=1), timeout=0.1)
    def blocks(ctx: SyncContext) -> None:
        release.wait(10)
        try:
            ctx.step(lambda: later.append("made"))
        except BaseException as error:
            later.append(type(error).__name__)
            raise

    started = time.monotonic()
    with pytest.raises(errors.TaskFailedError, match=r"CallTimeoutError.*0\.1 s"):
        runner.run(blocks)
    assert time.monotonic() - started < 3
    release.set()
    deadline = time.monotonic() + 3
    while not later and time.monotonic() < deadline:
        time.sleep(0.01)
    assert later == ["CancelledError"]


def test_bad_input_is_not_retried(runner, quick):
    attempts = []

    @runner.task(retry=quick)
    async def wrong(ctx: Context) -> None:
        attempts.append(1)
        await ctx.step(len, object(), object())

    with pytest.raises(errors.TaskFailedError, match="ArgumentsError"):
        runner.run(wrong)
    assert attempts == [1]


def test_retry_by_a_person_calls_only_what_failed_again(runner):
    calls = []

    def bad() -> str:
        calls.append("bad")
        if calls.count("bad") == 1:
            raise RuntimeError("once")
        return "good"

    @runner.task(retry=RetryPolicy(max_attempts=1))
    async def job(ctx: Context) -> str:
        await ctx.step(lambda: calls.append("first"))
        return await ctx.step(bad)

    with pytest.raises(errors.TaskFailedError) as caught:
        runner.run(job)
    asyncio.run(operations.retry(runner.store, caught.value.task_id))
    assert runner.run(job) == "good"
    assert calls == ["first", "bad", "bad"]


def test_retry_by_a_person_never_repeats_a_once_call_that_happened(runner):
    sent = []

    @tool(effect="once")
    async def send() -> object:
        sent.append(1)
        return object()  # it happened, and what it returned can't be kept

    @runner.task(retry=RetryPolicy(max_attempts=1))
    async def job(ctx: Context) -> object:
        return await ctx.tool(send)

    for _ in range(2):
        with pytest.raises(errors.TaskFailedError) as caught:
            runner.run(job)
        runner.retry(caught.value.task_id)
    assert sent == [1]


def test_retry_refuses_what_succeeded(runner):
    @runner.task
    async def one(ctx: Context) -> int:
        return 1

    handle = runner.submit(one)
    handle.run()
    with pytest.raises(errors.UsageError, match="succeeded"):
        runner.retry(handle.task_id)


def test_progress_is_on_the_timeline(runner):
    @runner.task
    async def job(ctx: Context) -> None:
        await ctx.progress("half way", 1, 2)

    handle = runner.submit(job)
    handle.run()
    events = runner.store.read(verbs.list_events(handle.task_id))
    assert [e.data for e in events if e.type == "progress"] == [
        '{"text":"half way","done":1,"total":2}'
    ]

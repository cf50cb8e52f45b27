"""The two faces of the context, and what it refuses."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from holdfast import Context, SyncContext, TaskRunner, errors
from holdfast.models import RetryPolicy
from holdfast.usage import Usage

LAST = RetryPolicy(max_attempts=1)


@pytest.fixture
def runner(tmp_path):
    made = TaskRunner(f"sqlite:///{tmp_path}/h.db", workspace=str(tmp_path))
    yield made
    made.close()


def public(cls):
    return {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}


def test_both_contexts_have_the_same_names():
    assert public(Context).keys() == public(SyncContext).keys()


@pytest.mark.parametrize("name", sorted(public(Context).keys() - {"gather", "map"}))
def test_both_contexts_take_the_same_parameters(name):
    ours, theirs = public(Context)[name], public(SyncContext)[name]
    if isinstance(ours, property):
        assert isinstance(theirs, property)
        return
    mine, other = inspect.signature(ours), inspect.signature(theirs)
    assert [str(p) for p in mine.parameters.values()] == [str(p) for p in other.parameters.values()]


def test_a_checkpoint_beside_a_sibling_branch_is_refused(runner):
    @runner.task(retry=LAST)
    async def both(ctx) -> list:
        refused = []

        async def one():
            with pytest.raises(errors.BranchesRunningError) as caught:
                await ctx.checkpoint(1)
            refused.append(caught.value)

        await ctx.gather(one(), ctx.sleep("nap", 0.01))
        sleeping = asyncio.ensure_future(ctx.sleep("plain", 30))
        await asyncio.sleep(0)
        await one()
        sleeping.cancel()
        await asyncio.wait((sleeping,))
        await ctx.checkpoint(1)
        return [str(error) for error in refused]

    assert len(runner.run(both)) == 2


def test_restore_after_another_call_is_refused(runner):
    @runner.task(retry=LAST)
    async def late(ctx) -> None:
        await ctx.now("t")
        await ctx.restore(None)

    with pytest.raises(errors.TaskFailedError, match="first call"):
        runner.run(late)


def test_a_loop_that_restores_makes_every_one_of_its_identical_calls(runner):
    """Replay and checkpoint mixed: after a crash, calls must not get answers of earlier rounds."""
    calls, crashes = [], [2, 4]

    async def act() -> int:
        calls.append(1)
        return len(calls)

    @runner.task(retry=RetryPolicy(max_attempts=5, initial=0.0))
    async def loop(ctx) -> list:
        state = await ctx.restore([])
        while len(state) < 6:
            answer = await ctx.step(act)
            if crashes and len(state) == crashes[0]:
                crashes.pop(0)
                raise OSError("crash")
            state = [*state, answer]
            await ctx.checkpoint(state)
        return state

    assert runner.run(loop) == [1, 2, 3, 4, 5, 6]
    assert len(calls) == 6


def test_calls_after_the_handler_has_returned_are_refused(runner):
    late, calls = [], []

    async def act() -> None:
        calls.append(1)

    @runner.task
    async def leaves(ctx) -> str:
        async def background():
            await asyncio.sleep(0.01)
            try:
                await ctx.tool(act)
            except errors.UsageError as error:
                late.append(error)

        late.append(asyncio.ensure_future(background()))
        return "done"

    async def main():
        result = await runner.arun(leaves)
        await late[0]
        return result

    assert asyncio.run(main()) == "done"
    assert isinstance(late[1], errors.UsageError)
    assert not calls


def test_a_result_waits_for_what_was_left_in_doubt(runner):
    limits = []

    async def send() -> None:
        limits[0].reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(10)

    @runner.task
    async def gives_up(ctx) -> str:
        try:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                await ctx.tool(send)
        except TimeoutError:
            return "gave up"
        return "sent"

    with pytest.raises(errors.TaskBlockedError) as caught:
        runner.run(gives_up)
    entry = caught.value.needs[0].removeprefix("holdfast resolve ").split(": ")[0]
    runner.resolve(entry, "done")
    assert runner.run(gives_up) == "sent"


def test_a_retry_calls_anew_what_ended_the_attempt_and_replays_what_was_caught(runner):
    calls = {"caught": 0, "ended": 0}

    async def caught() -> None:
        calls["caught"] += 1
        raise ValueError("caught")

    async def ended() -> str:
        calls["ended"] += 1
        if calls["ended"] < 3:
            raise KeyError("ended")
        return "ok"

    @runner.task(retry=RetryPolicy(max_attempts=3, initial=0.0))
    async def falls_back(ctx) -> str:
        try:
            return await ctx.step(caught)
        except ValueError:
            return await ctx.step(ended)

    assert runner.run(falls_back) == "ok"
    assert calls == {"caught": 1, "ended": 3}


def test_a_failure_wrapped_by_the_handler_is_called_anew_too(runner):
    calls = []

    async def act() -> str:
        calls.append(1)
        if len(calls) < 2:
            raise ValueError("no")
        return "ok"

    @runner.task(retry=RetryPolicy(max_attempts=2, initial=0.0))
    async def wraps(ctx) -> str:
        try:
            return (await ctx.gather(ctx.step(act)))[0]
        except ValueError as error:
            raise RuntimeError("wrapped") from error

    assert runner.run(wraps) == "ok"


def test_options_are_for_one_kind_of_call_and_refuse_nonsense(runner):
    @runner.task(retry=LAST)
    async def wrong(ctx) -> None:
        with pytest.raises(errors.UsageError):
            ctx.options(effect="llm")
        with pytest.raises(errors.UsageError):
            await ctx.map(ctx.now, ["a"], limit=0)
        assert await ctx.map(ctx.now, []) == []
        assert await ctx.gather() == []

    runner.run(wrong)


def test_the_idempotency_key_is_there_inside_a_call_only(runner):
    keys = []

    @runner.task(retry=LAST)
    async def handler(ctx) -> None:
        async def act() -> None:
            keys.append(ctx.idempotency_key)

        await ctx.step(act)
        with pytest.raises(errors.UsageError):
            _ = ctx.idempotency_key

    runner.run(handler)
    assert len(keys) == 1


def test_an_llm_call_takes_any_callable_and_options(runner):
    paid = []

    def ask(prompt: str) -> str:
        paid.append(prompt)
        return prompt + "!"

    @runner.task
    async def twice(ctx, n: int) -> str:
        given = ctx.options(reuse=60, model="m", usage=lambda _: Usage(1, 2, 3.0))
        answer = await given.llm(ask, "hi")
        await ctx.sleep("nap", 0.05)
        return answer

    assert runner.run(twice, n=1) == runner.run(twice, n=2) == "hi!"
    assert paid == ["hi"]

"""A provider that takes no more calls: the item waits, durably, and the call is made anew."""

from __future__ import annotations

import asyncio
import time

import pytest

from holdfast import Budget, Usage, errors, operations
from holdfast.models import RetryPolicy
from holdfast.store import verbs
from holdfast.testing import ManualClock

NOW = RetryPolicy(max_attempts=3, initial=0.0)


class Provider:
    """Refuses so many calls, each for so many seconds."""

    def __init__(self, *refusals: float | None) -> None:
        self.refusals = list(refusals)
        self.asked: list[float] = []

    async def ask(self, prompt: str) -> str:
        self.asked.append(time.time())
        if self.refusals:
            raise errors.RateLimitedError("too many", retry_after=self.refusals.pop(0))
        return prompt.upper()


def item(runner, task_id):
    return runner.store.read(verbs.get_item(task_id, "main"))


def entries(runner, task_id):
    return runner.store.read(verbs.read_journal(task_id, "main"))


def test_a_refused_call_waits_and_is_made_anew_without_counting_as_an_attempt(runner):
    provider, starts = Provider(0.3, 0.3), []

    @runner.task
    async def chat(ctx) -> str:
        starts.append(ctx.attempt)
        return await ctx.llm(provider.ask, "hi")

    handle = runner.submit(chat)
    assert handle.run() == "HI"
    assert len(provider.asked) == 3
    assert [b - a >= 0.3 for a, b in zip(provider.asked, provider.asked[1:], strict=False)]
    assert starts == [1, 1, 1]  # each wait ended the attempt and gave its slot back
    assert item(runner, handle.task_id).failures == 0
    kinds = [(e.status.value, e.ref) for e in entries(runner, handle.task_id)]
    assert kinds == [("released", None), ("released", None), ("done", None)]


def test_while_it_waits_the_task_is_waiting_and_says_for_what(runner):
    provider = Provider(60.0)

    @runner.task
    async def chat(ctx) -> str:
        return await ctx.llm(provider.ask, "hi")

    async def main() -> None:
        handle = await runner.asubmit(chat)
        running = asyncio.ensure_future(handle.arun())
        async with asyncio.timeout(5):
            while item(runner, handle.task_id).status != "waiting":
                await asyncio.sleep(0.01)
        found = item(runner, handle.task_id)
        assert '"kind":"quota"' in found.wait
        assert 50 < found.wake_at - time.time() < 60
        assert "waits until its provider takes calls again" in found.error
        assert handle.status == "waiting"
        running.cancel()
        await asyncio.wait((running,))

    asyncio.run(main())


def test_other_branches_of_the_item_go_on_meanwhile(runner):
    provider, made = Provider(0.4), []

    async def fine(n: int) -> int:
        made.append((n, len(provider.asked)))
        await asyncio.sleep(0.05)
        return n

    @runner.task
    async def chat(ctx) -> list[object]:
        async def others() -> list[object]:
            return [await ctx.llm(fine, n) for n in range(3)]

        return await ctx.gather(ctx.llm(provider.ask, "hi"), others())

    assert runner.submit(chat).run() == ["HI", [0, 1, 2]]
    assert made == [(0, 1), (1, 1), (2, 1)]  # once each, while the first had been asked once


def test_parallel_refusals_are_each_waited_for(runner):
    provider = Provider(0.2, 0.3, 0.2, 0.1)

    @runner.task
    async def chat(ctx) -> list[str]:
        return await ctx.map(lambda p: ctx.llm(provider.ask, p), "abc")

    assert runner.submit(chat).run() == ["A", "B", "C"]
    assert len(provider.asked) == 7


@pytest.mark.parametrize("options", [{"quota_wait": 0}, {"quota_wait": 0.5}])
def test_a_wait_has_a_limit_and_can_be_switched_off(runner, options):
    provider = Provider(0.4, 0.4, 0.4)

    @runner.task(retry=RetryPolicy(max_attempts=1))
    async def chat(ctx) -> str:
        return await ctx.options(**options).llm(provider.ask, "hi")

    handle = runner.submit(chat)
    with pytest.raises(errors.TaskFailedError) as failed:
        handle.run()
    assert failed.value.error_type == "RateLimitedError"
    assert len(provider.asked) == (1 if not options["quota_wait"] else 2)
    operations_retried = asyncio.run(operations.retry(runner.store, handle.task_id))
    assert operations_retried == 1
    provider.refusals.clear()
    assert handle.run() == "HI"


def test_the_count_goes_on_across_attempts_and_what_one_call_waited_is_not_charged_to_the_next(
    runner,
):
    asked = []

    async def ask(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) in {1, 2, 4, 5}:
            raise errors.RateLimitedError("too many", retry_at=time.time() + 0.2)
        return prompt.upper()

    @runner.task(retry=RetryPolicy(max_attempts=1))
    async def chat(ctx) -> list[str]:
        given = ctx.options(quota_wait=0.5)
        return [await given.llm(ask, "hi"), await given.llm(ask, "hi")]

    assert runner.submit(chat).run() == ["HI", "HI"]
    assert len(asked) == 6


def test_without_a_time_the_pause_doubles_up_to_a_quarter_of_an_hour_and_ends_after_a_day():
    from holdfast.quota import Refusals

    clock = ManualClock()
    refusals, waits = Refusals(None), []
    while (retry_at := refusals.allow(errors.RateLimitedError("no"), clock.now())) is not None:
        waits.append(retry_at - clock.now())
        refusals.note(clock.now(), retry_at)
        clock.advance(waits[-1])
    assert waits[:8] == [15, 30, 60, 120, 240, 480, 900, 900]
    assert 80_000 < sum(waits) <= 86_400
    assert len(waits) <= 100


def test_a_refusal_costs_nothing_of_a_budget(runner):
    provider = Provider(0.1, 0.1)

    @runner.task
    async def chat(ctx) -> str:
        return await ctx.options(reserve=Usage(5, 5), usage=lambda _: Usage(2, 2)).llm(
            provider.ask, "hi"
        )

    handle = runner.options(budget=Budget(tokens=10)).submit(chat)
    assert handle.run() == "HI"
    assert len(provider.asked) == 3
    found = operations.budget_of(runner.store, handle.task_id)
    assert (found.tokens, found.reserved_tokens) == (4, 0)

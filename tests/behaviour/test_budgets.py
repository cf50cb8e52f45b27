"""Budgets: reserved before anything is sent, one ledger for all of a task, never reset."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import Budget, Tool, Usage, errors, operations
from holdfast.models import RetryPolicy
from holdfast.states import EntryStatus
from holdfast.store import verbs

NOW = RetryPolicy(max_attempts=3, initial=0.0)
TEN = Usage(6, 4)


class Model:
    """A provider that counts what it was asked, and whose answers took eight tokens each."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fail: list[BaseException] = []

    async def ask(self, prompt: str) -> dict[str, object]:
        self.asked.append(prompt)
        if self.fail:
            raise self.fail.pop(0)
        return {"text": prompt.upper(), "usage": {"input_tokens": 5, "output_tokens": 3}}


@pytest.fixture
def model():
    return Model()


def spent(runner, task_id):
    found = operations.budget_of(runner.store, task_id)
    return found.tokens, found.reserved_tokens


def entries(runner, task_id):
    return runner.store.read(verbs.read_journal(task_id, "main"))


def asks(runner, model, prompts="abcd", **options):
    @runner.task(retry=NOW)
    async def chat(ctx) -> int:
        given = ctx.options(reserve=TEN, **options)
        for prompt in prompts:
            await given.llm(model.ask, prompt)
        return len(prompts)

    return chat


def test_a_call_is_settled_by_what_it_took(runner, model):
    chat = asks(runner, model)
    handle = runner.options(budget=Budget(tokens=40)).submit(chat)
    assert handle.run() == 4
    assert spent(runner, handle.task_id) == (32, 0)


def test_without_a_budget_nothing_is_recorded_beforehand(runner, model):
    handle = runner.submit(asks(runner, model))
    handle.run()
    assert [e.status for e in entries(runner, handle.task_id)] == ["done"] * 4
    with pytest.raises(errors.UsageError, match="no budget"):
        operations.budget_of(runner.store, handle.task_id)


def test_at_its_limit_a_task_is_blocked_and_goes_on_when_more_is_added(new_runner, model):
    runner = new_runner()
    handle = runner.options(budget=Budget(tokens=20)).submit(asks(runner, model))
    with pytest.raises(errors.TaskBlockedError) as blocked:
        handle.run()
    assert model.asked == ["a", "b"]
    (need,) = blocked.value.needs
    assert need.startswith(f"holdfast budget {handle.task_id} --add-tokens N: main waits: ")
    assert "16 of 20 tokens are spent or reserved, and Model.ask may take 10" in need
    assert blocked.value.entries == []
    again = new_runner()
    asks(again, model)
    with pytest.raises(errors.TaskBlockedError):  # another process doesn't start from nothing
        asyncio.run(again.drive(handle.task_id))
    assert model.asked == ["a", "b"]
    found = runner.add_to_budget(handle.task_id, tokens=20)
    assert (found.token_limit, found.tokens) == (40, 16)
    assert handle.run() == 4
    assert model.asked == ["a", "b", "c", "d"]
    assert runner.store.read(verbs.get_item(handle.task_id, "main")).attempts == 1


def test_a_call_larger_than_the_whole_budget_says_so(runner, model):
    handle = runner.options(budget=Budget(tokens=9)).submit(asks(runner, model))
    with pytest.raises(errors.TaskBlockedError, match=r"may take 10 alone, more than the whole"):
        handle.run()
    assert model.asked == []


def test_a_call_of_unknown_price_is_refused_under_a_budget_of_money(runner, model):
    handle = runner.options(budget=Budget(cost=1.0)).submit(asks(runner, model))
    with pytest.raises(errors.TaskFailedError, match="UnknownPriceError") as failed:
        handle.run()
    assert failed.value.error_type == "UnknownPriceError"
    assert model.asked == []
    assert entries(runner, handle.task_id) == []


def test_money_is_counted_to_the_billionth_and_unknown_cost_stays_reserved(runner, model):
    @runner.task
    async def chat(ctx) -> None:
        priced = ctx.options(
            reserve=lambda arguments: Usage(1, 1, cost=0.1 * len(arguments["prompt"])),
            usage=lambda answer: Usage(1, 1, 0.1 if answer["text"] == "A" else None),
        )
        for prompt in ("a", "bb"):
            await priced.llm(model.ask, prompt)

    handle = runner.options(budget=Budget(cost=0.3)).submit(chat)
    handle.run()
    assert operations.budget_of(runner.store, handle.task_id).nanos == 300_000_000


@pytest.mark.parametrize(
    ("error", "tokens"),
    [
        (errors.NoEffect("refused"), 0),
        (KeyError("the declared one"), 0),
        (RuntimeError("cut off"), 10),
    ],
)
def test_a_failure_costs_what_it_reserved_unless_it_is_known_to_cost_nothing(
    runner, model, error, tokens
):
    declared = Tool(model.ask, no_effect=(KeyError,))

    @runner.task(retry=NOW)
    async def chat(ctx) -> None:
        await ctx.options(reserve=TEN).llm(declared, "a")

    model.fail = [error]
    handle = runner.options(budget=Budget(tokens=100)).submit(chat)
    handle.run()
    assert model.asked == ["a", "a"]
    assert spent(runner, handle.task_id) == (tokens + 8, 0)


def test_children_spend_from_the_budget_of_their_root(runner, model):
    chat = asks(runner, model, "ab")

    @runner.task
    async def parent(ctx) -> int:
        given = ctx.options(reserve=TEN)
        await given.llm(model.ask, "first")
        return await ctx.child(chat)

    handle = runner.options(budget=Budget(tokens=20)).submit(parent)
    with pytest.raises(errors.TaskBlockedError) as blocked:
        handle.run()
    (need,) = blocked.value.needs
    assert need.startswith(f"holdfast budget {handle.task_id} ")
    (child,) = runner.store.read(verbs.list_children(handle.task_id))
    runner.add_to_budget(child.task_id, tokens=10)
    assert handle.run() == 2
    assert spent(runner, handle.task_id) == (24, 0)


def test_parallel_calls_never_reserve_more_than_there_is(runner, model):
    under_way, most = 0, 0

    async def ask(prompt: str) -> dict[str, object]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return await model.ask(prompt)

    @runner.task
    async def chat(ctx, prompts: str) -> list[object]:
        return await ctx.map(lambda p: ctx.options(reserve=TEN).llm(ask, p), prompts)

    handle = runner.options(budget=Budget(tokens=50)).submit(chat, prompts="abcde")
    handle.run()
    assert most == 5
    handle = runner.options(budget=Budget(tokens=42)).submit(chat, prompts="abcde")
    most = 0
    handle.run()  # what the first had left over was enough for the last
    assert most == 4
    assert spent(runner, handle.task_id) == (40, 0)
    assert sorted(model.asked) == sorted("abcde" * 2)


def test_what_waits_in_one_task_goes_on_when_another_of_the_same_root_leaves_something(runner):
    gate = asyncio.Event()
    order: list[str] = []

    async def ask(prompt: str) -> dict[str, object]:
        order.append(prompt)
        if prompt == "slow":
            await gate.wait()
        return {"usage": {"input_tokens": 1, "output_tokens": 0}}

    @runner.task
    async def one(ctx, prompt: str) -> None:
        await ctx.options(reserve=TEN).llm(ask, prompt)

    @runner.task
    async def both(ctx) -> None:
        await ctx.gather(ctx.child(one, "slow"), ctx.child(one, "late"))

    async def main() -> None:
        handle = await runner.options(budget=Budget(tokens=15)).asubmit(both)
        running = asyncio.ensure_future(handle.arun())
        async with asyncio.timeout(10):
            while not any(
                item.wait and '"budget":"' in item.wait
                for child in runner.store.read(verbs.list_children(handle.task_id))
                for item in runner.store.read(verbs.list_items(child.task_id))
            ):
                await asyncio.sleep(0.01)
            assert len(order) == 1
            if order == ["late"]:
                pytest.fail("the first child was to be slow")
            gate.set()
            await running
        assert spent(runner, handle.task_id) == (2, 0)

    asyncio.run(main())
    assert order == ["slow", "late"]


def test_an_answer_from_the_shared_cache_costs_nothing(runner, model):
    chat = asks(runner, model, "a", reuse=True)
    runner.submit(chat).run()
    handle = runner.options(budget=Budget(tokens=0)).submit(chat)
    assert handle.run() == 1
    assert spent(runner, handle.task_id) == (0, 0)
    assert model.asked == ["a"]


def test_a_call_that_waits_for_its_budget_keeps_nobody_from_the_shared_cache(runner, model):
    """Two equal calls that share their output: the second must not wait for the first for ever."""
    chat = asks(runner, model, "a", reuse=True)

    @runner.task
    async def both(ctx) -> None:
        one = ctx.options(reserve=TEN, reuse=True)
        await ctx.gather(one.llm(model.ask, "a"), one.llm(model.ask, "a"))

    handle = runner.options(budget=Budget(tokens=9)).submit(both)
    with pytest.raises(errors.TaskBlockedError):
        handle.run()
    assert runner.submit(chat).run() == 1  # another task may generate it
    runner.add_to_budget(handle.task_id, tokens=1)
    handle.run()
    assert model.asked == ["a"]
    assert spent(runner, handle.task_id) == (0, 0)


def test_a_call_that_an_attempt_left_open_is_made_again_and_the_first_stays_spent(runner, model):
    @runner.task(timeout=0.3, retry=NOW)
    async def chat(ctx) -> object:
        async def ask(prompt: str) -> dict[str, object]:
            await model.ask(prompt)
            if len(model.asked) == 1:
                await asyncio.sleep(30)
            return {"usage": {"input_tokens": 8, "output_tokens": 0}}

        return await ctx.options(reserve=TEN).llm(ask, "a")

    handle = runner.options(budget=Budget(tokens=100)).submit(chat)
    handle.run()
    assert model.asked == ["a", "a"]
    assert spent(runner, handle.task_id) == (18, 0)
    statuses = [entry.status for entry in entries(runner, handle.task_id)]
    assert statuses == [
        EntryStatus.STARTED, EntryStatus.RELEASED, EntryStatus.STARTED, EntryStatus.DONE,
    ]  # fmt: skip


def test_two_calls_under_one_key_at_the_same_time_count_twice(runner, model):
    @runner.task
    async def chat(ctx) -> None:
        one = ctx.options(reserve=TEN, key="k")
        await asyncio.gather(one.llm(model.ask, "a"), one.llm(model.ask, "a"))
        await one.llm(model.ask, "a")

    handle = runner.options(budget=Budget(tokens=100)).submit(chat)
    handle.run()
    assert spent(runner, handle.task_id) == (8 * len(model.asked), 0)
    assert len(model.asked) == 2


@pytest.mark.parametrize(("tokens", "cost"), [(-1, 0.0), (0, -0.5), (0, float("nan")), (0, 1.0)])
def test_a_budget_is_not_made_smaller_nor_given_a_limit_it_had_not(runner, model, tokens, cost):
    handle = runner.options(budget=Budget(tokens=5)).submit(asks(runner, model))
    with pytest.raises(errors.UsageError):
        runner.add_to_budget(handle.task_id, tokens=tokens, cost=cost)
    assert operations.budget_of(runner.store, handle.task_id).token_limit == 5


@pytest.mark.parametrize(
    "given",
    [{}, {"tokens": -1}, {"cost": float("inf")}, {"tokens": 2**53 + 1}, {"cost": 1.1e9}],
)
def test_a_budget_that_limits_nothing_or_cannot_be_counted_is_refused(given):
    with pytest.raises(errors.UsageError):
        Budget(**given)

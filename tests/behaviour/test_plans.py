"""Plans: their order, their results, and what is refused."""

from __future__ import annotations

import asyncio

import pytest
from support.runs import interrupt

from holdfast import (
    Context,
    Evidence,
    ItemPolicy,
    ItemStatus,
    RetryPolicy,
    TaskRunner,
    WorkItem,
    errors,
)
from holdfast.store import verbs

ONCE = RetryPolicy(max_attempts=1)


def statuses(runner: TaskRunner, task_id: str) -> dict[str, str]:
    return {i.item_id: i.status.value for i in runner.store.read(verbs.list_items(task_id))}


def failed(runner: TaskRunner, task, *args: object, **kwargs: object) -> errors.TaskFailedError:
    with pytest.raises(errors.TaskFailedError) as caught:
        runner.run(task, *args, **kwargs)
    return caught.value


def plan_of(runner: TaskRunner, *items: WorkItem):
    @runner.task(name="whole", retry=ONCE)
    async def whole(ctx: Context) -> dict:
        return ctx.results

    @runner.planner(whole)
    def plan(task) -> list[WorkItem]:
        return list(items)

    return whole


def test_items_run_side_by_side_where_the_plan_allows_and_in_order_where_not(runner):
    running, most, order = set(), [], []

    @runner.task
    async def part(ctx: Context, name: str) -> str:
        running.add(name)
        most.append(len(running))
        await asyncio.sleep(0.05)
        running.discard(name)
        order.append(name)
        return name + "".join(sorted(ctx.results.values()))

    whole = plan_of(
        runner,
        WorkItem("c", part, {"name": "c"}, after=["a", "b"]),
        WorkItem("a", part, {"name": "a"}),
        WorkItem("b", part, {"name": "b"}),
    )
    assert runner.run(whole) == {"c": "cab"}
    assert max(most) == 2
    assert order[-1] == "c"


def test_a_committed_plan_is_pinned_to_its_task(new_runner):
    started: list[str] = []

    def program(names: str, *, finish: bool):
        runner = new_runner()

        @runner.task(name="part")
        async def part(ctx: Context, name: str) -> str:
            started.append(name)
            if not finish:
                await asyncio.sleep(60)
            return name

        whole = plan_of(runner, *(WorkItem(name, part, {"name": name}) for name in names))
        return runner, whole

    runner, whole = program("ab", finish=False)

    asyncio.run(interrupt(runner.arun(whole), lambda: started))
    runner, edited = program("xyz", finish=True)
    assert runner.run(edited) == {"a": "a", "b": "b"}


async def nothing(ctx: Context) -> None: ...


async def takes_n(ctx: Context, n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([WorkItem("a", "nothing", after=["a"])], "cycle: a → a"),
        (
            [WorkItem("a", "nothing", after=["b"]), WorkItem("b", "nothing", after=["a"])],
            "cycle",
        ),
        ([WorkItem("a", "unheard_of")], "'a'.*unheard_of"),
        ([WorkItem("a", "nothing"), WorkItem("a", "nothing")], "Two items"),
        ([WorkItem("a", "nothing", after=["b"])], "'b', which isn't there"),
        ([WorkItem("a", "nothing", after="bc")], "give a list"),
        ([WorkItem("main", "nothing")], "no item id"),
        ([WorkItem("a b", "nothing")], "no item id"),
        ([WorkItem("a", "takes_n")], "missing a required argument: 'n'"),
        ([WorkItem("a", "takes_n", {"n": object()})], r"takes_n can't be kept"),
        (
            [
                WorkItem("a", "nothing", evidence=[Evidence.file("x")]),
                WorkItem("b", "nothing", evidence=[Evidence.file("x")]),
            ],
            "both claim file:x",
        ),
        (["a"], "returns WorkItems"),
        (7, "returns a list of WorkItems"),
        (None, "returns a list of WorkItems"),
    ],
)
def test_a_plan_that_cannot_be_executed_fails_the_task_at_once(runner, items, message):
    runner.task(nothing)
    runner.task(takes_n)

    @runner.task
    async def whole(ctx: Context) -> None: ...

    runner.planner(whole)(lambda task: items)
    error = failed(runner, whole)
    assert error.args
    import re

    assert re.search(message, str(error)), str(error)
    assert statuses(runner, error.task_id) == {"plan": "failed", "main": "skipped"}


def test_ordered_items_may_claim_one_subject(runner, work):
    (work / "x").write_text("here")
    runner.task(nothing)
    evidence = [Evidence.file("x")]
    whole = plan_of(
        runner,
        WorkItem("a", "nothing", evidence=evidence),
        WorkItem("b", "nothing", after=["a"]),
        WorkItem("c", "nothing", after=["b"], evidence=evidence),
    )
    assert runner.run(whole) == {"c": None}


def test_evidence_owed_by_the_handler_counts_for_the_check_of_subjects(runner):
    runner.task(name="writes", evidence=[Evidence.file("x")])(nothing)
    whole = plan_of(runner, WorkItem("a", "writes"), WorkItem("b", "writes"))
    assert "both claim file:x" in str(failed(runner, whole))


def test_a_long_chain_is_planned_quickly(runner):
    runner.task(nothing)
    from holdfast.planning import plan_items

    plan = [WorkItem("0", "nothing")] + [
        WorkItem(str(n), "nothing", after=[str(n - 1)]) for n in range(1, 5000)
    ]
    whole = plan_of(runner)
    handle = runner.submit(whole)
    items, last = plan_items(runner.handlers, handle.task, plan[::-1])
    assert (len(items), items[0].item_id, last) == (5000, "0", ("4999",))


def test_a_planner_that_raises_is_tried_again_and_then_fails_the_task(runner, quick):
    asked = []

    @runner.task(retry=quick)
    async def whole(ctx: Context) -> int:
        return 1

    @runner.planner(whole)
    def plan(task) -> list[WorkItem]:
        asked.append(task.name)
        raise RuntimeError("no idea")

    assert "plan: RuntimeError: no idea" in str(failed(runner, whole))
    assert len(asked) == 3


def test_an_async_planner_and_an_empty_plan(runner):
    @runner.task
    async def whole(ctx: Context) -> dict:
        return ctx.results

    @runner.planner(whole)
    async def plan(task) -> list[WorkItem]:
        return []

    assert runner.run(whole) == {}


def test_after_a_failure_dependents_are_skipped_and_others_go_on(runner):
    ran = []

    @runner.task
    async def part(ctx: Context, name: str) -> None:
        ran.append(name)
        if name == "bad" and ran.count("bad") == 1:
            raise RuntimeError("broken")

    once = ItemPolicy(retry=ONCE)
    whole = plan_of(
        runner,
        WorkItem("bad", part, {"name": "bad"}, policy=once),
        WorkItem("after", part, {"name": "after"}, after=["bad"]),
        WorkItem("last", part, {"name": "last"}, after=["after"]),
        WorkItem("other", part, {"name": "other"}),
        WorkItem("then", part, {"name": "then"}, after=["other"]),
    )
    error = failed(runner, whole)
    assert "bad: RuntimeError: broken" in str(error)
    assert statuses(runner, error.task_id) == {
        "plan": "succeeded", "bad": "failed", "after": "skipped", "last": "skipped",
        "other": "succeeded", "then": "succeeded", "main": "skipped",
    }  # fmt: skip
    assert sorted(ran) == ["bad", "other", "then"]

    assert runner.retry(error.task_id) == 1
    assert runner.run(whole) == {"last": None, "then": None}
    assert sorted(ran) == ["after", "bad", "bad", "last", "other", "then"]


def test_an_item_of_a_plan_has_its_own_policy_and_priority(runner):
    @runner.task
    async def part(ctx: Context) -> int:
        return ctx.attempt

    policy = ItemPolicy(RetryPolicy(max_attempts=7), timeout=2.5, max_crashes=9)
    whole = plan_of(runner, WorkItem("a", part, policy=policy, priority=4))
    handle = runner.submit(whole)
    assert handle.run() == {"a": 1}
    item = runner.store.read(verbs.get_item(handle.task_id, "a"))
    assert (item.priority, item.max_crashes, item.status) == (4, 9, ItemStatus.SUCCEEDED)


@pytest.mark.parametrize("sync", [False, True])
def test_a_planner_with_a_context_does_not_pay_for_its_calls_twice(runner, sync):
    asked = []

    @runner.task
    async def part(ctx: Context, name: str) -> str:
        return name

    @runner.task(name="planned", retry=RetryPolicy(max_attempts=2, initial=0.01))
    async def planned(ctx: Context) -> list:
        return sorted(ctx.results.values())

    def ask() -> list[str]:
        asked.append("model")
        return ["a", "b"]

    def items(names: list[str]) -> list[WorkItem]:
        if len(asked) == 1:
            asked.append("crash")
            raise RuntimeError
        return [WorkItem(name, part, {"name": name}) for name in names]

    if sync:

        @runner.planner(planned)
        def plan(ctx, task) -> list[WorkItem]:
            return items(ctx.llm(ask))

    else:

        @runner.planner(planned)
        async def plan(ctx, task) -> list[WorkItem]:
            return items(await ctx.llm(ask))

    assert runner.run(planned) == ["a", "b"]
    assert asked == ["model", "crash"]

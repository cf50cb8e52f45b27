"""Forks: another task that goes on from a checkpoint."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import Context, Evidence, RetryPolicy, WorkItem, errors, tool
from holdfast.operations import verify_chains
from holdfast.store import verbs

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def counter(runner, calls):
    @runner.task(retry=ONCE)
    async def count(ctx: Context, until: int) -> list[str]:
        state = await ctx.restore([])
        while len(state) < until:
            state = [*state, await ctx.llm(lambda: calls.append("llm") or f"n{len(calls)}")]
            await ctx.checkpoint(state)
        return state

    return count


def test_a_fork_goes_on_from_a_checkpoint_and_leaves_the_original(runner, counter, calls):
    handle = runner.submit(counter, 3)
    assert handle.run() == ["n1", "n2", "n3"]
    assert runner.resume_from_checkpoint(f"{handle.task_id}:main:2") == ["n1", "n2", "n4"]
    assert handle.run() == ["n1", "n2", "n3"]
    assert calls == ["llm"] * 4


def test_a_fork_may_have_another_state(runner, counter):
    handle = runner.submit(counter, 3)
    handle.run()
    checkpoint = f"{handle.task_id}:main:1"
    assert runner.resume_from_checkpoint(checkpoint, state=["mine"]) == ["mine", "n4", "n5"]


def test_another_state_needs_a_handler_that_restores(runner):
    @runner.task
    async def job(ctx: Context) -> None:
        await ctx.checkpoint(1)

    handle = runner.submit(job)
    handle.run()
    with pytest.raises(errors.UsageError, match="never called restore"):
        asyncio.run(runner.fork(f"{handle.task_id}:main:1", state=2))


def test_the_chain_verifies_in_the_fork(runner, counter):
    handle = runner.submit(counter, 3)
    handle.run()
    forked = asyncio.run(runner.fork(f"{handle.task_id}:main:2"))
    for task_id in (forked, handle.task_id):
        report = verify_chains(runner.store, task_id)
        assert (report.entries > 0, report.broken) == (True, ())
    runner.run_with_recovery(forked)
    assert verify_chains(runner.store, forked).broken == ()


def test_once_calls_made_after_the_checkpoint_need_permission(runner, calls):
    @tool(effect="once")
    async def send() -> str:
        calls.append("send")
        return "sent"

    @runner.task(retry=ONCE)
    async def child(ctx: Context) -> str:
        return await ctx.tool(send)

    @runner.task(retry=ONCE)
    async def job(ctx: Context, *, in_child: bool) -> str:
        await ctx.checkpoint(1)
        return await (ctx.child(child) if in_child else ctx.tool(send))

    for in_child in (False, True):
        calls.clear()
        handle = runner.submit(job, in_child=in_child)
        handle.run()
        checkpoint = f"{handle.task_id}:main:1"
        with pytest.raises(errors.UsageError, match=r"send .*allow-repeat"):
            runner.resume_from_checkpoint(checkpoint)
        assert calls == ["send"]
        assert runner.resume_from_checkpoint(checkpoint, allow_repeat=True) == "sent"
        assert calls == ["send", "send"]


def test_a_once_call_before_the_checkpoint_is_replayed(runner, calls):
    @tool(effect="once")
    async def send() -> str:
        calls.append("send")
        return "sent"

    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> str:
        sent = await ctx.tool(send)
        await ctx.checkpoint(1)
        return sent

    handle = runner.submit(job)
    handle.run()
    assert runner.resume_from_checkpoint(f"{handle.task_id}:main:1") == "sent"
    assert calls == ["send"]


def test_a_fork_inside_a_plan_keeps_what_comes_before(runner, work, calls):
    @runner.task
    async def part(ctx: Context, name: str) -> str:
        calls.append(name)
        (work / name).write_text(name)
        await ctx.checkpoint(name, evidence=Evidence.file(name))
        return name

    @runner.task
    async def whole(ctx: Context) -> dict:
        calls.append("main")
        return ctx.results

    @runner.planner(whole)
    def plan(task) -> list[WorkItem]:
        calls.append("plan")
        return [
            WorkItem("a", part, {"name": "a"}),
            WorkItem("b", part, {"name": "b"}, after=["a"]),
            WorkItem("c", part, {"name": "c"}, after=["b"]),
        ]

    handle = runner.submit(whole)
    handle.run()
    assert calls == ["plan", "a", "b", "c", "main"]
    calls.clear()
    assert runner.resume_from_checkpoint(f"{handle.task_id}:b:1") == {"c": "c"}
    assert calls == ["b", "c", "main"]  # b from the top, by replay


def test_only_a_checkpoint_whose_evidence_holds_can_be_forked_from(runner, work):
    (work / "x").write_text("x")

    @runner.task
    async def job(ctx: Context) -> None:
        await ctx.checkpoint(1, evidence=Evidence.file("x"))

    handle = runner.submit(job)
    handle.run()
    (work / "x").write_text("y")
    before = len(runner.store.read(verbs.list_tasks(None, 100)))
    for name in (f"{handle.task_id}:main:1", f"{handle.task_id}:main:9", "nonsense", "::"):
        with pytest.raises(errors.CheckpointNotFoundError):
            asyncio.run(runner.fork(name))
    assert len(runner.store.read(verbs.list_tasks(None, 100))) == before


def test_the_check_of_what_a_finished_item_owed_holds_no_state_to_restore(runner, work):
    (work / "x").write_text("x")
    seen = []

    @runner.task(evidence=[Evidence.file("x")])
    async def job(ctx: Context, *, restores: bool) -> str:
        seen.append(await ctx.restore("default") if restores else "top")
        await ctx.checkpoint("state")
        return "done"

    for restores in (False, True):
        handle = runner.submit(job, restores=restores)
        handle.run()
        last = f"{handle.task_id}:main:2"
        if restores:
            with pytest.raises(errors.CheckpointNotFoundError, match="holds no state"):
                runner.resume_from_checkpoint(last)
        else:
            assert runner.resume_from_checkpoint(last) == "done"
    assert seen == ["top", "top", "default"]

"""Checkpoints: where a handler goes on, what is pruned, and what it costs."""

from __future__ import annotations

import asyncio
import time

import pytest

from holdfast import (
    CheckpointManager,
    CheckpointType,
    Context,
    Evidence,
    LeaseManager,
    RetryPolicy,
    TaskRunner,
    errors,
    tool,
)
from holdfast.store import verbs
from holdfast.sweep import Retention, prune

ONCE = RetryPolicy(max_attempts=1)


def test_a_loop_of_six_identical_calls_makes_six(runner):
    """Replay and checkpoint mixed: earlier entries must not answer behind a restored state."""
    calls: list[int] = []

    def ask() -> int:
        calls.append(1)
        return len(calls)

    @runner.task(retry=RetryPolicy(max_attempts=9, initial=0.001, maximum=0.001))
    async def loop(ctx: Context) -> list[int]:
        state: list[int] = await ctx.restore([])
        while len(state) < 6:
            state = [*state, await ctx.llm(ask)]
            if len(state) % 2 == 0:
                await ctx.checkpoint(state)
            elif ctx.attempt == len(state):
                raise RuntimeError("again")
        return state

    assert runner.run(loop) == [1, 2, 3, 4, 5, 6]
    assert len(calls) == 6


def test_restore_later_than_first_is_an_error(runner):
    @runner.task(retry=ONCE)
    async def late(ctx: Context) -> None:
        await ctx.step(lambda: None)
        await ctx.restore(0)

    with pytest.raises(errors.TaskFailedError, match=r"RestoreOrderError.*first"):
        runner.run(late)


def test_a_checkpoint_while_a_sibling_branch_runs_is_an_error(runner):
    @runner.task(retry=ONCE)
    async def both(ctx: Context) -> None:
        async def checkpoint() -> None:
            await ctx.checkpoint({})

        await ctx.gather(ctx.step(asyncio.sleep, 0.05), checkpoint())

    with pytest.raises(errors.TaskFailedError, match="BranchesRunningError"):
        runner.run(both)


def test_a_refused_checkpoint_leaves_the_one_before(runner, work):
    (work / "x").write_text("x")

    @runner.task(retry=RetryPolicy(max_attempts=2, initial=0.001))
    async def job(ctx: Context) -> int:
        state = await ctx.restore(0)
        if state == 0:
            await ctx.checkpoint(1, evidence=Evidence.file("x"))
            await ctx.checkpoint(2, evidence=Evidence.file("missing"))
        return state

    assert runner.run(job) == 1


def test_the_last_verified_checkpoint_is_found_and_others_are_explained(runner, work):
    async def main() -> None:
        async with LeaseManager(runner.store) as leases, leases.hold("mine") as journal:
            await look(CheckpointManager(journal, str(work)))

    async def look(manager: CheckpointManager) -> None:
        for name in "abc":
            (work / name).write_text(name)
            await manager.commit({"at": name}, [Evidence.file(name)])
        await manager.commit({}, type=CheckpointType.ERROR_BOUNDARY)
        (work / "b").unlink()
        point = await manager.get_last_verified_checkpoint()
        assert point.checkpoint is not None
        assert point.checkpoint.number == 1
        assert [passed.checkpoint.number for passed in point.passed_over] == [4, 3, 2]
        reasons = [passed.reason for passed in point.passed_over]
        assert "where an attempt failed" in reasons[0]
        assert "checkpoint 2, whose evidence doesn't hold: file:b" in reasons[1]
        assert "file:b" in reasons[2]
        (work / "b").write_text("b")
        point = await manager.get_last_verified_checkpoint()
        assert point.checkpoint is not None
        assert point.checkpoint.number == 3

    asyncio.run(main())


def test_nothing_verified_gives_the_default(runner, work):
    (work / "x").write_text("x")

    @runner.task(retry=RetryPolicy(max_attempts=2, initial=0.001))
    async def job(ctx: Context) -> str:
        state = await ctx.restore("default")
        if ctx.attempt == 1:
            await ctx.checkpoint("taken", evidence=Evidence.file("x"))
            (work / "x").unlink()
            raise RuntimeError("again")
        return state

    assert runner.run(job) == "default"


def counting(runner: TaskRunner, calls: list[int], *, restores: bool = True):
    @tool(effect="once")
    async def send(n: int) -> int:
        calls.append(n)
        return n

    @runner.task(name="count", retry=ONCE)
    async def count(ctx: Context, until: int, stop_at: int) -> int:
        n = await ctx.restore(0) if restores else 0
        while n < until:
            await ctx.step(lambda: None)
            if n % 50 == 0:
                await ctx.tool(send, n)
            n += 1
            await ctx.checkpoint(n)
            if n == stop_at and ctx.attempt == 1:
                await ctx.signal("go")
        return n

    return count


def until_it_waits(runner: TaskRunner, handle) -> None:
    async def main() -> None:
        worker = runner.new_worker()
        await worker.start()
        async with asyncio.timeout(30):
            while handle.status != "waiting":
                await asyncio.sleep(0.01)
        await worker.stop()

    asyncio.run(main())


def test_the_journal_before_the_oldest_kept_checkpoint_is_pruned(new_runner):
    calls: list[int] = []
    runner = new_runner()
    handle = runner.submit(counting(runner, calls), until=120, stop_at=110)
    until_it_waits(runner, handle)

    def entries() -> list:
        return runner.store.read(verbs.read_journal(handle.task_id, "main"))

    before = len(entries())
    pruned = asyncio.run(prune(runner.store, Retention(checkpoints=3)))
    left = entries()
    assert pruned.entries == before - len(left) > 200
    # `once` calls stay until the task ends.
    assert sum(entry.effect == "once" for entry in left) == 6
    assert len(runner.store.read(verbs.list_checkpoints(handle.task_id))) == 3

    skipping = new_runner()
    counting(skipping, calls, restores=False)
    skipping.signal(handle.task_id, "go")
    with pytest.raises(errors.TaskFailedError, match="RestoreOrderError"):
        skipping.run_with_recovery(handle.task_id)
    skipping.retry(handle.task_id)
    restoring = new_runner()
    counting(restoring, calls)
    assert restoring.run_with_recovery(handle.task_id) == 120
    assert calls == [0, 50, 100]

    from holdfast.operations import verify_chains

    assert verify_chains(restoring.store, handle.task_id).broken == ()


def test_the_only_checkpoint_to_resume_from_is_never_pruned(runner, work):
    (work / "x").write_text("x")

    @runner.task
    async def job(ctx: Context) -> int:
        state = await ctx.restore(0)
        if state == 0:
            await ctx.checkpoint(1, evidence=Evidence.file("x"))
            for _ in range(60):
                await ctx.checkpoint(2, type="error_boundary")
                await ctx.step(lambda: None)
            await ctx.signal("go")
        return state

    handle = runner.submit(job)
    until_it_waits(runner, handle)
    asyncio.run(prune(runner.store, Retention(checkpoints=1)))
    kept = runner.store.read(verbs.list_checkpoints(handle.task_id))
    assert 1 in {checkpoint.number for checkpoint in kept}
    runner.signal(handle.task_id, "go")
    assert handle.run() == 1


def test_resuming_costs_what_is_left_whatever_the_history(runner):
    """Loosely measured: 40 times the history, hardly more time."""

    @runner.task
    async def job(ctx: Context, steps: int) -> int:
        n = await ctx.restore(0)
        while n < steps:
            await ctx.options(effect="read").step(int, n)
            n += 1
            if n % 100 == 0:
                await ctx.checkpoint(n)
        if ctx.attempt and not resumed:
            await ctx.signal("go")
        return n

    resumed: list[int] = []
    times = {}
    for steps in (100, 4000):
        resumed.clear()
        handle = runner.submit(job, steps)
        until_it_waits(runner, handle)
        resumed.append(1)
        runner.signal(handle.task_id, "go")
        started = time.perf_counter()
        assert handle.run() == steps
        times[steps] = time.perf_counter() - started
    assert times[4000] < 2 * times[100] + 0.1

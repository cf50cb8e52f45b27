"""Canceling: everything below a task, `finally` blocks, and what is refused afterwards."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import Context, TaskRunner, TaskStatus, errors, operations
from holdfast.store import verbs


def running(runner: TaskRunner, handle, until, then) -> None:
    """Execute a task with a worker, and do something once a condition holds."""

    async def main() -> None:
        worker = runner.new_worker()
        await worker.start()
        try:
            async with asyncio.timeout(5):
                while not until():
                    await asyncio.sleep(0.005)
                await then()
                while handle.status not in {"canceled", "succeeded", "failed"}:
                    await asyncio.sleep(0.005)
        finally:
            await worker.stop()

    asyncio.run(main())


def test_finally_blocks_run_and_calls_inside_them_are_refused(runner):
    seen, made = [], []

    @runner.task
    async def job(ctx: Context) -> None:
        try:
            seen.append("started")
            await asyncio.sleep(60)
        finally:
            seen.append("finally")
            try:
                await ctx.step(lambda: made.append(1))
            except asyncio.CancelledError:
                seen.append("refused")
                raise

    handle = runner.submit(job)
    running(runner, handle, lambda: seen, lambda: operations.cancel(runner.store, handle.task_id))
    assert (seen, made) == (["started", "finally", "refused"], [])
    assert handle.status is TaskStatus.CANCELED
    with pytest.raises(errors.TaskCanceledError):
        handle.run()


def test_a_handler_that_swallows_its_end_is_canceled_all_the_same(runner):
    seen = []

    @runner.task
    async def job(ctx: Context) -> str:
        seen.append("started")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "anyway"
        return "done"

    handle = runner.submit(job)
    running(runner, handle, lambda: seen, lambda: operations.cancel(runner.store, handle.task_id))
    assert handle.status is TaskStatus.CANCELED


def test_children_are_canceled_with_their_parent(runner):
    seen = []

    @runner.task
    async def child(ctx: Context) -> None:
        try:
            seen.append("child")
            await asyncio.sleep(60)
        finally:
            seen.append("ended")

    @runner.task
    async def parent(ctx: Context) -> None:
        await ctx.child(child)

    handle = runner.submit(parent)
    running(runner, handle, lambda: seen, lambda: operations.cancel(runner.store, handle.task_id))

    async def later() -> None:
        worker = runner.new_worker()
        await worker.start()
        await asyncio.sleep(0.2)
        await worker.stop()

    asyncio.run(later())
    (below,) = runner.store.read(verbs.list_children(handle.task_id))
    assert (below.status, seen) == ("canceled", ["child", "ended"])


def test_a_sleeping_task_is_canceled_at_once(runner):
    @runner.task
    async def sleeps(ctx: Context) -> None:
        await ctx.sleep("long", 3600)

    handle = runner.submit(sleeps)
    running(
        runner,
        handle,
        lambda: handle.status is TaskStatus.WAITING,
        lambda: operations.cancel(runner.store, handle.task_id),
    )
    assert handle.status is TaskStatus.CANCELED


def test_what_was_not_started_never_is(runner):
    ran = []

    @runner.task
    async def job(ctx: Context) -> None:
        ran.append(1)

    handle = runner.submit(job)
    assert runner.cancel(handle.task_id) == [handle.task_id]
    assert runner.cancel(handle.task_id) == []
    with pytest.raises(errors.TaskCanceledError):
        handle.run()
    assert ran == []

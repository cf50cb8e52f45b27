"""Which task `run` and `submit` mean, and what they give back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.runs import interrupt

from holdfast import Context, RetryPolicy, SyncContext, TaskRunner, TaskStatus, errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_task_that_succeeded_returns_its_result_without_running(runner):
    ran = []

    @runner.task
    async def double(ctx: Context, n: int) -> int:
        ran.append(n)
        return 2 * n

    assert [runner.run(double, n=2), runner.run(double, 2), runner.run(double, 3)] == [4, 4, 6]
    assert ran == [2, 3]


def test_a_task_is_named_by_all_its_arguments_defaults_included(runner):
    ran = []

    @runner.task
    async def say(ctx: Context, text: str, times: int = 1) -> str:
        ran.append(text)
        return text * times

    assert runner.run(say, "a") == runner.run(say, text="a", times=1) == "a"
    assert runner.run(say, "a", 2) == "aa"
    assert len(ran) == 2


def test_a_key_names_the_task_instead_of_its_arguments(runner):
    @runner.task
    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    keyed = runner.options(key="k")
    assert [keyed.run(double, 1), keyed.run(double, 5), runner.run(double, 5)] == [2, 2, 10]


def test_submit_makes_a_new_task_each_time_unless_it_has_a_key(runner):
    @runner.task
    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    assert runner.submit(double, 1).task_id != runner.submit(double, 1).task_id
    keyed = runner.options(key="k")
    assert keyed.submit(double, 1).task_id == keyed.submit(double, 1).task_id


def test_an_unfinished_task_is_continued_by_the_next_program(new_runner):
    calls, recorded = [], []

    def step(name: str) -> str:
        calls.append(name)
        return name

    def program(runner: TaskRunner, *, breaks: bool):
        @runner.task(name="job", retry=RetryPolicy(max_attempts=2, initial=0.3))
        async def job(ctx: Context) -> str:
            first = await ctx.step(step, "first")
            if breaks:
                recorded.append(first)
                await asyncio.sleep(60)
            return first + await ctx.step(step, "second")

        return job

    async def interrupted(runner: TaskRunner) -> None:
        await interrupt(runner.arun(program(runner, breaks=True)), lambda: recorded)

    asyncio.run(interrupted(new_runner()))
    second = new_runner()
    assert second.run(program(second, breaks=False)) == "firstsecond"
    assert calls == ["first", "second"]


def test_a_failed_task_raises_again_and_names_retry(runner):
    ran = []

    @runner.task(retry=RetryPolicy(max_attempts=1))
    async def fail(ctx: Context) -> None:
        ran.append(1)
        raise RuntimeError("no luck")

    for _ in range(2):
        with pytest.raises(errors.TaskFailedError, match=r"(?s)no luck.*holdfast retry") as caught:
            runner.run(fail)
    assert ran == [1]
    assert runner.store is not None
    assert caught.value.task_id


def test_run_inside_a_running_loop_names_arun(runner):
    @runner.task
    async def one(ctx: Context) -> int:
        return 1

    async def inside() -> int:
        with pytest.raises(errors.UsageError, match="arun"):
            runner.run(one)
        return await runner.arun(one)

    assert asyncio.run(inside()) == 1


def test_options_never_mix_with_the_functions_own_parameters(runner):
    @runner.task
    async def sort(ctx: Context, key: str, queue: str, priority: int) -> str:
        return f"{key} {queue} {priority}"

    assert runner.options(key="x", priority=3).run(sort, "a", queue="b", priority=1) == "a b 1"


def test_without_recovery_nothing_is_left_on_disk(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = TaskRunner("sqlite:///holdfast.db", enable_recovery=False)

    @runner.task
    async def one(ctx: Context) -> int:
        return await ctx.step(lambda: 1)

    assert runner.run(one) == 1
    runner.close()
    assert list(tmp_path.iterdir()) == []


def test_a_sync_handler_runs_in_a_thread_and_has_the_same_context(runner):
    @runner.task
    def add(ctx: SyncContext, n: int) -> int:
        return ctx.step(lambda: n) + sum(ctx.map(lambda i: ctx.step(abs, i), [-1, -2]))

    assert runner.run(add, n=4) == 7


def test_results_come_back_with_their_types(runner):
    from dataclasses import dataclass
    from datetime import UTC, datetime
    from decimal import Decimal

    from holdfast import register_type

    @register_type
    @dataclass
    class Report:
        when: datetime
        price: Decimal
        data: bytes

    given = Report(datetime(2024, 1, 1, tzinfo=UTC), Decimal("1.10"), b"\0")

    @runner.task
    async def report(ctx: Context) -> Report:
        return given

    assert runner.run(report) == runner.run(report) == given


def test_the_same_worker_id_can_be_used_again(new_runner):
    for n in range(2):
        runner = new_runner(worker_id="mine")

        @runner.task(name="one")
        async def one(ctx: Context, n: int) -> int:
            return n

        assert [runner.run(one, n), runner.run(one, n + 10)] == [n, n + 10]


def test_two_tasks_run_side_by_side_in_one_program(runner):
    @runner.task
    async def nap(ctx: Context, n: int) -> int:
        await ctx.sleep("nap", 0.05)
        return n

    async def both() -> list[int]:
        return await asyncio.gather(runner.arun(nap, 1), runner.arun(nap, 2))

    assert asyncio.run(both()) == [1, 2]


def test_a_handle_waits_for_workers_elsewhere(runner):
    @runner.task
    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    async def serve() -> int:
        handle = await runner.asubmit(double, 4)
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.05)
        worker = runner.new_worker()
        await worker.start()
        try:
            return await handle.result(timeout=5)
        finally:
            await worker.stop()

    assert asyncio.run(serve()) == 8


def test_run_with_recovery_continues_by_id(runner):
    @runner.task
    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    handle = runner.submit(double, 4)
    assert runner.run_with_recovery(handle.task_id) == 8
    assert handle.status is TaskStatus.SUCCEEDED
    with pytest.raises(errors.TaskNotFoundError):
        runner.run_with_recovery("nowhere")


def test_one_attempt_at_one_item(runner: TaskRunner, quick):
    tried = []

    @runner.task(retry=quick)
    async def second_time(ctx: Context) -> str:
        tried.append(1)
        if len(tried) == 1:
            raise RuntimeError("first")
        return "done"

    handle = runner.submit(second_time)
    first = asyncio.run(runner.execute_work_item_with_checkpoint(handle.task_id, "main"))
    assert (first.status, first.failures) == ("waiting", 1)
    assert runner.run_with_recovery(handle.task_id) == "done"
    with pytest.raises(errors.LeaseHeldError, match="succeeded"):
        asyncio.run(runner.execute_work_item_with_checkpoint(handle.task_id, "main"))


def test_a_signal_reaches_a_waiting_task(runner: TaskRunner):
    @runner.task
    async def wait(ctx: Context) -> str:
        return await ctx.signal("go")

    handle = runner.submit(wait)
    runner.signal(handle.task_id, "go", "now")
    assert handle.run() == "now"


def test_stopping_a_worker_blames_nobody_for_a_crash(runner: TaskRunner):
    started = []

    @runner.task
    async def slow(ctx: Context) -> None:
        started.append(1)
        await asyncio.sleep(60)

    async def start_and_stop() -> None:
        handle = await runner.asubmit(slow)
        for _ in range(3):
            worker = runner.new_worker()
            await worker.start()
            await asyncio.sleep(0.03)
            await worker.stop()
        from holdfast.store import verbs

        item = runner.store.read(verbs.get_item(handle.task_id, "main"))
        assert item is not None
        assert (item.status, item.crashes, item.attempts, item.alone) == ("ready", 0, 0, False)

    asyncio.run(start_and_stop())
    assert started


def test_type_checkers_see_through_the_decorators(new_runner: Callable[..., TaskRunner]):
    runner = new_runner()

    @runner.task(timeout=5)
    async def double(ctx: Context, n: int) -> int:
        return 2 * n

    number: int = runner.run(double, n=2)
    assert double.signature.parameters.keys() == {"n"}
    assert number == 4

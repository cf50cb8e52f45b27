"""Several workers, workers that die or lose the database, and what is in between."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter

import apsw
import pytest

from holdfast import (
    Context,
    Evidence,
    RetryPolicy,
    TaskRunner,
    Worker,
    errors,
    execution,
)
from holdfast.liveness import Heartbeat
from holdfast.loops import Loop
from holdfast.models import Claimed
from holdfast.store import verbs


def test_no_item_is_executed_twice_at_once(new_runner):
    running, ran, worst = Counter(), Counter(), []

    def program() -> TaskRunner:
        runner = new_runner()

        @runner.task(name="job")
        async def job(ctx: Context, n: int) -> int:
            running[n] += 1
            ran[n] += 1
            worst.append(running[n])
            await asyncio.sleep(0.01)
            running[n] -= 1
            return n

        return runner

    runners = [program() for _ in range(3)]
    handles = [runners[0].submit(runners[0].handlers.get("job"), n) for n in range(40)]

    async def main() -> None:
        workers = [runner.new_worker(concurrency=4) for runner in runners]
        for worker in workers:
            await worker.start()
        async with asyncio.timeout(20):
            for handle in handles:
                await handle.result()
        for worker in workers:
            await worker.stop()

    asyncio.run(main())
    assert set(ran.values()) == {1}
    assert max(worst) == 1


def test_priorities_and_queues_decide_what_is_claimed(runner):
    order: list[str] = []

    @runner.task
    async def job(ctx: Context, name: str) -> None:
        order.append(name)

    runner.options(priority=0).submit(job, "low")
    runner.options(priority=5).submit(job, "high")
    elsewhere = runner.options(queue="other").submit(job, "other")
    last = runner.options(priority=-5).submit(job, "last")

    async def main() -> None:
        worker = runner.new_worker(concurrency=1)
        await worker.start()
        await last.result(timeout=5)
        await worker.stop()
        assert order == ["high", "low", "last"]
        worker = runner.new_worker(queues=("other",))
        await worker.start()
        await elsewhere.result(timeout=5)
        await worker.stop()

    asyncio.run(main())
    assert order[-1] == "other"


def test_the_last_check_of_a_checker_that_died_is_adopted(new_runner, work):
    first = new_runner()

    @first.task(name="job")
    async def job(ctx: Context) -> str:
        (work / "x").write_text("x")
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return "done"

    handle = first.submit(job)
    item = asyncio.run(first.execute_work_item_with_checkpoint(handle.task_id, "main"))
    assert (item.status, handle.status) == ("succeeded", "running")

    second = new_runner()
    second.task(name="job")(job.function)
    assert second.run_with_recovery(handle.task_id) == "done"


def test_a_worker_outlives_an_outage_of_the_database(new_runner, tmp_path, caplog):
    runner = new_runner(lease=1.2)
    done, broken = [], []

    @runner.task(name="job")
    async def job(ctx: Context, n: int) -> int:
        for step in range(3):
            await ctx.step(lambda step=step: step)
            await asyncio.sleep(0.02)
        done.append(n)
        return n

    def lock(seconds: float) -> None:
        other = apsw.Connection(str(tmp_path / "holdfast.db"))  # Python's is another SQLite
        other.set_busy_timeout(5000)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        other.execute("ROLLBACK")
        other.close()

    async def main() -> None:
        handles = [await runner.asubmit(job, n) for n in range(6)]
        worker = runner.new_worker(concurrency=3)
        await worker.start()
        await asyncio.sleep(0.03)
        outage = threading.Thread(target=lock, args=(2.5,))
        outage.start()
        async with asyncio.timeout(20):
            results = [await handle.result() for handle in handles]
        assert sorted(results) == list(range(6))
        outage.join()
        await worker.stop()

    with caplog.at_level(logging.WARNING, logger="holdfast"):
        asyncio.run(main())
    assert not broken
    assert len(caplog.records) < 30, [record.getMessage() for record in caplog.records]
    items = [i for t in runner.store.read(verbs.list_tasks(None, 10))
             for i in runner.store.read(verbs.list_items(t.task_id))]  # fmt: skip
    assert {item.status for item in items} == {"succeeded"}


def test_what_is_leased_and_not_executed_is_handed_back(runner):
    """A claim whose answer was lost."""

    @runner.task
    async def job(ctx: Context) -> str:
        return "done"

    async def main() -> str:
        worker = runner.new_worker()
        await worker.start(claiming=False)
        handle = await runner.asubmit(job)
        claimed = await runner.store.commit(
            verbs.claim_by_name(worker.worker_id or "", handle.task_id, "main", runner.store.now())
        )
        assert isinstance(claimed, Claimed)
        for loop in worker._loops:  # noqa: SLF001  it claims only from here on
            loop.start()
        try:
            return await handle.result(timeout=5)
        finally:
            await worker.stop()

    assert asyncio.run(main()) == "done"


def test_a_worker_that_is_taken_for_dead_goes_on_under_another_id(runner):
    attempts: list[str] = []

    @runner.task
    async def job(ctx: Context) -> str:
        attempts.append("started")
        if len(attempts) == 1:
            try:
                await asyncio.sleep(60)
            finally:
                attempts.append("stopped")
        return "done"

    async def main() -> None:
        worker = Worker(runner.store, runner.handlers, lease=0.6, worker_id="mine")
        await worker.start()
        handle = await runner.asubmit(job)
        while not attempts:
            await asyncio.sleep(0.01)
        await runner.store.commit(verbs.expire_worker("mine", None, runner.store.now()))
        assert await handle.result(timeout=10) == "done"
        assert worker.worker_id != "mine"
        await worker.stop()

    asyncio.run(main())
    assert attempts == ["started", "stopped", "started"]


def test_expiry_is_rechecked_by_the_statement_that_takes_back(runner):
    async def main() -> None:
        heartbeat = Heartbeat(runner.store, lease=5.0)
        await asyncio.to_thread(heartbeat.start)
        (seen,) = runner.store.read(verbs.list_workers())
        await runner.store.commit(verbs.renew_leases(heartbeat.worker_id, runner.store.now()))
        now = runner.store.now()
        taken = await runner.store.commit(
            verbs.expire_worker(heartbeat.worker_id, seen.renewals, now)
        )
        assert taken == []
        assert [worker.status for worker in runner.store.read(verbs.list_workers())] == ["alive"]
        await asyncio.to_thread(heartbeat.stop)

    asyncio.run(main())


def test_a_loop_reports_a_failure_once_and_goes_on(caplog):
    class Failing(Loop):
        def __init__(self) -> None:
            super().__init__(0.0)
            self.ticks = 0

        async def tick(self) -> None:
            self.ticks += 1
            if self.ticks < 3:
                raise RuntimeError("broken")

    async def main() -> int:
        loop = Failing()
        loop.start()
        async with asyncio.timeout(10):
            while loop.ticks <= 3:
                await asyncio.sleep(0.01)
        await loop.stop()
        await loop.stop()
        return loop.ticks

    with caplog.at_level(logging.WARNING, logger="holdfast"):
        ticks = asyncio.run(main())
    assert ticks > 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_an_attempt_that_breaks_outside_the_handler_does_not_keep_its_lease(runner, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(execution, "prove", broken)

    @runner.task(retry=RetryPolicy(max_attempts=2, initial=0.001))
    async def job(ctx: Context) -> None: ...

    with pytest.raises(errors.TaskFailedError, match="OSError: the disk is gone"):
        runner.run(job)


def test_a_claim_that_a_stop_cut_off_is_handed_back_and_is_no_crash(runner):
    @runner.task
    async def job(ctx: Context) -> None: ...

    async def main() -> str:
        worker = runner.new_worker()
        await worker.start(claiming=False)
        handle = await runner.asubmit(job)
        await runner.store.commit(
            verbs.claim_by_name(worker.worker_id or "", handle.task_id, "main", runner.store.now())
        )
        await worker.stop()
        return handle.task_id

    item = runner.store.read(verbs.get_item(asyncio.run(main()), "main"))
    assert (item.status, item.crashes, item.attempts, item.alone) == ("ready", 0, 0, False)


def test_a_handler_told_to_stop_before_it_began_is_not_called(runner):
    called = []

    @runner.task
    async def job(ctx: Context) -> None:
        called.append(1)

    handle = runner.submit(job)

    async def main() -> None:
        worker = runner.new_worker()
        await worker.start(claiming=False)
        wanted = verbs.ClaimFilter(runner.handlers.names, ("default",))
        now = runner.store.now()
        (claimed,) = await runner.store.commit(
            verbs.claim_work_items(worker.worker_id or "", wanted, 1, now)
        )
        worker.execute(claimed)
        await worker.stop()

    asyncio.run(main())
    assert called == []
    item = runner.store.read(verbs.get_item(handle.task_id, "main"))
    assert (item.status, item.attempts) == ("ready", 0)


def test_a_worker_without_a_free_slot_still_makes_last_checks(new_runner, work):
    first = new_runner()

    @first.task(name="job")
    async def job(ctx: Context) -> str:
        (work / "x").write_text("x")
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return "done"

    handle = first.submit(job)
    asyncio.run(first.execute_work_item_with_checkpoint(handle.task_id, "main"))
    assert handle.status == "running"  # its last check is nobody's now

    second = new_runner()
    checked = asyncio.Event()

    @second.task(name="long")
    async def long(ctx: Context) -> None:
        await checked.wait()

    async def main() -> None:
        worker = second.new_worker(concurrency=1)
        await worker.start(claiming=False)
        claimed = await second.store.commit(
            verbs.claim_by_name(
                worker.worker_id or "",
                (await second.asubmit(long)).task_id,
                "main",
                second.store.now(),
            )
        )
        worker.execute(claimed)
        await worker.fill()
        async with asyncio.timeout(5):
            while second.store.read(verbs.get_task(handle.task_id)).status != "succeeded":
                await asyncio.sleep(0.01)
        checked.set()
        await worker.stop(grace=5)

    asyncio.run(main())


def test_a_worker_sleeps_until_a_limited_queue_has_room_again(runner, monkeypatch):
    began: list[float] = []

    @runner.task
    async def job(ctx: Context, n: int) -> None:
        began.append(time.monotonic())

    claims = Counter()
    claim = verbs.claim_work_items

    def counted(*given):
        claims["made"] += 1
        return claim(*given)

    monkeypatch.setattr(verbs, "claim_work_items", counted)
    runner.limit_queue("default", rate=2, per=0.5)
    handles = [runner.submit(job, n) for n in range(6)]

    async def main() -> None:
        worker = runner.new_worker()
        await worker.start()
        for handle in handles:
            await handle.result(timeout=20)
        await worker.stop()

    asyncio.run(main())
    assert began[4] - began[0] >= 0.9
    assert began[5] - began[0] < 5  # not at the next second's look only
    assert claims["made"] < 60


def test_a_worker_without_a_free_slot_does_not_spin_when_a_timer_is_due(runner, monkeypatch):
    @runner.task(retry=RetryPolicy(max_attempts=2, initial=0.05, maximum=0.05))
    async def failing(ctx: Context) -> str:
        if not looks:
            looks["failed"] += 1
            raise ValueError("once")
        return "done"

    @runner.task
    async def long(ctx: Context) -> None:
        await asyncio.sleep(0.6)

    looks = Counter()
    held = verbs.held_leases

    def counted(worker_id):
        looks["made"] += 1
        return held(worker_id)

    monkeypatch.setattr(verbs, "held_leases", counted)
    first = runner.submit(failing)
    second = runner.submit(long)

    async def main() -> None:
        worker = runner.new_worker(concurrency=1)
        await worker.start()
        await second.result(timeout=20)
        assert await first.result(timeout=20) == "done"
        await worker.stop()

    asyncio.run(main())
    assert looks["made"] < 60

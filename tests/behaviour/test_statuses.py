"""Many who wait for tasks ask the database together."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import Context, TaskRunner


@pytest.fixture
def runner(tmp_path):
    opened = TaskRunner(f"sqlite:///{tmp_path}/holdfast.db", workspace=str(tmp_path))
    yield opened
    opened.close()


def test_a_hundred_who_wait_make_far_fewer_looks_than_a_look_each_at_every_change(
    runner, monkeypatch
):
    looks = []

    @runner.task
    async def job(ctx: Context, n: int) -> int:
        await ctx.step(lambda: n)
        return n

    async def main():
        engine = runner.store.engine
        read = engine.read
        monkeypatch.setattr(
            engine, "read", lambda asked: (looks.append(asked.query), read(asked))[1]
        )
        worker = runner.new_worker(concurrency=100)
        await worker.start()
        handles = await asyncio.gather(*(runner.asubmit(job, n=n) for n in range(100)))
        results = await asyncio.gather(*(handle.result() for handle in handles))
        await worker.stop()
        return results

    assert asyncio.run(main()) == list(range(100))
    assert sum(query.startswith("task.") for query in looks) < 500

"""What is removed, when, and that nothing else is."""

from __future__ import annotations

import asyncio

from holdfast import Context, RecoverySweep, Retention, TaskRunner, errors
from holdfast.store import verbs
from holdfast.sweep import prune

NOW = Retention(tasks=-1.0)
BIG = "".join(f"{n:x}" for n in range(6000))


def remove(runner: TaskRunner, retention: Retention = NOW):
    return asyncio.run(prune(runner.store, retention))


def exists(runner: TaskRunner, task_id: str) -> bool:
    try:
        runner.store.read(verbs.get_task(task_id))
    except errors.TaskNotFoundError:
        return False
    return True


def test_an_ended_task_goes_with_its_children_and_nothing_of_others(runner):
    @runner.task
    async def child(ctx: Context, n: int) -> str:
        return await ctx.step(lambda: BIG)

    @runner.task
    async def parent(ctx: Context, n: int) -> str:
        return await ctx.child(child, n=n)

    @runner.task
    async def waiting(ctx: Context) -> str:
        kept = await ctx.step(lambda: BIG)  # the same content as the others' blobs
        await ctx.signal("go")
        return kept + await ctx.step(lambda: "!")

    unfinished = runner.submit(waiting)

    async def until_it_waits() -> None:
        worker = runner.new_worker()
        await worker.start()
        while unfinished.status != "waiting":
            await asyncio.sleep(0.01)
        await worker.stop()

    asyncio.run(until_it_waits())
    ended = runner.submit(parent, 1)
    assert ended.run() == BIG
    (below,) = runner.store.read(verbs.list_children(ended.task_id))

    assert remove(runner, Retention(tasks=None)).tasks == 0
    assert remove(runner, Retention(tasks=3600)).tasks == 0
    assert remove(runner).tasks == 1
    assert not exists(runner, ended.task_id)
    assert not exists(runner, below.task_id)
    assert exists(runner, unfinished.task_id)

    runner.signal(unfinished.task_id, "go")
    assert unfinished.run() == BIG + "!"
    assert remove(runner).tasks == 1
    assert runner.store.read(verbs.count_rows()).get("journal", 0) == 0


def test_a_task_that_was_taken_up_again_stays(runner, work):
    from holdfast import Evidence

    @runner.task
    async def job(ctx: Context) -> int:
        (work / "x").write_text("x")
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return 1

    handle = runner.submit(job)
    handle.run()
    listed = runner.store.read(verbs.prunable_tasks(runner.store.now() + 1, 10))
    assert listed == [handle.task_id]
    from holdfast.reopening import reopen

    assert asyncio.run(reopen(runner.store, handle.task_id, ["main"], "for the test"))
    assert not runner.store.commit(verbs.prune_task(handle.task_id)).wait()
    assert handle.run() == 1


def test_several_sweeps_at_once_are_harmless(runner):
    @runner.task
    async def job(ctx: Context, n: int) -> int:
        return n

    for n in range(5):
        runner.run(job, n)

    async def main() -> list:
        sweeps = [RecoverySweep(runner.store, Retention(tasks=-1.0)) for _ in range(4)]
        await asyncio.gather(*(sweep.scan_and_recover() for sweep in sweeps))
        return await asyncio.gather(*(prune(runner.store, NOW) for _ in range(4)))

    assert sum(pruned.tasks for pruned in asyncio.run(main())) == 5

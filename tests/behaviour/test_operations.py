"""What people and programs do to tasks that exist."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import Context, Evidence, RetryPolicy, TaskRunner, errors, operations, tool
from holdfast.store import verbs

ONCE = RetryPolicy(max_attempts=1)


@tool(effect="once")
async def send() -> str:
    raise ConnectionError("cut off")


def blocked(runner: TaskRunner, task, *args: object) -> errors.TaskBlockedError:
    with pytest.raises(errors.TaskBlockedError) as caught:
        runner.run(task, *args)
    return caught.value


def entry_of(error: errors.TaskBlockedError) -> str:
    (need,) = error.needs
    return need.split()[2].rstrip(":")


@pytest.mark.parametrize(
    ("how", "value", "result"),
    [("done", "sent", "sent"), ("fail", "it bounced", "CallFailedError: it bounced")],
)
def test_a_call_in_doubt_is_settled_by_a_person(runner, how, value, result):
    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> str:
        try:
            return await ctx.tool(send)
        except errors.CallFailedError as error:
            return f"{type(error).__name__}: {error}"

    error = blocked(runner, job)
    runner.resolve(entry_of(error), how, value)
    assert runner.run(job) == result
    with pytest.raises(errors.UsageError, match="not in doubt"):
        runner.resolve(entry_of(error), how, value)


def test_a_parent_whose_child_is_blocked_says_what_the_child_needs(runner):
    @runner.task(retry=ONCE)
    async def child(ctx: Context) -> str:
        return await ctx.tool(send)

    @runner.task(retry=ONCE)
    async def parent(ctx: Context) -> str:
        return "child said " + await ctx.child(child)

    error = blocked(runner, parent)
    runner.resolve(entry_of(error), "done", "yes")
    assert runner.run(parent) == "child said yes"


@pytest.mark.parametrize("named", ["", "x", "x:y", "x:y:z", "x:y:1"])
def test_an_entry_that_is_not_there_is_refused(runner, named):
    with pytest.raises((errors.UsageError, errors.TaskNotFoundError)):
        runner.resolve(named, "done")


def test_a_task_is_found_by_part_of_its_id(runner):
    @runner.task
    async def job(ctx: Context) -> None: ...

    handle, other = runner.submit(job), runner.submit(job)
    for named in (handle.task_id, handle.task_id[-8:]):
        assert operations.find_task(runner.store, named).task_id == handle.task_id
    for named in ("", "nothing", other.task_id[:2], "%", "_"):
        with pytest.raises(errors.TaskNotFoundError):
            operations.find_task(runner.store, named)


def test_a_signal_to_nobody_and_one_that_is_no_data_are_refused(runner):
    @runner.task
    async def job(ctx: Context) -> None: ...

    with pytest.raises(errors.TaskNotFoundError):
        runner.signal("nowhere", "go")
    with pytest.raises(errors.EncodingError):
        runner.signal(runner.submit(job).task_id, "go", object())


def test_a_journal_altered_outside_is_noticed_and_not_resumed_from(new_runner, tmp_path):
    import sqlite3

    runner = new_runner()

    @runner.task(name="job", retry=ONCE)
    async def job(ctx: Context) -> str:
        first = await ctx.step(lambda: "first")
        return first + await ctx.signal("go")

    handle = runner.submit(job)

    async def until_it_waits() -> None:
        worker = runner.new_worker()
        await worker.start()
        while handle.status != "waiting":
            await asyncio.sleep(0.01)
        await worker.stop()

    asyncio.run(until_it_waits())
    assert operations.verify_chains(runner.store, handle.task_id).broken == ()
    runner.close()
    with sqlite3.connect(tmp_path / "holdfast.db") as db:
        db.execute("UPDATE journal SET name = 'other' WHERE seq = 1")
    db.close()
    again = new_runner()
    again.task(name="job")(job.function)
    report = operations.verify_chains(again.store, handle.task_id)
    assert "altered outside Holdfast" in report.broken[0]
    again.signal(handle.task_id, "go", "!")
    with pytest.raises(errors.TaskBlockedError, match="altered outside"):
        again.run_with_recovery(handle.task_id)


def test_a_full_disk_ends_attempts_and_work_goes_on_by_itself_afterwards(runner, caplog):
    made = []

    @runner.task(retry=ONCE)
    async def job(ctx: Context, n: int) -> int:
        size = await ctx.step(lambda: made.append(n) or n)
        await ctx.step(lambda: "".join(f"{i * i * n:x}" for i in range(20_000)))
        return size

    assert runner.run(job, 1) == 1
    writer = runner.store.engine._writer  # noqa: SLF001  stands for a disk that fills up
    full = writer.pragma("page_count")

    async def main() -> int:
        handle = await runner.asubmit(job, 2)
        worker = runner.new_worker()
        await worker.start()
        await asyncio.sleep(0.05)
        writer.pragma("max_page_count", full)
        await asyncio.sleep(0.4)
        writer.pragma("max_page_count", 1_000_000)
        try:
            return await handle.result(timeout=15)
        finally:
            await worker.stop()

    assert asyncio.run(main()) == 2
    assert len(caplog.records) < 20


def test_evidence_that_fails_after_a_person_said_done_is_not_asked_for_ever(runner, work):
    @tool(effect="once")
    async def publish() -> str:
        (work / "x").write_text("published")
        return "published"

    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> str:
        done = await ctx.tool(publish)
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return done

    handle = runner.submit(job)
    handle.run()
    (work / "x").unlink()
    with pytest.raises(errors.TaskBlockedError) as caught:
        runner.resume(handle.task_id)
    runner.resolve(entry_of(caught.value), "done", "published")
    with pytest.raises(errors.TaskBlockedError, match="quarantined"):
        handle.run()
    item = runner.store.read(verbs.get_item(handle.task_id, "main"))
    assert item.status == "quarantined"


def test_each_line_of_what_is_needed_tells_its_own_entry(runner):
    @runner.task
    async def job(ctx: Context) -> None:
        await ctx.gather(
            ctx.options(name="first").tool(send), ctx.options(name="second").tool(send)
        )

    error = blocked(runner, job)
    for need, entry, name in zip(error.needs, error.entries, ["first", "second"], strict=True):
        assert need.startswith(f"holdfast resolve {entry}: {name} ")
        assert need.count("holdfast resolve") == need.count("cut off") == 1
    for entry in error.entries:
        runner.resolve(entry, "done", None)
    runner.run(job)


def test_the_error_of_a_failed_task_names_its_item_and_what_that_raised(runner):
    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> None:
        raise LookupError("no such thing: at all")

    @runner.task(retry=ONCE)
    async def parent(ctx: Context) -> tuple[str, str]:
        try:
            await ctx.child(job)
        except errors.TaskFailedError as error:
            return error.item_id, error.error_type

    with pytest.raises(errors.TaskFailedError) as caught:
        runner.run(job)
    assert (caught.value.item_id, caught.value.error_type) == ("main", "LookupError")
    assert tuple(runner.run(parent)) == ("main", "LookupError")
    runner.planner(job)(lambda task: "no plan")
    with pytest.raises(errors.TaskFailedError) as caught:
        runner.options(key="planned").run(job)
    assert (caught.value.item_id, caught.value.error_type) == ("plan", "PlanError")

"""What is refused: each with an error of its own type, and nothing else harmed."""

from __future__ import annotations

import sqlite3
import sys

import pytest

from holdfast import Context, Evidence, RetryPolicy, TaskRunner, errors
from holdfast.store import verbs

ONCE = RetryPolicy(max_attempts=1)


def count_tasks(runner: TaskRunner) -> int:
    return len(runner.store.read(verbs.list_tasks(None, 100)))


def reason(runner: TaskRunner, task, *args: object) -> str:
    """Return why a task failed, after checking that it can be looked at."""
    with pytest.raises(errors.TaskFailedError) as caught:
        runner.run(task, *args)
    (item,) = runner.store.read(verbs.list_items(caught.value.task_id))
    assert (item.status, item.lease_owner) == ("failed", None)
    return str(item.error)


async def anything(ctx: Context, value: object = None) -> object:
    return value


def test_an_unknown_handler_is_refused_at_the_door(runner):
    for call in (runner.run, runner.submit):
        with pytest.raises(errors.UnknownHandlerError, match="anything"):
            call(anything)
    assert count_tasks(runner) == 0


def test_wrong_arguments_are_refused_at_the_door(runner):
    known = runner.task(anything)
    for args, kwargs in (((1, 2), {}), ((), {"val": 1})):
        with pytest.raises(errors.ArgumentsError, match="anything"):
            runner.submit(known, *args, **kwargs)
    assert count_tasks(runner) == 0


def test_arguments_that_are_no_data_are_refused_at_the_door(runner):
    known = runner.task(anything)
    for value in (object(), [{"deep": lambda: 1}], open):
        with pytest.raises(errors.EncodingError, match="arguments of anything"):
            runner.submit(known, value)
        with pytest.raises(errors.EncodingError):
            runner.run(known, value)
    assert count_tasks(runner) == 0


def test_an_oversized_argument_is_refused_at_the_door(runner, monkeypatch):
    from holdfast.store import payload

    monkeypatch.setattr(payload, "MAX_PAYLOAD", 1000)
    known = runner.task(anything)
    with pytest.raises(errors.PayloadTooLargeError):
        runner.submit(known, "x" * 2000)
    assert count_tasks(runner) == 0


def test_a_result_that_is_no_data_fails_the_task(runner):
    @runner.task
    async def bad(ctx: Context) -> object:
        return await ctx.step(lambda: 1) and object()

    assert "EncodingError" in reason(runner, bad)


def test_a_handler_without_a_context_or_with_a_taken_name_is_refused(runner):
    with pytest.raises(errors.UsageError, match="takes no context"):
        runner.task(lambda: None)
    runner.task(anything)
    with pytest.raises(errors.UsageError, match="Two handlers"):
        runner.task(name="anything")(lambda ctx: None)


def test_parameters_that_were_changed_since_the_task_was_submitted(new_runner):
    first = new_runner()
    first.submit(first.task(name="job")(anything), "x")
    (task,) = first.store.read(verbs.list_tasks(None, 10))
    second = new_runner()

    @second.task(name="job")
    async def job(ctx: Context, renamed: str) -> None: ...

    with pytest.raises(errors.TaskFailedError, match=r"job.*stored arguments.*value"):
        second.run_with_recovery(task.task_id)


def test_a_parameter_with_a_default_may_be_added(new_runner):
    first = new_runner()
    handle = first.submit(first.task(name="job")(anything), "x")
    second = new_runner()

    @second.task(name="job")
    async def job(ctx: Context, value: str, more: str = "y") -> str:
        return value + more

    assert second.run_with_recovery(handle.task_id) == "xy"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Evidence.file("../out"),
        lambda: Evidence.file("/etc/passwd"),
        lambda: Evidence.file("link"),
        lambda: Evidence.file("folder/x"),
        lambda: Evidence.file("pipe"),
    ],
)
def test_evidence_outside_the_workspace_fails_at_once(runner, work, tmp_path, make):
    import os

    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("secret")
    (work / "link").symlink_to(tmp_path / "outside" / "x")
    (work / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(work / "pipe")

    @runner.task
    async def job(ctx: Context) -> None:
        await ctx.checkpoint(evidence=make())

    assert "EvidencePathError" in reason(runner, job)


def test_a_table_name_with_a_quote_in_it_is_an_identifier_or_nothing(runner, work):
    with sqlite3.connect(work / "data.db") as db:
        db.execute("CREATE TABLE users (id INTEGER, name TEXT)")
        db.execute("INSERT INTO users VALUES (1, 'ann')")
    db.close()

    @runner.task(retry=ONCE)
    async def job(ctx: Context, table: str) -> None:
        claim = Evidence.db_row("sqlite:///data.db", table, {"id": 1}, {"name": "ann"})
        await ctx.checkpoint(evidence=claim)

    assert "EvidenceIdentifierError" in reason(runner, job, 'users" WHERE 1=1; DROP TABLE users --')
    runner.run(job, "users")


def test_a_command_that_hangs_or_floods_is_ended(runner):
    @runner.task(retry=ONCE)
    async def job(ctx: Context, code: str) -> None:
        claim = Evidence.command([sys.executable, "-c", code], timeout=0.5)
        await ctx.checkpoint(evidence=claim)

    assert "EvidenceRejectedError" in reason(runner, job, "import time; time.sleep(60)")
    runner.run(job, "print('x' * 10_000_000)")


def test_a_workspace_marker_that_is_not_ours_fails_the_task_clearly(runner, work):
    (work / ".holdfast").mkdir()
    (work / ".holdfast" / "workspace").write_text("something else")
    (work / "x").write_text("x")

    @runner.task
    async def job(ctx: Context) -> None:
        await ctx.checkpoint(evidence=Evidence.file("x"))

    assert "EvidencePathError" in reason(runner, job)


def test_a_checkpoint_of_an_unknown_type_is_refused(runner):
    @runner.task
    async def job(ctx: Context) -> None:
        await ctx.checkpoint(type="whatever")

    assert "UsageError" in reason(runner, job)


def test_a_damaged_page_is_said_to_be_one_and_harms_nothing_else(new_runner, tmp_path):
    runner = new_runner()

    @runner.task(retry=ONCE)
    async def job(ctx: Context, n: int) -> str:
        return await ctx.step(lambda: "x" * 50_000 + str(n))

    for n in range(4):
        runner.run(job, n)
    runner.close()
    path = tmp_path / "holdfast.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'journal'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)
    damaged = path.read_bytes()
    again = new_runner()
    known = again.task(name="job")(job.function)
    with pytest.raises(errors.StoreCorruptError, match="damaged"):
        again.run(known, 9)
    assert (
        path.read_bytes()[(page - 1) * size : page * size]
        == damaged[(page - 1) * size : page * size]
    )

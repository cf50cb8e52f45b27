"""A database with data from every earlier migration opens, and its work goes on."""

from __future__ import annotations

import asyncio
import io
from contextlib import redirect_stderr, redirect_stdout

import pytest

from holdfast import operations
from holdfast.cli import main
from holdfast.needs import find_needs
from holdfast.states import ItemStatus, TaskStatus
from holdfast.store import open_store, verbs
from holdfast.store.migrations import load_migrations

LEFT = {
    "done": ("succeeded", {"main": "succeeded"}),
    "failing": ("failed", {"main": "failed"}),
    "skipping": (
        "failed", {"plan": "succeeded", "bad": "failed", "after": "skipped", "main": "skipped"},
    ),
    "canceled": ("canceled", {"main": "canceled"}),
    "waiting": ("waiting", {"main": "waiting"}),
    "sleeping": ("waiting", {"main": "waiting"}),
    "doubtful": ("blocked", {"main": "in_doubt"}),
    "crashing": ("blocked", {"main": "quarantined"}),
    "counting": ("waiting", {"main": "waiting"}),
    "parent": ("waiting", {"main": "waiting"}),
    None: ("waiting", {"main": "waiting"}),  # the parent's child
    "planned": (
        "waiting",
        {"plan": "succeeded", "one": "succeeded", "hold": "waiting", "two": "pending",
         "main": "pending"},
    ),
    "hanging": ("running", {"main": "running"}),
    "later": ("running", {"main": "ready"}),
    "unplanned": ("planning", {"plan": "ready", "main": "pending"}),
}  # fmt: skip
"""How the tasks of the data stand, by their keys."""


@pytest.fixture
def runner(migrated_once, program, tmp_path):
    made = program.make(migrated_once, tmp_path)
    yield made
    made.close()


def test_the_data_holds_a_task_and_an_item_in_every_state():
    assert {task for task, _ in LEFT.values()} == set(TaskStatus)
    assert {item for _, items in LEFT.values() for item in items.values()} == set(ItemStatus)


def test_everything_is_there_after_the_migrations(runner, program):
    assert program.statuses(runner) == LEFT
    tasks = program.by_key(runner)
    entries = 0
    for task in tasks.values():
        report = operations.verify_chains(runner.store, task.task_id)
        entries += report.entries
        assert (report.broken, report.damaged) == ((), ())
        assert runner.store.read(verbs.list_events(task.task_id))
    assert entries > 20
    assert runner.outcome(tasks["done"]) == "sent to donenotes" + program.LARGE
    (checkpoint,) = runner.store.read(verbs.list_checkpoints(tasks["done"].task_id))[:1]
    assert checkpoint.status == "verified"
    assert runner.store.read(verbs.list_schedules()) == []
    assert [each.name for each in runner.store.read(verbs.list_queues())] == ["default"]


def test_all_of_it_goes_on_and_nothing_is_repeated(runner, program, tmp_path):
    tasks = program.by_key(runner)
    (tmp_path / "mended").touch()

    async def go_on() -> None:
        for key in ("failing", "skipping", "crashing"):
            await operations.retry(runner.store, tasks[key].task_id)
        for key in ("waiting", "planned", None):
            await operations.send_signal(runner.store, tasks[key].task_id, "go", key)
        await operations.send_signal(runner.store, tasks["counting"].task_id, "count on")
        (need,) = find_needs(runner.store, tasks["doubtful"].task_id)
        await operations.resolve(runner.store, need.entry, "done", "a person saw it")
        await program.work(
            runner,
            lambda: (
                {task for task, _ in program.statuses(runner).values()}
                == {"succeeded", "canceled", "waiting"}
            ),
        )

    async def hold() -> None:
        await program.work(
            runner, lambda: program.statuses(runner)["unplanned"][1].get("hold") == "waiting"
        )
        unplanned = program.by_key(runner)["unplanned"].task_id
        await operations.send_signal(runner.store, unplanned, "go")

    asyncio.run(hold())
    asyncio.run(go_on())
    standing = program.statuses(runner)
    assert {key for key, (task, _) in standing.items() if task == "waiting"} == {"sleeping"}
    assert {key for key, (task, _) in standing.items() if task == "canceled"} == {"canceled"}
    outcome = {key: runner.outcome(task) for key, task in program.by_key(runner).items()
               if task.status == "succeeded"}  # fmt: skip
    assert outcome["counting"] == 5
    assert outcome["doubtful"] == "a person saw it"
    assert outcome["hanging"] == "let go"
    assert (outcome["failing"], outcome["crashing"], outcome["later"]) == ("mended", "no crash", 49)
    assert outcome["planned"] == 4
    # What the old program had sent isn't sent again.
    assert sorted((tmp_path / "outbox").read_text().split("\n")) == ["", "count 3", "count 4"]
    assert not (tmp_path / "asked").exists()


LOOKING = (
    "tasks", "workers", "queues", "schedules", "stats", "doctor", "show TASK", "verify TASK",
    "queue default --running 3", "sweep",
)  # fmt: skip


def test_every_command_that_looks_works_on_it(migrated_once):
    with open_store(migrated_once) as store:
        task = next(t for t in store.read(verbs.list_tasks(None, 100)) if t.key == "counting")
    for line in LOOKING:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--db", migrated_once, *line.replace("TASK", task.task_id).split()])
        assert "Traceback" not in out.getvalue() + err.getvalue()
        assert code == (1 if line == "doctor" else 0), err.getvalue()  # two tasks need a person
        assert out.getvalue()


def test_both_dialects_have_the_same_migrations():
    names = [[(m.number, m.name) for m in load_migrations(d)] for d in ("sqlite", "postgres")]
    assert names[0] == names[1]

"""`workers`, `queues`, `queue`, `schedules` and `schedule`: a fleet, looked at and steered."""

import asyncio
import json
import time

import pytest

from holdfast import Context, TaskRunner, operations
from holdfast.store import open_store, verbs

OWN = "sqlite:///own.db"


def test_workers_are_listed_with_what_they_execute(started, cli, place, until):
    assert cli("submit", "app:runner", "slow").code == 0
    assert cli("workers").out == "No workers.\n"
    working = started("worker", "app:runner", "--json")
    told = json.loads(working.stdout.readline())
    until((place / "started").exists)
    (worker,) = cli("workers", "--json").document
    assert (worker["worker_id"], worker["pid"], worker["status"]) == (
        told["worker_id"], working.pid, "alive",
    )  # fmt: skip
    assert {"host", "version", "started_at", "seen_at", "lease"} < set(worker)
    (item,) = worker["items"]
    assert (item["handler"], item["item_id"], item["attempt"]) == ("slow", "main", 1)
    shown = cli("workers").out.splitlines()
    assert shown[0].split()[:3] == ["WORKER", "STATUS", "HOST"]
    assert f"slow {item['task_id']}:main" in shown[1]
    working.kill()
    working.wait()
    (worker,) = cli("workers", "--json").document
    assert worker["status"] == "dead"


def test_a_queue_is_limited_shown_and_let_free(cli):
    cli("submit", "app:runner", "part", "--arg", "n=1", "--queue", "mail")
    answer = cli("queue", "mail", "--running", "2", "--rate", "100/m", "--json").document
    assert answer == {
        "queue": "mail", "running": 0, "ready": 1, "limit_running": 2, "limit_rate": 100,
        "limit_per_seconds": 60.0, "oldest_waits_seconds": answer["oldest_waits_seconds"],
    }  # fmt: skip
    assert 0 <= answer["oldest_waits_seconds"] < 60
    assert cli("queue", "mail", "--running", "3").out == (
        "Queue mail: 0 running, 1 ready; limits: 3 running, 100 starts in 60 s.\n"
    )
    assert "limits: 5 starts in 1 s." in cli("queue", "mail", "--unlimited", "--rate", "5/s").out
    header, line = cli("queues").out.splitlines()
    assert header.split() == ["QUEUE", "RUNNING", "READY", "OLDEST", "WAITS", "LIMITS"]
    assert line.startswith("mail ")
    assert line.endswith("5 starts in 1 s")
    assert "limits: none." in cli("queue", "mail", "--unlimited").out
    assert cli("queues", "--json").document[0]["limit_per_seconds"] is None


@pytest.mark.parametrize("rate", ["10", "0/s", "x/s", "10/y", "10/0s", "-1/s", ""])
def test_a_rate_that_makes_no_sense_is_refused(cli, rate):
    cli("submit", "app:runner", "part", "--arg", "n=1")
    answer = cli("queue", "mail", "--rate", rate, "--json")
    assert (answer.code, answer.error["type"]) == (2, "UsageError")
    assert "10/s" in answer.error["message"]


def test_limits_that_make_no_sense_are_refused(cli):
    cli("submit", "app:runner", "part", "--arg", "n=1")
    assert cli("queue", "", "--running", "1").code == 2
    assert cli("queue", "mail", "--running", "-1").code == 2
    with open_store(OWN) as store:
        for wrong in (
            {"running": -1}, {"running": 2**63}, {"rate": 0}, {"rate": 2**63},
            {"rate": 1, "per": 0}, {"per": float("nan")},
        ):  # fmt: skip
            with pytest.raises(operations.errors.UsageError):
                asyncio.run(operations.limit_queue(store, "mail", **wrong))
        assert [each.name for each in store.read(verbs.list_queues())] == ["default"]


def record_schedule(cron="0 9 * * *"):
    """Do what a worker of a program does that declares one."""
    runner = TaskRunner(OWN)

    @runner.task(name="report")
    async def report(ctx: Context) -> None: ...

    runner.schedule(cron, timezone="Europe/Berlin", name="daily")(report)

    async def main():
        worker = runner.new_worker()
        await worker.start()
        async with asyncio.timeout(10):
            while not runner.store.read(verbs.list_schedules()):
                await asyncio.sleep(0.01)
        await worker.stop()

    asyncio.run(main())
    runner.close()


def test_a_schedule_is_shown_paused_resumed_run_and_removed(cli):
    record_schedule()
    (listed,) = cli("schedules", "--json").document
    assert (listed["schedule"], listed["name"], listed["paused"]) == ("daily", "report", False)
    assert listed["next_at"] > time.time()
    line = cli("schedules").out.splitlines()[1]
    assert line.split()[:3] == ["daily", "report", "0"]
    assert "0 9 * * * Europe/Berlin, due" in cli("schedule", "daily").out
    assert cli("schedule", "daily", "--pause", "--json").document["paused"] is True
    assert "paused" in cli("schedules").out
    assert cli("schedule", "daily", "--run-now").code == 2
    assert cli("schedule", "daily", "--resume", "--json").document["next_at"] == listed["next_at"]
    now = cli("schedule", "daily", "--run-now", "--json").document
    assert abs(now["next_at"] - time.time()) < 60
    assert cli("schedule", "daily", "--remove").out == "daily is removed.\n"
    assert cli("schedules").out == "No schedules.\n"
    assert cli("schedule", "daily").code == 2
    assert cli("schedule", "daily", "--pause", "--resume").code == 2

"""`worker`: executes until it is told to stop, and leaves nothing behind."""

import json
import signal
import time

import pytest


def item_of(cli, task_id):
    return cli("show", task_id, "--json").document["items"][0]


def test_it_executes_what_was_submitted(started, cli, until):
    working = started("worker", "app:runner", "--concurrency", "2", "--json")
    assert json.loads(working.stdout.readline())["event"] == "started"
    task_id = cli("submit", "app:runner", "planned").out.strip()
    until(lambda: cli("show", task_id, "--json").document["task"]["status"] == "succeeded")
    assert "is alive" in cli("doctor").out
    working.send_signal(signal.SIGTERM)
    out, told = working.communicate(timeout=20)
    assert working.returncode == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["stopping", "stopped"]
    assert told == ""
    assert "none at work" in cli("doctor").out


def test_at_sigterm_what_runs_may_end_within_the_grace(started, cli, place, until):
    task_id = cli("submit", "app:runner", "slow").out.strip()
    working = started("worker", "app:runner", "--grace", "15")
    until((place / "started").exists)
    working.send_signal(signal.SIGTERM)
    until(lambda: "draining" in cli("doctor").out)
    later = cli("submit", "app:runner", "part", "--arg", "n=1").out.strip()
    (place / "finish").touch()
    working.communicate(timeout=20)
    assert working.returncode == 0
    assert item_of(cli, task_id)["status"] == "succeeded"
    assert item_of(cli, later)["status"] == "ready"


def test_what_has_not_ended_is_handed_back(started, cli, place, until):
    task_id = cli("submit", "app:runner", "slow").out.strip()
    working = started("worker", "app:runner", "--grace", "0.1")
    until((place / "started").exists)
    working.send_signal(signal.SIGTERM)
    _, told = working.communicate(timeout=20)
    assert working.returncode == 0
    assert "Traceback" not in told
    item = item_of(cli, task_id)
    assert (item["status"], item["attempts"], item["crashes"]) == ("ready", 0, 0)


def test_ctrl_c_exits_with_130(started, until, place, cli):
    cli("submit", "app:runner", "slow")
    working = started("worker", "app:runner", "--grace", "0")
    until((place / "started").exists)
    working.send_signal(signal.SIGINT)
    working.communicate(timeout=20)
    assert working.returncode == 130


def test_a_second_signal_ends_it_at_once_and_loses_nothing(started, cli, place, until):
    task_id = cli("submit", "app:runner", "slow").out.strip()
    working = started("worker", "app:runner", "--grace", "60")
    until((place / "started").exists)
    working.send_signal(signal.SIGTERM)
    until(lambda: "draining" in cli("doctor").out)
    before = time.monotonic()
    working.send_signal(signal.SIGTERM)
    working.communicate(timeout=20)
    assert time.monotonic() - before < 5
    assert working.returncode == 128 + signal.SIGTERM
    assert cli("sweep", "--json").document["taken_back"][0]["task_id"] == task_id
    (place / "finish").touch()
    assert cli("resume", "app:runner", task_id).out == "ended by itself\n"


def test_it_serves_only_its_queues(started, cli, until):
    task_id = cli("submit", "app:runner", "part", "--arg", "n=1", "--queue", "b").out.strip()
    other = cli("submit", "app:runner", "part", "--arg", "n=1").out.strip()
    started("worker", "app:runner", "--queues", "a, b")
    until(lambda: item_of(cli, task_id)["status"] == "succeeded")
    assert item_of(cli, other)["status"] == "ready"


@pytest.mark.parametrize(
    "words",
    [["--grace", "-1"], ["--grace", "nan"], ["--lease", "0"], ["--lease", "inf"],
     ["--concurrency", "0"], ["--queues", " , "]],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(cli, words):
    assert cli("worker", "app:runner", *words).code == 2

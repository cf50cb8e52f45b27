"""`resolve`, `fork`, `signal`: what people decide."""

import signal

import pytest


@pytest.fixture
def doubtful(cli, real, place):
    """A task whose process was killed inside a `once` tool: its id and the entry in doubt."""
    (place / "kill").touch()
    killed = real("run", "app:runner", "report", "--arg", 'topic="a"')
    assert killed.code == -signal.SIGKILL
    blocked = cli("run", "app:runner", "report", "--arg", 'topic="a"', "--json")
    assert blocked.code == 6
    assert blocked.error["type"] == "TaskBlockedError"
    task_id = blocked.error["task_id"]
    (need,) = blocked.error["needs"]
    entry = need.split()[2].removesuffix(":")
    assert need.startswith(f"holdfast resolve {task_id}:main:")
    return task_id, entry


def outbox(place):
    return (place / "outbox").read_text().split()


def test_a_blocked_task_names_what_it_needs(cli, doubtful):
    _, entry = doubtful
    answer = cli("run", "app:runner", "report", "--arg", 'topic="a"')
    assert answer.code == 6
    first, need = answer.err.splitlines()[-2:]
    assert first.startswith("holdfast: Task ")
    assert need.startswith(f"  holdfast resolve {entry}: ")
    assert f"in doubt  holdfast resolve {entry}" in cli("show", doubtful[0]).out


def test_resolved_as_done_it_goes_on_with_the_given_result(cli, doubtful, place):
    task_id, entry = doubtful
    settled = cli("resolve", entry, "--done", '"really sent"', "--json").document
    assert settled["needs"] == []
    assert settled["status"] == "running"
    assert cli("resume", "app:runner", task_id).out.endswith("really sent a\n")
    assert outbox(place) == ["a@b.c"]


def test_resolved_as_retry_it_is_called_again(cli, doubtful, place):
    task_id, entry = doubtful
    shortened = entry.replace(task_id, task_id[-6:])
    assert "is settled (retry)" in cli("resolve", shortened, "--retry").out
    assert cli("resume", "app:runner", task_id).code == 0
    assert outbox(place) == ["a@b.c", "a@b.c"]


def test_resolved_as_failed_the_function_sees_the_failure(cli, doubtful):
    task_id, entry = doubtful
    assert cli("resolve", entry, "--fail", "the server was down").code == 0
    answer = cli("resume", "app:runner", task_id)
    assert answer.code in {0, 5, 6}
    assert "the server was down" in cli("show", task_id).out


def test_fail_needs_no_text(cli, doubtful):
    assert cli("resolve", doubtful[1], "--fail").code == 0


def test_only_what_is_in_doubt_can_be_resolved(cli, doubtful):
    task_id, entry = doubtful
    first = int(entry.rpartition(":")[2])
    for number in (1, first + 1, 99):
        answer = cli("resolve", f"{task_id}:main:{number}", "--retry")
        assert (answer.code, "not in doubt" in answer.err) == (2, True)
    assert cli("resolve", entry, "--retry").code == 0
    assert cli("resolve", entry, "--retry").code == 2


@pytest.mark.parametrize(
    "words",
    [[], ["--retry", "--new"], ["--done", "1", "--fail"], ["--done", "{"], ["--done"]],
)
def test_resolve_takes_exactly_one_answer(cli, doubtful, words):
    assert cli("resolve", doubtful[1], *words).code == 2
    assert cli("tasks", "--json").document[0]["status"] == "blocked"


@pytest.mark.parametrize("entry", ["x", "x:y", "x:y:z", "x:main:1", "::1", "\x00:main:1"])
@pytest.mark.usefixtures("doubtful")
def test_an_entry_that_is_none_is_refused(cli, entry):
    assert cli("resolve", entry, "--retry").code in {2, 3}


def test_a_signal_reaches_the_task_that_waits_for_it(cli):
    task_id = cli("submit", "app:runner", "waiting").out.strip()
    assert cli("signal", task_id, "go", "--payload", '{"n": 1}').code == 0
    assert cli("resume", "app:runner", task_id, "--json").document["result"] == {"n": 1}
    assert "has ended as succeeded" in cli("signal", task_id, "go").out
    assert cli("signal", task_id, "go", "--payload", "{").code == 2
    assert cli("signal", "missing", "go").code == 3


def test_a_fork_goes_on_from_a_checkpoint_with_another_state(cli):
    task = cli("run", "app:runner", "counting", "--arg", "until=5", "--json").document["task_id"]
    made = cli("fork", f"{task[-8:]}:main:2", "--state", '{"n": 4}', "--json").document
    assert made["forked_from"] == f"{task}:main:2"
    assert cli("resume", "app:runner", made["task_id"]).out == "5\n"
    shown = cli("show", made["task_id"], "--json").document
    assert shown["task"]["forked_from"] == f"{task}:main:2"
    assert cli("fork", f"{task}:main:99").code == 3
    assert cli("fork", f"{task}:main:2", "--state", "{").code == 2


def test_a_fork_repeats_a_once_call_only_when_told_to(cli, place):
    task = cli("run", "app:runner", "report", "--arg", 'topic="a"', "--json").document["task_id"]
    refused = cli("fork", f"{task}:main:1")
    assert refused.code == 2
    assert "--allow-repeat" in refused.err
    made = cli("fork", f"{task}:main:1", "--allow-repeat").out.strip()
    assert cli("resume", "app:runner", made).code == 0
    assert outbox(place) == ["a@b.c", "a@b.c"]

"""`run`, `submit`, `resume`: tasks of an application."""

import json
import signal

import pytest


def test_run_prints_the_result_to_stdout_and_progress_to_stderr(real):
    answer = real("run", "app:runner", "report", "--arg", 'topic="tides"')
    assert answer.code == 0
    assert answer.out == "a print of the application\nsent tides\n"
    assert "item succeeded: proven=yes executed=2 replayed=0" in answer.err


def test_run_again_returns_the_stored_result(cli, place):
    first = cli("run", "app:runner", "report", "--arg", 'topic="tides"', "--json")
    again = cli("run", "app:runner", "report", "--args", '{"topic": "tides"}', "--json")
    assert first.document == again.document
    assert (place / "outbox").read_text() == "a@b.c\n"


def test_run_with_json_prints_only_the_document_to_stdout(real):
    answer = real("run", "app:runner", "report", "--arg", 'topic="tides"', "--json")
    assert answer.document["result"] == "sent tides"
    assert answer.document["status"] == "succeeded"
    assert "a print of the application" in answer.err


def test_a_key_names_the_task(cli):
    one = cli("run", "app:runner", "counting", "--arg", "until=1", "--key", "k", "--json")
    two = cli("run", "app:runner", "counting", "--arg", "until=2", "--key", "k", "--json")
    assert one.document == two.document


def test_arguments_become_what_the_annotations_say(cli, monkeypatch):
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", "k" * 32)
    given = {"order": {"name": "x", "due": "2026-03-01"}, "model": {"size": 3}, "key": "hush-hush"}
    answer = cli("run", "app:runner", "typed", "--args", json.dumps(given), "--json")
    assert answer.document["result"] == [
        "Order", "2026-03-01", "Model", {"name": "x", "due": "2026-03-01"},
    ]  # fmt: skip
    shown = cli("show", answer.document["task_id"], "--journal", "--json")
    assert "hush-hush" not in shown.out


@pytest.mark.parametrize(
    "words",
    [
        ["--args", "{"],
        ["--args", "[1]"],
        ["--args", "[" * 100_000],
        ["--args", '{"topic": NaN}'],
        ["--args", '{"topic": ' + "9" * 5000 + "}"],
        ["--arg", "topic"],
        ["--arg", "topic=tides"],
        ["--arg", "=1"],
        ["--arg", 'topic="a"', "--arg", 'topic="b"'],
        ["--arg", "topic=1"],
        ["--arg", 'topic="a"', "--arg", "other=1"],
        [],
        ["--priority", "high"],
    ],
)
@pytest.mark.parametrize("command", ["run", "submit"])
def test_arguments_that_make_no_sense_are_refused_and_nothing_is_recorded(cli, command, words):
    answer = cli(command, "app:runner", "report", *words, "--json")
    assert answer.code == 2
    assert answer.error["exit_code"] == 2
    assert "\n" not in answer.error["message"]
    listed = cli("tasks", "--json")
    assert listed.code == 4 or listed.document == []


def test_text_without_quotes_is_explained(cli):
    answer = cli("run", "app:runner", "report", "--arg", "topic=tides")
    assert "'\"tides\"'" in answer.err


def test_a_failed_task_exits_with_5_on_one_line_without_credentials(cli):
    answer = cli("run", "app:runner", "failing")
    assert answer.code == 5
    assert answer.err.splitlines()[-1].startswith("holdfast: Task ")
    assert "no luck" in answer.err
    assert "hunter2" not in answer.err + cli("tasks").out + cli("tasks", "--json").out


def test_a_failed_task_can_be_retried_and_run_to_its_end(cli, place):
    cli("run", "app:runner", "failing")
    task_id = cli("tasks", "--json").document[0]["task_id"]
    (place / "mended").touch()
    assert "1 work item of task" in cli("retry", task_id).out
    assert cli("resume", "app:runner", task_id, "--json").document["result"] is None
    nothing = cli("retry", task_id, "--json")
    assert nothing.code == 2


def test_a_canceled_task_exits_with_7(cli):
    submitted = cli("submit", "app:runner", "waiting", "--key", "k").out.strip()
    canceled = cli("cancel", submitted, "--reason", "no need", "--json").document
    assert canceled == {"task_id": submitted, "status": "canceled", "canceled": [submitted]}
    assert "nothing was changed" in cli("cancel", submitted).out
    assert cli("run", "app:runner", "waiting", "--key", "k").code == 7
    assert cli("resume", "app:runner", submitted, "--json").error["type"] == "TaskCanceledError"


def test_submit_makes_a_new_task_each_time(cli):
    one = cli("submit", "app:runner", "planned", "--json").document
    two = cli("submit", "app:runner", "planned", "--json").document
    assert one["task_id"] != two["task_id"]
    assert one["name"] == "planned"
    assert cli("resume", "app:runner", one["task_id"]).out == "4\n"


def test_resume_runs_again_what_no_longer_holds(cli, place):
    task_id = cli("run", "app:runner", "report", "--arg", 'topic="a"', "--json").document["task_id"]
    (place / "notes.md").unlink()
    assert cli("verify", task_id).code == 1
    assert cli("resume", "app:runner", task_id[-8:]).code == 0
    assert cli("verify", task_id).code == 0
    assert (place / "outbox").read_text() == "a@b.c\n"
    assert "replayed=2" in cli("show", task_id).out


def test_ctrl_c_hands_the_work_back_and_exits_with_130(started, cli, place, until):
    running = started("run", "app:runner", "slow")
    until((place / "started").exists)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "handed back" in told
    assert "Traceback" not in told
    (item,) = cli("show", cli("tasks", "--json").document[0]["task_id"], "--json").document["items"]
    assert (item["status"], item["attempts"], item["crashes"]) == ("ready", 0, 0)
    (place / "finish").touch()
    assert cli("run", "app:runner", "slow").out == "ended by itself\n"


def test_the_application_names_its_database_and_db_overrides_it(cli, place):
    assert cli("run", "app:runner", "part", "--arg", "n=2", db=None).out == "4\n"
    assert (place / "own.db").exists()
    cli("run", "app:runner", "part", "--arg", "n=3", db="sqlite:///other.db")
    assert len(cli("tasks", "--json", db="sqlite:///other.db").document) == 1
    assert len(cli("tasks", "--json", db="sqlite:///own.db").document) == 1


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("app", "module:runner"),
        ("", "module:runner"),
        ("app:", "module:runner"),
        ("../app:runner", "module:runner"),
        ("app:run ner", "module:runner"),
        ("missing:runner", "There is no module 'missing'"),
        ("app.sub:runner", "There is no module 'app.sub'"),
        ("app:missing", "has no 'missing'"),
        ("app:runner.missing", "has no 'missing'"),
        ("app:nothing", "type int"),
        ("broken:runner", "raised ZeroDivisionError: division by zero (broken.py:1)"),
        ("broken_import:runner", "No module named 'surely_not_there'"),
        ("broken_exit:runner", "raised SystemExit"),
        ("broken_syntax:runner", "raised SyntaxError"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_one_clear_line(cli, place, app, says):
    (place / "broken.py").write_text("1 / 0")
    (place / "broken_import.py").write_text("import surely_not_there")
    (place / "broken_exit.py").write_text("raise SystemExit(0)")
    (place / "broken_syntax.py").write_text("def")
    answer = cli("run", app, "report")
    assert answer.code == 2
    assert says in answer.err
    assert len(answer.err.splitlines()) == 1


def test_an_unknown_task_function_is_named_with_those_there_are(cli):
    answer = cli("submit", "app:runner", "repport")
    assert answer.code == 2
    assert "report" in answer.err

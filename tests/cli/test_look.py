"""`tasks`, `show` and `stats`: looking changes nothing."""

import json
import os
import stat

import pytest

LOOKING = [
    ["tasks"], ["show", "x"], ["stats"], ["cancel", "x"], ["retry", "x"], ["fork", "x:main:1"],
    ["resolve", "x:main:1", "--retry"], ["signal", "x", "go"], ["verify", "x"], ["sweep"],
    ["prune"], ["workers"], ["queues"], ["queue", "x", "--running", "1"], ["schedules"],
    ["schedule", "x", "--pause"],
]  # fmt: skip


@pytest.mark.parametrize("words", LOOKING, ids=lambda words: words[0])
def test_looking_creates_no_database(cli, place, words):
    (place / "empty.db").touch()
    for name in ("missing.db", "empty.db"):
        answer = cli(*words, "--json", db=f"sqlite:///{name}")
        assert answer.code == 4
        assert answer.error["type"] == "StoreOpenError"
        assert "There is no database" in answer.error["message"]
    assert sorted(path.name for path in place.iterdir()) == ["app.py", "empty.db"]
    assert (place / "empty.db").read_bytes() == b""


def test_the_database_is_named_by_option_or_environment(cli, monkeypatch):
    cli("run", "app:runner", "part", "--arg", "n=2")
    monkeypatch.setenv("HOLDFAST_DB", "sqlite:///own.db")
    assert len(cli("tasks", "--json", db=None).document) == 1
    assert len(cli("tasks", "--json", "--db", "sqlite:///own.db", db="foo://x").document) == 1
    assert cli("tasks", db="sqlite:///missing.db").code == 4
    monkeypatch.delenv("HOLDFAST_DB")
    assert "holdfast.db" in cli("tasks", db=None).err


@pytest.mark.parametrize("url", ["foo", "foo://bar", "sqlite://", "sqlite:///:memory:", "://", " "])
def test_a_url_that_names_no_file_is_refused(cli, url):
    answer = cli("tasks", "--json", db=url)
    assert answer.code in {2, 4}
    assert answer.error["exit_code"] == answer.code


def test_tasks_lists_the_newest_first(cli):
    assert cli("submit", "app:runner", "waiting").code == 0
    done = cli("run", "app:runner", "part", "--arg", "n=2", "--json").document["task_id"]
    listed = cli("tasks", "--json").document
    assert [task["status"] for task in listed] == ["succeeded", "running"]
    (succeeded,) = cli("tasks", "--status", "succeeded", "--json").document
    assert succeeded["task_id"] == done
    assert len(cli("tasks", "--limit", "1", "--json").document) == 1
    assert cli("tasks").out.splitlines()[1].startswith(done)
    assert cli("tasks", "--status", "blocked").out == "No tasks.\n"
    assert cli("tasks", "--status", "nonsense").code == 2
    assert cli("tasks", "--limit", "0").code == 2


def test_show_tells_what_was_executed_recorded_and_verified(cli):
    task_id = cli("run", "app:runner", "report", "--arg", 'topic="a"', "--json").document["task_id"]
    shown = cli("show", task_id, "--json").document
    (item,) = shown["items"]
    assert item["standing"] == "succeeded, proven"
    assert (item["executed"], item["replayed"]) == (2, 0)
    assert (item["input_tokens"], item["output_tokens"], item["cost"]) == (30, 40, 0.25)
    assert [(c["kind"], c["name"], c["meaning"]) for c in shown["calls"]] == [
        ("llm", "ask", "executed, recorded"),
        ("checkpoint", "manual", "recorded"),
        ("tool", "send", "executed, recorded"),
    ]
    (checkpoint,) = shown["checkpoints"]
    assert checkpoint["checkpoint"] == f"{task_id}:main:1"
    assert [(e["subject"], e["verdict"]) for e in checkpoint["evidence"]] == [
        ("file:notes.md", "verified")
    ]
    assert shown["task"]["input"] == {"topic": "a", "to": "a@b.c"}
    text = cli("show", task_id).out
    assert "llm ask (llm)  #1  executed, recorded" in text
    assert "30+40 tokens  $0.2500" in text
    assert f"checkpoint {task_id}:main:1  manual  verified in" in text
    times = [line[:12] for line in text.splitlines() if line[2:3] == ":"]
    assert times == sorted(times)


def test_show_counts_what_any_attempt_executed_and_says_what_was_settled(cli, real, place):
    (place / "kill").touch()
    real("run", "app:runner", "report", "--arg", 'topic="a"')
    assert cli("run", "app:runner", "report", "--arg", 'topic="a"').code == 6
    (task,) = cli("tasks", "--json").document
    assert cli("resolve", f"{task['task_id']}:main:3", "--done", '"sent"').code == 0
    assert cli("resume", "app:runner", task["task_id"]).code == 0

    shown = cli("show", task["task_id"], "--json").document
    (item,) = shown["items"]
    assert (item["calls"], item["executed"], item["replayed"]) == (2, 2, 2)
    assert shown["calls"][-1]["meaning"] == "was in doubt, settled: it happened"


def test_show_journal_prints_what_calls_were_given_and_gave(cli):
    task_id = cli("run", "app:runner", "report", "--arg", 'topic="a"', "--json").document["task_id"]
    text = cli("show", task_id, "--journal").out
    assert 'gave  {"prompt": "a"}' in text
    assert "got   sent" in text
    calls = cli("show", task_id, "--journal", "--json").document["calls"]
    assert calls[-1]["outcome"] == "sent"


def test_an_item_that_owed_no_evidence_is_shown_as_not_proven(cli):
    task_id = cli("run", "app:runner", "planned", "--json").document["task_id"]
    text = cli("show", task_id).out
    assert "succeeded, recorded not proven" in text
    assert "after one" in text


def test_types_of_the_application_are_shown_as_what_cannot_be_shown(real):
    given = {"order": {"name": "x", "due": "2026-03-01"}, "model": {"size": 3}}
    task = real("run", "app:runner", "typed", "--args", json.dumps(given), "--json").document
    answer = real("show", task["task_id"], "--journal")
    assert answer.code == 0
    assert "bytes that can't be shown here>" in answer.out
    assert real("show", task["task_id"], "--json").document["task"]["input"]["bytes"] > 0


def test_a_long_timeline_is_cut_at_the_front(cli):
    run = cli("run", "app:runner", "counting", "--arg", "until=30", "--json")
    task_id = run.document["task_id"]
    assert "earlier lines" in cli("show", task_id, "--limit", "10").out
    assert "earlier lines" not in cli("show", task_id, "--limit", "0").out


def test_a_task_is_found_by_the_start_or_the_end_of_its_id(cli):
    one = cli("submit", "app:runner", "waiting").out.strip()
    assert cli("show", one[:12], "--json").document["task"]["task_id"] == one
    two = cli("submit", "app:runner", "waiting").out.strip()
    for task_id in (one, two):
        assert cli("show", task_id[-8:], "--json").document["task"]["task_id"] == task_id
    several = cli("show", "0", "--json")
    assert several.code == 3
    assert "2 tasks are named '0'" in several.error["message"]


GARBAGE = ["", "nonsense", "\x00\x01", "%", "_", "*", "' OR 1=1 --", "\x1b[31mred", "é" * 5000,
           "\ud800", ":", "::", "a:b:c", "-1", "../../etc/passwd"]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(
    "words",
    [["show"], ["cancel"], ["retry"], ["verify"], ["resume", "app:runner"], ["fork"]],
    ids=lambda words: words[0],
)
def test_garbage_for_an_id_is_one_line_and_an_exit_code(cli, words, garbage):
    cli("submit", "app:runner", "waiting")
    answer = cli(*words, "--", garbage)
    assert answer.code in {2, 3}
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1
    assert "\x1b" not in answer.err


def test_follow_prints_the_timeline_until_the_task_ends(started, cli, place):
    task_id = cli("submit", "app:runner", "slow").out.strip()
    following = started("show", task_id, "--follow", "--json")
    (place / "finish").touch()
    assert cli("resume", "app:runner", task_id).code == 0
    out, _ = following.communicate(timeout=20)
    kinds = [json.loads(line)["type"] for line in out.splitlines()]
    assert kinds[0] == "task_submitted"
    assert kinds[-1] == "task_succeeded"


def test_stats_counts_rows_and_what_was_saved(cli, place):
    (place / "kill").touch()
    pid = os.fork()
    if pid == 0:
        cli("run", "app:runner", "report", "--arg", 'topic="a"')
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert cli("run", "app:runner", "report", "--arg", 'topic="a"').code == 6
    stats = cli("stats", "--json").document
    assert stats["rows"]["tasks.blocked"] == 1
    assert stats["counters"]["llm_replay.hits"] == 1
    assert stats["counters"]["llm_replay.cost_saved"] == 0.25
    assert "llm_replay.output_tokens_saved  40" in cli("stats").out


def test_a_directory_that_cannot_be_written_is_a_store_problem(cli, place):
    cli("submit", "app:runner", "waiting")
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    place.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert cli("tasks").code == 4
    finally:
        place.chmod(stat.S_IRWXU)


def test_a_reader_that_leaves_early_is_no_error(started, cli):
    run = cli("run", "app:runner", "counting", "--arg", "until=300", "--json")
    showing = started("show", run.document["task_id"], "--limit", "0")
    showing.stdout.readline()
    showing.stdout.close()
    assert showing.stderr.read() == ""
    assert showing.wait(20) in {0, 141}

"""`verify`, `doctor`, `sweep` and `prune`."""

import signal

import apsw
import pytest


@pytest.fixture
def reported(cli):
    return cli("run", "app:runner", "report", "--arg", 'topic="a"', "--json").document["task_id"]


def test_verify_says_what_holds(cli, reported):
    answer = cli("verify", reported, "--json")
    assert answer.code == 0
    assert answer.document["holds"]
    assert [e["verdict"] for e in answer.document["evidence"]] == ["verified"]
    assert "Everything holds." in cli("verify", reported).out


def test_verify_exits_with_1_when_evidence_is_gone(cli, reported, place):
    (place / "notes.md").write_text("altered")
    answer = cli("verify", reported, "--json")
    assert answer.code == 1
    assert [e["verdict"] for e in answer.document["evidence"]] == ["failed"]
    assert "Not everything holds." in cli("verify", reported).out


def test_verify_exits_with_1_when_the_journal_was_altered(cli, reported, place):
    database = apsw.Connection(str(place / "own.db"))
    database.execute("UPDATE journal SET name = 'else' WHERE seq = 1")
    database.close()
    answer = cli("verify", reported, "--json")
    assert answer.code == 1
    assert answer.document["broken_chains"]
    assert "broken" in cli("verify", reported).out


def test_verify_exits_with_1_when_a_large_payload_was_damaged(cli, place):
    large = "".join(str(n) for n in range(20_000))
    answer = cli("run", "app:runner", "report", "--arg", f'topic="{large}"', "--json")
    task_id = answer.document["task_id"]
    assert cli("verify", task_id).code == 0
    database = apsw.Connection(str(place / "own.db"))
    database.execute("UPDATE blobs SET data = CAST(substr(data, 2) AS BLOB)")
    database.close()
    answer = cli("verify", task_id, "--json")
    assert answer.code == 1
    assert answer.document["broken_chains"] == []
    assert f"{task_id}:main:1" in str(answer.document["damaged_payloads"])
    assert "is missing or damaged" in cli("verify", task_id).out


def test_verify_says_when_nothing_is_proven(cli):
    task_id = cli("run", "app:runner", "part", "--arg", "n=1", "--json").document["task_id"]
    answer = cli("verify", task_id)
    assert answer.code == 0
    assert "recorded, not proven" in answer.out


def levels(answer):
    return {finding["check"]: finding["level"] for finding in answer.document["findings"]}


@pytest.mark.usefixtures("reported")
def test_doctor_finds_a_sound_database_well(cli):
    answer = cli("doctor", "--json")
    assert answer.code == 0
    assert answer.document["problems"] == 0
    assert levels(answer) == {
        "library": "ok", "file": "ok", "disk": "ok", "settings": "ok", "pages": "ok",
        "lock file": "ok", "workers": "note", "tasks": "ok",
    }  # fmt: skip
    text = cli("doctor").out
    assert "journal_mode=wal, synchronous=full" in text
    assert text.endswith("All is well.\n")


def test_doctor_reports_a_missing_database_and_creates_none(cli, place):
    answer = cli("doctor", "--json")
    assert (answer.code, levels(answer)["file"]) == (1, "problem")
    assert not (place / "own.db").exists()


@pytest.mark.parametrize("content", [b"rubbish", b"SQLite format 3\0" + bytes(200), bytes(5000)])
def test_doctor_reports_a_file_that_is_none_of_ours_and_leaves_it(cli, place, content):
    (place / "own.db").write_bytes(content)
    answer = cli("doctor", "--json")
    assert (answer.code, levels(answer)["file"]) == (1, "problem")
    assert (place / "own.db").read_bytes() == content
    assert cli("tasks").code == 4


def test_doctor_reports_a_damaged_file(cli, reported, place):
    apsw.Connection(str(place / "own.db")).close()
    path = place / "own.db"
    whole = path.read_bytes()
    for start in (4096, 2000):  # pages of tables; the schema itself
        path.write_bytes(whole[:start] + b"\xab" * (len(whole) - start))
        answer = cli("doctor", "--json")
        assert answer.code == 1
        assert "problem" in levels(answer).values()
        assert cli("show", reported).code in {1, 3, 4}
        assert cli("tasks").code in {0, 4}


def test_doctor_names_what_is_blocked_and_who_died(cli, real, place):
    (place / "kill").touch()
    assert real("run", "app:runner", "report", "--arg", 'topic="a"').code == -signal.SIGKILL
    dead = cli("doctor", "--json")
    assert (dead.code, levels(dead)["workers"]) == (1, "problem")
    assert "holdfast sweep" in cli("doctor").out
    (taken,) = cli("sweep", "--json").document["taken_back"]
    assert taken["item_id"] == "main"
    assert cli("sweep").out == "Nobody died holding anything.\n"
    assert cli("doctor").code == 0
    assert cli("run", "app:runner", "report", "--arg", 'topic="a"').code == 6
    blocked = cli("doctor", "--json")
    assert (blocked.code, levels(blocked)["tasks"]) == (1, "problem")
    assert "holdfast resolve" in cli("doctor").out


@pytest.mark.usefixtures("reported")
def test_prune_removes_ended_tasks_that_are_old_enough(cli):
    waiting = cli("submit", "app:runner", "waiting").out.strip()
    assert cli("prune", "--json").document["tasks"] == 0
    assert cli("prune", "--older-than", "0", "--json").document["tasks"] == 1
    assert [task["task_id"] for task in cli("tasks", "--json").document] == [waiting]
    assert "Removed 0 tasks" in cli("prune", "--older-than", "0").out


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "many"])
@pytest.mark.usefixtures("reported")
def test_prune_takes_only_a_sensible_age(cli, days):
    assert cli("prune", "--older-than", days).code == 2
    assert len(cli("tasks", "--json").document) == 1

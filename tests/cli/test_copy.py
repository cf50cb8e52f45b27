"""`copy`: what it prints, and what it refuses."""

import pytest


@pytest.fixture
def source(cli, place):
    assert cli("run", "app:runner", "report", "--arg", 'topic="a"').code == 0
    return "sqlite:///own.db"


def test_it_prints_what_both_sides_hold_and_the_source_is_not_opened_again(cli, source):
    answer = cli("copy", source, "sqlite:///new.db")
    assert answer.code == 0
    assert "journal" in answer.out
    assert "journal entries in 1 task: unbroken." in answer.out
    assert "Nothing differs: everything in sqlite:///own.db is there." in answer.out
    assert "copying journal" in answer.err
    refused = cli("tasks")
    assert refused.code == 4
    assert "was moved to another database" in refused.err
    assert "succeeded" in cli("tasks", db="sqlite:///new.db").out


def test_a_rehearsal_leaves_the_source_open_and_says_what_to_beware_of(cli, source):
    answer = cli("copy", source, "sqlite:///new.db", "--keep-source")
    assert "Two databases with the same tasks do everything twice." in answer.out
    assert cli("tasks").code == 0
    again = cli("copy", source, "sqlite:///new.db", "--json").document
    assert again["copied"]["before"]
    assert again["copied"]["sealed"]
    assert {each["table"]: each["rows"] for each in again["copied"]["tables"]}["tasks"] == 1


def test_one_database_or_none_is_refused(cli, source):
    assert cli("copy", source, source).code == 2
    assert "There is no database" in cli("copy", "sqlite:///none.db", "sqlite:///new.db").err


def test_a_source_at_work_is_refused_with_what_to_do(cli, source, started, place):
    worker = started("worker", "app:runner", "--json")
    assert worker.stdout
    worker.stdout.readline()
    answer = cli("copy", source, "sqlite:///new.db")
    assert answer.code == 2
    assert f"(process {worker.pid} on " in answer.err
    assert "SIGTERM" in answer.err
    assert cli("tasks").code == 0

"""`approvals`, `approve`, `reject` and `budget`: what people are asked, and what they allow."""

from __future__ import annotations

import importlib
import os
import pwd

import pytest

from holdfast import Budget


@pytest.fixture
def asked(cli):
    """A task that waits for an approval of a call with a secret: its id, and the entry."""
    assert cli("run", "app:runner", "ordering", "--arg", 'what="tea"').code == 6
    (found,) = cli("approvals", "--json").document
    return found["task_id"], found["entry"]


def test_what_waits_is_listed_with_its_exact_arguments_and_no_secrets(cli, asked):
    task_id, entry = asked
    answer = cli("approvals")
    first, when, *arguments = answer.out.splitlines()
    assert first == f"{entry}  order"
    assert when.strip().startswith("asked 20")
    assert '    "what": "notes on tea",' in arguments
    assert "4711" not in answer.out
    (document,) = cli("approvals", task_id[-6:], "--json").document
    assert document["arguments"]["what"] == "notes on tea"
    assert document["expires_at"] is None
    shown = cli("show", task_id).out
    assert f"needs      holdfast approve {entry}: order waits for an approval" in shown
    assert f"asked for  holdfast approve {entry}" in shown


def test_approved_it_goes_on_and_says_who_allowed_it(cli, asked):
    task_id, entry = asked
    short = entry.replace(task_id, task_id[-6:])
    answer = cli("approve", short, "--reason", "we are out of tea")
    assert answer.out == f"{entry} is approved; task {task_id} is running.\n"
    assert cli("approvals").out == "Nothing waits for an approval.\n"
    again = cli("approve", entry)
    user = pwd.getpwuid(os.getuid()).pw_name
    assert again.code == 2
    assert f"it was approved already by {user}" in again.err
    assert cli("resume", "app:runner", task_id).out.endswith("ordered notes on tea\n")
    assert "approved, used" in cli("show", task_id).out


def test_rejected_the_task_fails_with_the_reason(cli, asked):
    task_id, entry = asked
    done = cli("reject", entry, "--by", "bob", "--reason", "too dear", "--json").document
    assert (done["decision"], done["status"], done["needs"]) == ("rejected", "running", [])
    failed = cli("resume", "app:runner", task_id)
    assert failed.code == 5
    assert "bob rejected order: too dear" in failed.err


@pytest.mark.parametrize("entry", ["nonsense", "nobody:main:1"])
def test_what_asks_for_nothing_is_refused(cli, asked, entry):
    for decide in ("approve", "reject"):
        assert cli(decide, entry).code in {2, 3}


def test_a_budget_is_shown_and_raised(cli, asked, place):
    task_id, _ = asked
    refused = cli("budget", task_id)
    assert refused.code == 2
    assert "has no budget" in refused.err

    app = importlib.import_module("app")
    with pytest.raises(Exception, match="holdfast budget"):
        app.runner.options(budget=Budget(cost=0.4)).run(app.ordering, what="milk")
    app.runner.close()
    task_id = cli("tasks", "--json").document[0]["task_id"]
    shown = cli("show", task_id).out
    assert f"holdfast budget {task_id} --add-cost USD: main waits: the budget is too small" in shown
    title, _, tokens, money = cli("budget", task_id).out.splitlines()
    assert title == f"budget of task {task_id}"
    assert tokens.split() == ["tokens", "none", "0", "0"]
    assert money.split() == ["US", "dollars", "$0.40", "$0.0000", "$0.0000"]
    document = cli("budget", task_id, "--add-cost", "0.25", "--json").document
    assert document["cost"] == {"limit": 0.65, "spent": 0.0, "reserved": 0.0}
    assert cli("budget", task_id, "--add", "0.25", "--json").document["cost"]["limit"] == (
        document["cost"]["limit"] + 0.25
    )
    assert cli("budget", task_id, "--add", "5k").code == 2
    assert cli("budget", task_id, "--add-tokens", "5").code == 2  # it has no such limit
    cli("resume", "app:runner", task_id)
    assert cli("budget", task_id, "--json").document["cost"]["spent"] == 0.25

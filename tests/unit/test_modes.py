"""Modes say what their tools may do, and a selector says which of them a goal needs, and why."""

from __future__ import annotations

import asyncio
import time

import pytest

from holdfast import Effect, errors
from holdfast.agents.modes import CHECKING, LOOKING, MACHINE, MODES, Mode, modes_named
from holdfast.agents.selector import DEFAULT, RULES, ModeSelector, Rule
from holdfast.agents.workspace_tools import WorkspaceTools

READING = {"read_file", "list_files", "search_files"}
CHANGING = {"write_file", "edit_file"}


@pytest.mark.parametrize(
    ("name", "tools"),
    [
        ("planning", READING),
        ("implementation", READING | CHANGING | {"run_command"}),
        ("testing", READING | {"run_command"}),
        ("debug", READING | {"run_command"}),
        ("chat", READING),
        ("ops", READING | {"run_command"}),
        ("design", READING),
        ("release", READING | {"run_command"}),
    ],
)
def test_each_built_in_mode_has_these_tools(tmp_path, name, tools):
    permissions = MODES[name].permissions
    shown = WorkspaceTools(tmp_path, permissions, sandbox="off").permitted
    assert {tool.name for tool in shown} == tools
    assert MODES[name].instructions
    assert Effect.READ in permissions.effects


def test_these_are_all_modes():
    assert list(MODES) == [
        "planning", "implementation", "testing", "debug", "chat", "ops", "design", "release",
    ]  # fmt: skip
    assert all(name == mode.name for name, mode in MODES.items())


@pytest.mark.parametrize("name", [name for name in MODES if name != "implementation"])
def test_no_other_mode_changes_files_whatever_its_model_calls(tmp_path, name):
    tools = WorkspaceTools(tmp_path, MODES[name].permissions, sandbox="off", mode=name)
    assert tools.write_file("f", "x") == f"Refused: {name} may not change files."
    answer = asyncio.run(tools.run_command(["touch", "f"]))
    assert answer.startswith("Refused: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argv",
    [
        "git diff --no-index a b",
        "git diff --ext-diff",
        "git diff --output=f",
        "git diff /etc/passwd a",
        "git diff ../a b",
        "git log --exec=x",
        "git grep -Ox y",
        "git -C .. log",
        "git push",
        "git commit -m x",
        "pytest --basetemp=src",
        "pytest --junit-xml=f",
        "pytest -p x",
        "pytest -c x",
        "pytest -o x=y",
        "pytest ../x",
        "python -c x",
        "python x.py",
        "python -m pip install x",
        "make install",
        "make test SHELL=x",
        "make -f x test",
        "npm run x",
        "go test -exec x",
        "cargo test --config x",
        "ruff check --fix",
        "ruff check --config x",
        "ps aux; x",
        "sh -c x",
        "env x",
        "bash",
    ],
)
def test_no_mode_runs_this_without_a_sandbox(argv):
    assert not any(each.allows(argv.split()) for each in (*CHECKING, *LOOKING, *MACHINE))


@pytest.mark.parametrize(
    "argv",
    [
        "pytest -q -x tests/test_a.py",
        "pytest -k name --maxfail=1",
        "python -m pytest",
        "make test",
        "cargo test -- --nocapture",
        "go test -run TestX ./...",
        "git diff --stat HEAD~1..HEAD",
        "git show HEAD:src/a.py",
        "git log --oneline -n 5 -- src",
    ],
)
def test_modes_that_check_run_this_without_a_sandbox(argv):
    assert any(each.allows(argv.split()) for each in (*CHECKING, *LOOKING))


def test_a_mode_of_your_own_starts_from_another():
    careful = MODES["implementation"].with_(name="careful", instructions="Ask first.")
    assert careful.permissions == MODES["implementation"].permissions
    assert modes_named(["chat", careful]) == (MODES["chat"], careful)
    assert modes_named(["careful"], {**MODES, "careful": careful}) == (careful,)


@pytest.mark.parametrize("name", ["", "a b", "main:x", "é", "a/b", "-", "a,b"])
def test_a_name_that_no_work_item_can_have_is_refused(name):
    with pytest.raises(errors.UsageError, match="is no name for a mode"):
        Mode(name, "")


def test_a_mode_that_is_not_there_is_said_to_be_missing():
    with pytest.raises(errors.UsageError, match=r"'bogus'.*There are: chat, debug"):
        modes_named(["chat", "bogus"])


# -- the selector ---------------------------------------------------------------------------------

GOALS = {
    "Make the failing test pass": ("fix", "debug implementation testing"),
    "fix the bug in the parser": ("fix", "debug implementation testing"),
    "The importer crashes on empty files": ("fix", "debug implementation testing"),
    "Could you please fix issue 12?": ("fix", "debug implementation testing"),
    "Why does the build fail on Mondays?": ("cause", "debug"),
    "What does the scheduler do?": ("question", "chat"),
    "Explain the retry policy": ("question", "chat"),
    "How do I add a mode?": ("question", "chat"),
    "Add a --json option": ("change", "planning implementation testing"),
    "Please add a bug report form": ("change", "planning implementation testing"),
    "I'd like you to rename Foo to Bar": ("change", "planning implementation testing"),
    "Add tests for the parser": ("write tests", "implementation testing"),
    "Run the tests": ("run tests", "testing"),
    "Design the storage format": ("design", "design"),
    "Plan the migration to PostgreSQL": ("plan", "planning"),
    "Deploy the service": ("operations", "ops"),
    "Release version 2.1": ("release", "testing release"),
    "Good morning": (DEFAULT, "chat"),
    "": (DEFAULT, "chat"),
    "ünïcödé — ¿qué?": (DEFAULT, "chat"),
}


@pytest.mark.parametrize("goal", GOALS)
def test_a_goal_selects_a_pipeline_by_the_first_rule_that_matches(goal):
    rule, modes = GOALS[goal]
    selected = ModeSelector().select(goal)
    assert (selected.rule, " ".join(selected.modes)) == (rule, modes)


def test_a_selection_says_why():
    assert ModeSelector().select("Fix it").why == "the rule 'fix' matched 'Fix'"
    assert ModeSelector().select("Hm").why == "no rule matched"


def test_every_rule_names_modes_that_are_there_and_can_match():
    assert {rule.name for rule in RULES} == {rule for rule, _ in GOALS.values()} - {DEFAULT}
    for rule in RULES:
        modes_named(rule.modes)


def test_rules_of_your_own_come_first():
    mine = Rule("docs", r"\bdocs?\b", ("design", "implementation"))
    selector = ModeSelector([mine, *RULES], default=("planning",))
    assert selector.select("Fix the docs").rule == "docs"
    assert selector.select("Fix the code").rule == "fix"
    assert selector.select("Hm").modes == ("planning",)


def test_a_rule_that_can_select_nothing_is_refused():
    with pytest.raises(errors.UsageError, match="no regular expression"):
        Rule("x", "(", ("chat",))
    with pytest.raises(errors.UsageError, match="names no mode"):
        Rule("x", "x", ())


def test_a_goal_however_long_is_selected_for_at_once():
    started = time.monotonic()
    for goal in ("please " * 100_000, "why " * 100_000, "write " + "x" * 1_000_000):
        ModeSelector().select(goal)
    assert time.monotonic() - started < 2

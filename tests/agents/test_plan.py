"""Plans that a model makes: what is refused, and what becomes of the rest."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from holdfast import Context, TaskRunner, errors
from holdfast.agents.plan import (
    MOST_ITEMS,
    Permitted,
    Plan,
    PlannedEvidence,
    PlannedItem,
    problems_of,
    work_items,
)
from holdfast.store import verbs

PERMITTED = Permitted(
    ("implementation", "design"), ("implementation",), [("pytest", "-q"), ("ruff", "check")]
)
ITEM = PlannedItem("fix", "Fix it", "Fix the bug.", "implementation")
SHA = hashlib.sha256(b"").hexdigest()


def owing(*evidence: PlannedEvidence) -> Plan:
    return Plan("", [replace(ITEM, evidence=list(evidence))])


def problems(plan: Plan) -> str:
    return "\n".join(problems_of(plan, PERMITTED))


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (replace(ITEM, id="main"), "is not main or plan"),
        (replace(ITEM, id="../x"), "an id has 1 to 40"),
        (replace(ITEM, id="a" * 41), "an id has 1 to 40"),
        (replace(ITEM, title=" "), "its title needs"),
        (replace(ITEM, title="t" * 121), "its title needs"),
        (replace(ITEM, instructions=""), "its instructions need"),
        (replace(ITEM, instructions="i" * 8001), "its instructions need"),
        (replace(ITEM, mode="ops"), "no mode 'ops' on offer, only implementation, design"),
        (replace(ITEM, evidence=[PlannedEvidence("file", "a")] * 11), "10 are the most"),
    ],
)
def test_an_item_that_makes_no_sense_is_a_problem_with_its_reason(item, problem):
    assert problem in problems(Plan("", [item]))


def test_an_item_that_makes_sense_is_none():
    evidence = [
        PlannedEvidence("file", "a.py"),
        PlannedEvidence("file_hash", "b.py", SHA),
        PlannedEvidence("command", argv=["pytest", "-q"]),
        PlannedEvidence("git_commit", rev="HEAD"),
    ]
    assert problems(owing(*evidence)) == ""


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [
        (PlannedEvidence("file"), "needs 'path'"),
        (PlannedEvidence("file", "/etc/passwd"), "is absolute"),
        (PlannedEvidence("file", "../x"), "contains '..'"),
        (PlannedEvidence("file_hash", "a"), "needs 'sha256'"),
        (PlannedEvidence("file_hash", "a", "1234"), "64 hexadecimal digits"),
        (PlannedEvidence("git_commit"), "needs 'rev'"),
        (PlannedEvidence("git_commit", rev="--exec=x"), "is no git revision"),
        (PlannedEvidence("command"), "isn't declared repeatable"),
        (PlannedEvidence("command", argv=["rm", "-rf", "/"]), "isn't declared repeatable"),
        (PlannedEvidence("command", argv=["pytest", "-q", "-p", "x"]), "isn't declared repeatable"),
    ],
)
def test_evidence_that_is_unsafe_or_cannot_be_checked_is_a_problem(evidence, problem):
    assert problem in problems(owing(evidence))


def test_no_items_too_many_and_doubled_ones_are_problems():
    assert "no items" in problems(Plan("", []))
    many = [replace(ITEM, id=f"i{n}") for n in range(MOST_ITEMS + 1)]
    assert "21 items" in problems(Plan("", many))
    assert "Two items are named 'fix'" in problems(Plan("", [ITEM, ITEM]))


# -- what becomes of it ---------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    """Return how a plan is turned into work items, by a runner that has one handler."""
    runner = TaskRunner(f"sqlite:///{tmp_path}/holdfast.db", workspace=str(tmp_path))

    @runner.task
    async def do(ctx: Context, item: PlannedItem) -> None:
        """Do nothing."""

    task = runner.store.read(verbs.get_task(runner.submit(do, ITEM).task_id))
    yield lambda *items: work_items(Plan("", list(items)), PERMITTED, runner.handlers, do, task)
    runner.close()


def named(name: str, *after: str, mode: str = "implementation") -> PlannedItem:
    return replace(ITEM, id=name, mode=mode, after=list(after))


def test_items_that_change_the_workspace_run_one_at_a_time_and_readers_side_by_side(made):
    items = made(
        named("a"),
        named("read-1", mode="design"),
        named("read-2", mode="design"),
        named("b"),
        named("c", "a"),
    )
    assert {item.item_id: set(item.after) for item in items} == {
        "a": set(),
        "read-1": {"a"},
        "read-2": {"a"},
        "b": {"read-1", "read-2"},
        "c": {"a", "b"},
    }


def test_what_an_item_proves_stands_as_historic(made):
    evidence = [PlannedEvidence("file", "a.py"), PlannedEvidence("command", argv=["pytest", "-q"])]
    (item,) = made(replace(ITEM, evidence=evidence))
    assert [owed.recheck for owed in item.evidence] == [False, False]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ((named("a", "b"), named("b", "a")), "The plan has a cycle"),
        ((named("a", "gone"),), "'a' comes after 'gone', which isn't there"),
        ((replace(ITEM, mode="ops"), replace(ITEM, id="x y")), "no mode 'ops'.*\n.*an id has"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_with_every_reason(made, items, reason):
    with pytest.raises(errors.PlanError, match=reason):
        made(*items)

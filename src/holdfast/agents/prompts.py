"""What planners, and whoever carries out an item, are told beside their mode's instructions."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from holdfast.agents.assignment import Assignment
from holdfast.agents.modes import Mode
from holdfast.agents.plan import MOST_ITEMS, PlannedEvidence, PlannedItem

_TO_PLANNERS = f"""\
Look at the workspace with your tools, then return a plan of work items that reaches the goal: as
few as it takes, at most {MOST_ITEMS}. Whoever carries out an item sees its instructions, the goal,
and what the items before it said."""

_AFTER_A_FAILURE = """\
The plan before this one was carried out as far as possible, and this went wrong. The workspace is
as it left it. Plan what is left to do."""

_TO_ALL = """\
When it is done, say in a few sentences what you did and what whoever comes next must know."""


def planning_prompt(assignment: Assignment, modes: Iterable[Mode], failed: str | None) -> str:
    """Return what a planner is asked.

    Args:
        assignment: the goal, and what is permitted.
        modes: those on offer.
        failed: why the plan before this one didn't do; None for the first.
    """
    commands = [shlex.join(words) for words in assignment.claimable]
    parts = [
        f"Goal: {assignment.goal}",
        _TO_PLANNERS,
        _listed("Modes that an item may have", map(_may, modes)),
        _listed("Commands that evidence may run, exactly like this", commands),
        _listed(
            "Checked at the end, after all items",
            (f"{gate.name}: {gate.shown}" for gate in assignment.gates),
        ),
    ]
    if failed is not None:
        parts.append(f"{_AFTER_A_FAILURE}\n\n{failed}")
    return "\n\n".join(part for part in parts if part)


def item_prompt(goal: str, item: PlannedItem, before: Mapping[str, str]) -> str:
    """Return what whoever carries out an item is asked.

    Args:
        goal: of the whole task.
        item: what is to be done.
        before: what the items directly before it said, by their ids.
    """
    parts = [
        f"Your part: {item.title}\n\n{item.instructions}",
        f"It is a part of this goal: {goal}",
        _listed("When you say you are done, this is checked", map(_described, item.evidence)),
        *(f"{name}, done before, said:\n{said}" for name, said in before.items()),
        _TO_ALL,
    ]
    return "\n\n".join(part for part in parts if part)


def _may(mode: Mode) -> str:
    may = ["reads"]
    if mode.permissions.change_files:
        may.append("changes files")
    if mode.permissions.run_commands:
        may.append("runs commands")
    return f"{mode.name}: {', '.join(may)}"


def _described(owed: PlannedEvidence) -> str:
    match owed.kind:
        case "file":
            return f"the file {owed.path} exists"
        case "file_hash":
            return f"the file {owed.path} has the SHA-256 {owed.sha256}"
        case "command":
            return f"`{shlex.join(owed.argv or ())}` ends with exit code {owed.exit_code}"
        case "git_commit":
            return f"{owed.rev} is a commit"


def _listed(title: str, lines: Iterable[str]) -> str:
    text = "".join(f"\n- {line}" for line in lines)
    return f"{title}:{text}" if text else ""

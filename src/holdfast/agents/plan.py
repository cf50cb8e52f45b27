"""Plans that a model makes: typed, checked at the door, turned into work items.

Whatever a model returns is untrusted input. A plan names no function and no host: its items run in
modes that the task permits, and claim what Holdfast can check in the workspace.

All items share one workspace, and it changes under them. So items that may change it run one at a
time, and what an item proves is checked when it ends and stands as historic: a later item may edit
the same file. Whoever calls the whole done claims everything again, as it is then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

import msgspec

from holdfast import errors
from holdfast.agents.gates import ENVIRONMENT, TIMEOUT
from holdfast.evidence import Evidence
from holdfast.handlers import Handler, Handlers
from holdfast.models import Task, WorkItem
from holdfast.planning import plan_items

MOST_ITEMS = 20
"""Items of one plan."""

LONGEST_TITLE = 120
"""Characters."""

LONGEST_INSTRUCTIONS = 8000
"""Characters."""

MOST_EVIDENCE = 10
"""Claims of one item."""

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


@dataclass(frozen=True)
class PlannedEvidence:
    """What an item owes, so that anybody can check that it is done.

    Attributes:
        kind: `file` (it exists), `file_hash` (it has exactly this content), `command` (it ends
            with this exit code), or `git_commit` (the revision names a commit).
        path: of the file, relative to the workspace.
        sha256: of the file's content, for `file_hash`.
        argv: the command's words, for `command`. Only commands that the task declares repeatable.
        exit_code: for `command`.
        rev: for `git_commit`.
    """

    kind: Literal["file", "file_hash", "command", "git_commit"]
    path: str | None = None
    sha256: str | None = None
    argv: list[str] | None = None
    exit_code: int = 0
    rev: str | None = None


@dataclass(frozen=True)
class PlannedItem:
    """One item of a plan.

    Attributes:
        id: short and unique: small letters, digits and `-._`.
        title: what it achieves, in a line.
        instructions: everything that whoever does it has to know.
        mode: one of the modes on offer.
        after: ids of the items that must be done before it.
        evidence: what it owes.
    """

    id: str
    title: str
    instructions: str
    mode: str
    after: list[str] = field(default_factory=list[str])
    evidence: list[PlannedEvidence] = field(default_factory=list[PlannedEvidence])


@dataclass(frozen=True)
class Plan:
    """How the goal is reached.

    Attributes:
        summary: the approach, in a sentence or two.
        items: the work items, the first ones first.
    """

    summary: str
    items: list[PlannedItem]


class Permitted:
    """What the items of a plan may do.

    Args:
        modes: the names of the modes they may run in.
        changing: those of them that may change the workspace.
        commands: the commands that evidence may run, because running them again is harmless.
    """

    def __init__(
        self,
        modes: Iterable[str],
        changing: Iterable[str],
        commands: Iterable[Sequence[str]],
    ) -> None:
        self.modes = tuple(modes)
        self.changing = frozenset(changing)
        self.commands = tuple(tuple(command) for command in commands)


def problems_of(plan: Plan, permitted: Permitted) -> list[str]:
    """Return why a plan can't be carried out, a line each; none if nothing speaks against it."""
    found = list[str]()
    if not plan.items:
        found.append("The plan has no items.")
    if len(plan.items) > MOST_ITEMS:
        found.append(f"The plan has {len(plan.items)} items; {MOST_ITEMS} are the most.")
    seen = set[str]()
    for item in plan.items[:MOST_ITEMS]:
        found += (f"Item {item.id!r}: {problem}." for problem in _problems(item, permitted))
        if item.id in seen:
            found.append(f"Two items are named {item.id!r}.")
        seen.add(item.id)
    return found


def _problems(item: PlannedItem, permitted: Permitted) -> Iterator[str]:
    if not _ID.fullmatch(item.id) or item.id in {"main", "plan"}:
        yield "an id has 1 to 40 small letters, digits and -._, and is not main or plan"
    if not 0 < len(item.title.strip()) <= LONGEST_TITLE:
        yield f"its title needs 1 to {LONGEST_TITLE} characters"
    if not 0 < len(item.instructions.strip()) <= LONGEST_INSTRUCTIONS:
        yield f"its instructions need 1 to {LONGEST_INSTRUCTIONS} characters"
    if item.mode not in permitted.modes:
        yield f"there is no mode {item.mode!r} on offer, only {', '.join(permitted.modes)}"
    if len(item.evidence) > MOST_EVIDENCE:
        yield f"it owes {len(item.evidence)} claims; {MOST_EVIDENCE} are the most"
    for owed in item.evidence[:MOST_EVIDENCE]:
        try:
            evidence_of(owed, permitted)
        except errors.InputError as error:
            yield f"its evidence can't be checked: {error}".rstrip(".")


def evidence_of(owed: PlannedEvidence, permitted: Permitted) -> Evidence:
    """Return the claim that a plan describes.

    Raises:
        EvidenceInputError: it lacks something, leaves the workspace, or runs a command that wasn't
            declared repeatable.
    """
    match owed.kind:
        case "file":
            return Evidence.file(_needed(owed.path, "file", "path"))
        case "file_hash":
            sha256 = _needed(owed.sha256, "file_hash", "sha256")
            return Evidence.file_hash(_needed(owed.path, "file_hash", "path"), sha256)
        case "git_commit":
            return Evidence.git_commit(_needed(owed.rev, "git_commit", "rev"))
        case "command":
            return _command(owed, permitted)


def _needed(value: str | None, kind: str, name: str) -> str:
    if not value:
        message = f"evidence of the kind {kind!r} needs {name!r}"
        raise errors.EvidenceInputError(message)
    return value


def _command(owed: PlannedEvidence, permitted: Permitted) -> Evidence:
    argv = tuple(owed.argv or ())
    if argv not in permitted.commands:
        known = "; ".join(" ".join(command) for command in permitted.commands) or "none"
        message = f"{list(argv)} isn't declared repeatable (declared: {known})"
        raise errors.EvidenceInputError(message)
    return Evidence.command(argv, owed.exit_code, timeout=TIMEOUT, env=ENVIRONMENT, recheck=True)


def work_items(
    plan: Plan, permitted: Permitted, handlers: Handlers, handler: Handler[..., Any], task: Task
) -> list[WorkItem]:
    """Return the items of a plan, which the core has checked too.

    Raises:
        PlanError: it can't be carried out; the message has every reason, a line each.
    """
    problems = problems_of(plan, permitted)
    items = list[WorkItem]()
    if not problems:
        items = [
            WorkItem(
                item.id,
                handler,
                {"item": item},
                after=tuple(after),
                evidence=[
                    msgspec.structs.replace(evidence_of(owed, permitted), recheck=False)
                    for owed in item.evidence
                ],
            )
            for item, after in _in_order(plan, permitted)
        ]
        try:
            plan_items(handlers, task, items)
        except errors.InputError as error:
            problems = [str(error)]
    if problems:
        raise errors.PlanError("\n".join(problems))
    return items


def _in_order(plan: Plan, permitted: Permitted) -> Iterator[tuple[PlannedItem, dict[str, None]]]:
    """Yield the items with what each comes after, so that one at a time changes the workspace.

    A cycle, or an item that isn't there, is left for the core to refuse.
    """
    by_id = {item.id: item for item in plan.items}
    try:
        order = list(TopologicalSorter({item.id: item.after for item in plan.items}).static_order())
    except CycleError:
        order = list(by_id)
    changed, since = list[str](), list[str]()
    for item in (by_id[name] for name in order if name in by_id):
        before = changed
        if item.mode in permitted.changing:
            before, changed, since = since or changed, [item.id], []
        else:
            since.append(item.id)
        yield item, dict.fromkeys((*item.after, *before))

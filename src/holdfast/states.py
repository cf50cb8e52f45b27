"""The states of tasks and work items, and the one table that says which may follow which.

The tables drive the checks in the store's tests and the diagrams in the documentation
(`python -m holdfast.states` prints them as Mermaid).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar


class ItemStatus(StrEnum):
    """Where a work item stands."""

    PENDING = "pending"
    """Waits for the items it comes after."""
    READY = "ready"
    """May be claimed."""
    RUNNING = "running"
    """Leased by a worker."""
    WAITING = "waiting"
    """Waits for a timer, a signal, a child, a retry, an approval, its budget, a provider's quota,
    or a machine that has its workspace."""
    IN_DOUBT = "in_doubt"
    """A `once` call was started and its outcome isn't known: a person resolves it."""
    QUARANTINED = "quarantined"
    """Crashed its process too often, or its evidence won't hold: a person retries it."""
    SUCCEEDED = "succeeded"
    """Its result is recorded, and its evidence held."""
    FAILED = "failed"
    """Its last attempt failed: `retry` runs it again."""
    CANCELED = "canceled"
    """Was told to stop, and did. Final."""
    SKIPPED = "skipped"
    """An item it comes after failed."""


class TaskStatus(StrEnum):
    """Where a task stands; follows from its work items."""

    PLANNING = "planning"
    """Its planner is at work."""
    RUNNING = "running"
    """Some item is executed, or may be."""
    WAITING = "waiting"
    """Nothing can run until a timer, a signal, a child or a retry is due."""
    BLOCKED = "blocked"
    """Nothing can run until a person acts."""
    SUCCEEDED = "succeeded"
    """Its evidence, if any, was checked once more, and its result is recorded."""
    FAILED = "failed"
    """An item failed: `retry` runs what failed again."""
    CANCELED = "canceled"
    """Was canceled, with everything below it. Final."""


_I = ItemStatus
_T = TaskStatus

ITEM_TRANSITIONS: dict[ItemStatus, frozenset[ItemStatus]] = {
    _I.PENDING: frozenset({_I.READY, _I.SKIPPED, _I.CANCELED, _I.SUCCEEDED}),
    _I.READY: frozenset({_I.RUNNING, _I.PENDING, _I.CANCELED}),
    _I.RUNNING: frozenset(
        {
            _I.SUCCEEDED,
            _I.FAILED,
            _I.CANCELED,
            _I.WAITING,
            _I.IN_DOUBT,
            _I.QUARANTINED,
            _I.READY,
            _I.PENDING,
        }
    ),
    _I.WAITING: frozenset({_I.READY, _I.PENDING, _I.CANCELED}),
    _I.IN_DOUBT: frozenset({_I.READY, _I.PENDING, _I.CANCELED}),
    _I.QUARANTINED: frozenset({_I.READY, _I.PENDING, _I.CANCELED}),
    _I.SUCCEEDED: frozenset({_I.READY, _I.PENDING, _I.QUARANTINED}),
    _I.FAILED: frozenset({_I.READY, _I.PENDING}),
    _I.SKIPPED: frozenset({_I.PENDING}),
    _I.CANCELED: frozenset(),
}
"""Which item status may follow which. `succeeded → ready` is a reopening; `pending → succeeded`
restores a reopened item whose inputs came out unchanged."""

TASK_TRANSITIONS: dict[TaskStatus, frozenset[TaskStatus]] = {
    _T.PLANNING: frozenset({_T.RUNNING, _T.WAITING, _T.BLOCKED, _T.FAILED, _T.CANCELED}),
    _T.RUNNING: frozenset({_T.WAITING, _T.BLOCKED, _T.SUCCEEDED, _T.FAILED, _T.CANCELED}),
    _T.WAITING: frozenset({_T.RUNNING, _T.PLANNING, _T.BLOCKED, _T.FAILED, _T.CANCELED}),
    _T.BLOCKED: frozenset({_T.RUNNING, _T.PLANNING, _T.WAITING, _T.FAILED, _T.CANCELED}),
    _T.SUCCEEDED: frozenset({_T.RUNNING}),
    _T.FAILED: frozenset({_T.RUNNING, _T.PLANNING}),
    _T.CANCELED: frozenset(),
}
"""Which task status may follow which. `succeeded → running` is a reopening by `resume`."""

FINAL_ITEM = frozenset({_I.SUCCEEDED, _I.FAILED, _I.CANCELED, _I.SKIPPED})
FINAL_TASK = frozenset({_T.SUCCEEDED, _T.FAILED, _T.CANCELED})


class Effect(StrEnum):
    """What a call does to the world; decides what happens when a crash falls inside it."""

    READ = "read"
    """Nothing. Run again."""
    LLM = "llm"
    """A paid model output. Run again; once recorded, never paid for again."""
    IDEMPOTENT = "idempotent"
    """The receiver tells a repetition by its key. Run again with the same key."""
    ONCE = "once"
    """Must not be repeated. In doubt until somebody knows."""


class ApprovalPolicy(StrEnum):
    """Which calls of a task need a person's approval without asking for one."""

    AUTONOMOUS = "autonomous"
    """None."""
    ASSISTED = "assisted"
    """The plan, before it is committed."""
    INTERACTIVE = "interactive"
    """The plan, and every `once` call."""


class EntryKind(StrEnum):
    """What a journal entry records."""

    LLM = "llm"
    TOOL = "tool"
    STEP = "step"
    TIMER = "timer"
    SIGNAL = "signal"
    CHILD = "child"
    APPROVAL = "approval"
    VALUE = "value"
    """`now`, `uuid` and `random`: chosen once."""
    CHECKPOINT = "checkpoint"
    MARKER = "marker"
    """Changes which earlier entries answer: see `MarkerKind`."""


class EntryStatus(StrEnum):
    """What is known about a call."""

    STARTED = "started"
    """An intent: durable before the call. Of an approval: it is asked for."""
    DONE = "done"
    FAILED = "failed"
    DOUBT = "doubt"
    """The outcome can't be known from here; `outcome` says why."""
    RELEASED = "released"
    """It provably did not happen, or a person let it run: the next such call is made anew. Of a
    model call: the provider refused it for now, or its answer was lost; it is made anew."""


class MarkerKind(StrEnum):
    """Why some earlier entries no longer answer."""

    RETRY = "retry"
    """The failure that ended an attempt; `ref` is its entry."""
    REDO = "redo"
    """The world drifted: `read` and naturally idempotent entries are done again."""
    REGENERATE = "regenerate"
    """As REDO, and LLM outputs too."""


class CheckpointType(StrEnum):
    """Why a checkpoint was taken."""

    ITERATION_START = "iteration_start"
    ITERATION_END = "iteration_end"
    TOOL_EXECUTED = "tool_executed"
    LLM_RESPONSE = "llm_response"
    APPROVAL_POINT = "approval_point"
    STATE_TRANSITION = "state_transition"
    MANUAL = "manual"
    ERROR_BOUNDARY = "error_boundary"
    """Taken where an attempt failed; kept for people, never resumed from."""


_Status = TypeVar("_Status", bound=StrEnum)


def mermaid() -> str:
    """Return both transition tables as Mermaid state diagrams."""
    return f"{_diagram('work item', ITEM_TRANSITIONS)}\n\n{_diagram('task', TASK_TRANSITIONS)}"


def _diagram(title: str, table: Mapping[_Status, frozenset[_Status]]) -> str:
    lines = [f"%% {title}", "stateDiagram-v2"]
    for source, targets in table.items():
        lines.extend(f"    {source} --> {target}" for target in sorted(targets))
    return "\n".join(lines)


if __name__ == "__main__":
    print(mermaid())  # noqa: T201  this module's command-line face

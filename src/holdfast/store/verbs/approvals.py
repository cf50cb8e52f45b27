"""Verbs about what people are asked, and what they say."""

from __future__ import annotations

import msgspec

from holdfast import errors
from holdfast.models import ApprovalRecord, Lease
from holdfast.states import FINAL_ITEM
from holdfast.store.verb import Refused, Steps, run, verb
from holdfast.store.verbs.shared import (
    Append,
    appended,
    event,
    fence,
    lock_task,
    no_task,
    refresh_task,
    to_item,
)


class Asked(msgspec.Struct, frozen=True):
    """What a person is asked.

    Args:
        name: of what is to happen.
        scope: the branch that asks.
        digest: of the exact arguments.
        text: for people, redacted.
        expires_at: wall time in seconds until which the answer must come.
        supersedes: whether what the item asked under that name before doesn't count any more.
    """

    name: str
    scope: str
    digest: bytes
    text: str = ""
    expires_at: float | None = None
    supersedes: bool = False


@verb(witness=appended)
def request_approval(
    lease: Lease, append: Append, asked: Asked, now: float
) -> Steps[Refused | None]:
    """Record a request (the last entry) and put it before people, together."""
    refused = yield from fence(lease, append, "request_approval", now)
    if refused:
        return refused
    item = {"task_id": lease.task_id, "item_id": lease.item_id, "seq": append.after}
    if asked.supersedes:
        yield from run("approval.withdraw", **item, name=asked.name)
    yield from run(
        "approval.put",
        **item,
        name=asked.name,
        scope=asked.scope,
        digest=asked.digest,
        text=asked.text,
        expires_at=asked.expires_at,
        now=now,
    )
    yield from event(
        lease.task_id, lease.item_id, "approval_requested", now, entry=append.after,
        name=asked.name, text=asked.text, expires_at=asked.expires_at,
    )  # fmt: skip
    return None


@verb(witness=appended)
def use_approval(lease: Lease, append: Append, seq: int, now: float) -> Steps[Refused | None]:
    """Record what an approval releases and use the approval up, together.

    Raises:
        JournalError: it isn't approved (any more); nothing was recorded.
    """
    refused = yield from fence(lease, append, "use_approval", now)
    if refused:
        return refused
    yield from _take(lease, seq)
    return None


def use_approval_of(lease: Lease, seq: int | None) -> Steps[None]:
    """Use an approval up inside a verb, where one is needed."""
    if seq is not None:
        yield from _take(lease, seq)


def _take(lease: Lease, seq: int) -> Steps[None]:
    item = {"task_id": lease.task_id, "item_id": lease.item_id, "seq": seq}
    if not (yield from run("approval.use", **item)):
        raise _moved_on(lease, seq)


@verb(witness=appended)
def expire_approval(lease: Lease, append: Append, seq: int, now: float) -> Steps[Refused | None]:
    """Record that nobody said anything in time.

    Raises:
        JournalError: somebody did, just now; nothing was recorded.
    """
    yield from lock_task(lease.task_id)
    refused = yield from fence(lease, append, "expire_approval", now)
    if refused:
        return refused
    item = {"task_id": lease.task_id, "item_id": lease.item_id, "seq": seq}
    if not (yield from run("approval.expire", **item)):
        raise _moved_on(lease, seq)
    yield from event(lease.task_id, lease.item_id, "approval_expired", now, entry=seq)
    return None


def _moved_on(lease: Lease, seq: int) -> errors.JournalError:
    message = (
        f"The approval {lease.task_id}:{lease.item_id}:{seq} has changed meanwhile. Nothing was "
        f"recorded; the attempt looks again."
    )
    return errors.JournalError(message)


class Decision(msgspec.Struct, frozen=True):
    """What a person says. `status` is `approved` or `rejected`."""

    status: str
    by: str
    reason: str | None = None


@verb(wakes=True)
def decide_approval(
    task_id: str, item_id: str, seq: int, decision: Decision, now: float
) -> Steps[None]:
    """Record what a person says, and let the item go on that waits for it.

    Raises:
        UsageError: nobody asks for it (any more); nothing was changed.
    """
    yield from lock_task(task_id)
    named = {"task_id": task_id, "item_id": item_id, "seq": seq}
    rows = yield from run("approval.get", **named)
    items = yield from run("item.get", task_id=task_id, item_id=item_id)
    if not rows or not items:
        message = f"Entry {task_id}:{item_id}:{seq} asks for no approval; nothing was changed."
        raise errors.UsageError(message)
    item = to_item(items[0])
    why = _why_not(msgspec.convert(rows[0], ApprovalRecord, strict=False), now)
    if why is None and (item.status in FINAL_ITEM or item.cancel):
        why = f"its item is {'being canceled' if item.cancel else item.status}"
    if why is not None:
        message = (
            f"Approval {task_id}:{item_id}:{seq} can't be {decision.status}: {why}. Nothing was "
            f"changed."
        )
        raise errors.UsageError(message)
    yield from run(
        "approval.decide",
        **named,
        status=decision.status,
        decided_by=decision.by,
        reason=decision.reason,
        now=now,
    )
    yield from event(
        task_id, item_id, f"approval_{decision.status}", now, entry=seq, by=decision.by,
        reason=decision.reason,
    )  # fmt: skip
    yield from run("approval.wake", **named, now=now)
    yield from refresh_task(task_id, now)


def _why_not(found: ApprovalRecord, now: float) -> str | None:
    """Say why a request can't be answered any more; None where it can."""
    if found.status != "waiting":
        by = f" by {found.decided_by}" if found.decided_by else ""
        return f"it was {found.status} already{by}"
    if found.expires_at is not None and now >= found.expires_at:
        return "it has expired"
    return None


@verb()
def get_approval(task_id: str, item_id: str, seq: int) -> Steps[ApprovalRecord | None]:
    """Return a request, and what became of it."""
    rows = yield from run("approval.get", task_id=task_id, item_id=item_id, seq=seq)
    return msgspec.convert(rows[0], ApprovalRecord, strict=False) if rows else None


@verb()
def waiting_approvals(task_id: str | None = None) -> Steps[list[ApprovalRecord]]:
    """Return what people are asked now: everything, or by a task and what is below it."""
    if task_id is not None and not (yield from run("task.get", task_id=task_id)):
        raise no_task(task_id)
    rows = yield from run("approval.waiting", task_id=task_id)
    return [msgspec.convert(row, ApprovalRecord, strict=False) for row in rows]

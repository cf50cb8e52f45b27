"""Verbs about what a root task and everything below it may spend.

A call's reservation is part of what is spent, so one that nobody settles stays spent by itself.
Verbs that lock a budget do so before any item's row.
"""

from __future__ import annotations

import msgspec

from holdfast import errors
from holdfast.models import BudgetRecord, Lease
from holdfast.store.verb import Refused, Steps, run, verb
from holdfast.store.verbs.shared import Append, appended, event, fence, lock_task, refresh_task


class Charge(msgspec.Struct, frozen=True):
    """What a call takes of a budget.

    Args:
        root_id: the root task, whose budget it is.
        tokens: sent and received.
        nanos: billionths of a US dollar.
    """

    root_id: str
    tokens: int
    nanos: int


@verb()
def get_budget(root_id: str) -> Steps[BudgetRecord | None]:
    """Return the budget of a root task, and what is spent of it; None when it has none."""
    rows = yield from run("budget.get", task_id=root_id)
    return msgspec.convert(rows[0], BudgetRecord, strict=False) if rows else None


@verb(witness=appended, keeps=True)
def reserve_budget(
    lease: Lease, append: Append, charge: Charge, now: float
) -> Steps[bool | Refused]:
    """Record the intent of a call (the last entry) and reserve what it may take, together.

    Returns False when that much isn't left: then the intent is recorded and reserves nothing.
    """
    yield from run("budget.lock", task_id=charge.root_id)
    refused = yield from fence(lease, append, "reserve_budget", now)
    if refused:
        return refused
    amounts = {"task_id": charge.root_id, "tokens": charge.tokens, "nanos": charge.nanos}
    if not (yield from run("budget.reserve", **amounts)):
        return False
    yield from run("reservation.put", **amounts, entry=_entry(lease, append.after))
    return True


@verb(wakes=True, witness=appended, keeps=True)
def settle_budget(  # noqa: PLR0917  the facts of one outcome
    lease: Lease,
    append: Append,
    root_id: str,
    seq: int,
    tokens: int | None,
    nanos: int | None,
    now: float,
) -> Steps[Refused | None]:
    """Record the outcome of the call `seq` and what it took; what isn't known stays reserved.

    What is left over wakes whoever waits for it.
    """
    yield from run("budget.lock", task_id=root_id)
    refused = yield from fence(lease, append, "settle_budget", now)
    if refused:
        return refused
    rows = yield from run("reservation.take", task_id=root_id, entry=_entry(lease, seq))
    for reserved_tokens, reserved_nanos in rows:
        more_tokens = 0 if tokens is None else tokens - reserved_tokens
        more_nanos = 0 if nanos is None else nanos - reserved_nanos
        yield from run("budget.correct", task_id=root_id, tokens=more_tokens, nanos=more_nanos)
        if more_tokens < 0 or more_nanos < 0:
            yield from _wake_waiters(root_id, now)
    return None


@verb(wakes=True)
def add_to_budget(root_id: str, tokens: int, nanos: int, now: float) -> Steps[None]:
    """Raise the limits of a budget and wake whoever waits for it.

    Raises:
        UsageError: there is no such limit to raise.
    """
    yield from run("budget.lock", task_id=root_id)
    if not (yield from run("budget.add", task_id=root_id, tokens=tokens, nanos=nanos)):
        message = (
            f"Task {root_id} has no such limit, so nothing was added: `holdfast budget {root_id}` "
            f"shows what it has. A task's budget is given when it is submitted."
        )
        raise errors.UsageError(message, task_id=root_id)
    yield from event(root_id, None, "budget_added", now, tokens=tokens, cost=nanos / 1e9)
    yield from _wake_waiters(root_id, now)


def _wake_waiters(root_id: str, now: float) -> Steps[None]:
    for (task_id,) in (yield from run("budget.waiters", task_id=root_id)):
        yield from lock_task(task_id)
        yield from run("budget.wake", task_id=task_id, now=now)
        yield from refresh_task(task_id, now)


def _entry(lease: Lease, seq: int) -> str:
    return f"{lease.task_id}:{lease.item_id}:{seq}"

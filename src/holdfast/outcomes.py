"""How an attempt can end, as values, and what each end records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.branches import (
    ApprovalNeed,
    BudgetNeed,
    ChildNeed,
    DoubtNeed,
    Need,
    QuotaNeed,
    SignalNeed,
    TimerNeed,
)
from holdfast.entries import Draft, marker
from holdfast.failures import failed_entries
from holdfast.redaction import redact
from holdfast.states import ItemStatus, MarkerKind
from holdfast.store.verbs import Charge, Parked


class Returned(msgspec.Struct, frozen=True):
    """The handler returned."""

    value: Any


class Raised(msgspec.Struct, frozen=True):
    """The handler raised."""

    error: BaseException


class Suspended(msgspec.Struct, frozen=True):
    """Every branch of the handler waits."""

    needs: tuple[Need, ...]


class Stopped(msgspec.Struct, frozen=True):
    """The handler was stopped from outside: `canceled`, `drained` or `lost`."""

    why: str


Outcome = Returned | Raised | Suspended | Stopped


def describe(error: BaseException) -> str:
    """Return an exception as one redacted line for people."""
    return f"{type(error).__name__}: {redact(str(error)) or 'no message'}"


def parked_for(needs: tuple[Need, ...]) -> Parked:
    """Return how an item is parked whose branches wait for these."""
    signals = tuple(need.name for need in needs if isinstance(need, SignalNeed))
    children = tuple(need.task_id for need in needs if isinstance(need, ChildNeed))
    doubts = [need for need in needs if isinstance(need, DoubtNeed)]
    approvals = [need for need in needs if isinstance(need, ApprovalNeed)]
    budgets = [need for need in needs if isinstance(need, BudgetNeed)]
    quotas = [need for need in needs if isinstance(need, QuotaNeed)]
    timers = _wakes(need for need in needs if isinstance(need, TimerNeed | SignalNeed))
    # The first that there is. Whatever else it waits for is in the lists.
    kinds = (
        ("timer", timers),
        ("quota", quotas),
        ("signal", signals),
        ("child", children),
        ("approval", approvals),
        ("budget", budgets),
    )
    kind = next((name for name, present in kinds if present), "doubt")
    wait = {
        "kind": kind,
        "signals": signals,
        "children": children,
        "doubts": [need.entry for need in doubts],
        "approvals": [need.seq for need in approvals],
        "budget": budgets[0].root_id if budgets else None,
    }
    texts = [need.text for need in (*doubts, *approvals, *budgets, *quotas)]
    return Parked(
        ItemStatus.IN_DOUBT if kind == "doubt" else ItemStatus.WAITING,
        wait=msgspec.json.encode(wait).decode(),
        wake_at=min((*timers, *_wakes(quotas), *_wakes(approvals)), default=None),
        error="; ".join(dict.fromkeys(texts)) or None,
        signals=signals,
        children=children,
        approvals=tuple(need.seq for need in approvals),
        charges=tuple(Charge(need.root_id, need.tokens, need.nanos) for need in budgets),
    )


def _wakes(needs: Iterable[TimerNeed | SignalNeed | QuotaNeed | ApprovalNeed]) -> list[float]:
    return [need.wake_at for need in needs if need.wake_at is not None]


def retry_markers(error: BaseException) -> list[Draft]:
    """Mark the recorded failures that ended the attempt, so that a retry makes the calls anew."""
    return [marker(MarkerKind.RETRY, ref=seq) for seq in dict.fromkeys(failed_entries(error))]

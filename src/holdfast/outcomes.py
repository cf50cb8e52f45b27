"""How an attempt can end, as values, and what each end records."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.branches import ChildNeed, DoubtNeed, Need, SignalNeed, TimerNeed
from holdfast.entries import Draft, marker
from holdfast.failures import failed_entries
from holdfast.redaction import redact
from holdfast.states import ItemStatus, MarkerKind
from holdfast.store.verbs import Parked


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
    timers = [
        need.wake_at
        for need in needs
        if isinstance(need, TimerNeed | SignalNeed) and need.wake_at is not None
    ]
    kind = "timer" if timers else "signal" if signals else "child" if children else "doubt"
    wait = {
        "kind": kind,
        "signals": signals,
        "children": children,
        "doubts": [need.entry for need in doubts],
    }
    return Parked(
        ItemStatus.IN_DOUBT if kind == "doubt" else ItemStatus.WAITING,
        wait=msgspec.json.encode(wait).decode(),
        wake_at=min(timers, default=None),
        error="; ".join(need.text for need in doubts) or None,
        signals=signals,
        children=children,
    )


def retry_markers(error: BaseException) -> list[Draft]:
    """Mark the recorded failures that ended the attempt, so that a retry makes the calls anew."""
    return [marker(MarkerKind.RETRY, ref=seq) for seq in dict.fromkeys(failed_entries(error))]

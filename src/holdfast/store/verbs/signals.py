"""Verbs about a task's mailbox and its timeline."""

from __future__ import annotations

import msgspec

from holdfast.models import Event
from holdfast.store.payload import Payload, keep_blob
from holdfast.store.verb import Steps, run, verb
from holdfast.store.verbs.shared import event, lock_task, refresh_task


@verb(wakes=True)
def send_signal(
    task_id: str, signal_id: str, name: str, payload: Payload, now: float
) -> Steps[None]:
    """Put a signal into the task's mailbox and wake whoever waits for one of that name."""
    yield from lock_task(task_id)
    yield from keep_blob(task_id, payload)
    yield from run(
        "signal.put",
        task_id=task_id,
        signal_id=signal_id,
        name=name,
        payload=payload.column,
        now=now,
    )
    yield from event(task_id, None, "signal_sent", now, name=name)
    yield from run("signal.wake", task_id=task_id, name=name, now=now)
    yield from refresh_task(task_id, now)


@verb()
def peek_signal(task_id: str, name: str) -> Steps[tuple[str, bytes] | None]:
    """Return (id, payload column) of the oldest signal of that name nobody took."""
    rows = yield from run("signal.peek", task_id=task_id, name=name)
    return (rows[0][0], rows[0][1]) if rows else None


@verb()
def list_events(task_id: str, after: str = "") -> Steps[list[Event]]:
    """Return a task's timeline, oldest first, from behind the event of that id."""
    rows = yield from run("event.list", task_id=task_id, after=after)
    return [msgspec.convert(row, Event, strict=False) for row in rows]


@verb(keeps=True)
def add_event(
    task_id: str, item_id: str | None, kind: str, data: dict[str, object], now: float
) -> Steps[None]:
    """Add a line to a task's timeline."""
    yield from event(task_id, item_id, kind, now, **data)

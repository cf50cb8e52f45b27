"""`workers`: who works, where, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.cli.output import moment, table
from holdfast.cli.session import Session, command
from holdfast.models import WorkerRecord
from holdfast.store import verbs
from holdfast.store.verbs import RunningItem

_SHOWN = 2
"""Items of a worker that a person sees; the rest are counted."""


@command("workers")
def workers_command(session: Session) -> None:
    """List workers: where they run and what they execute.

    A worker is `alive` or `draining`; `dead` if its process is seen to have ended and nobody has
    taken back yet what it held.
    """
    with session.store() as store:
        running = store.read(verbs.list_running())
        found = [
            _document(
                each,
                [item for item in running if item.worker_id == each.worker_id],
                alive=store.engine.alive(each),
            )
            for each in store.read(verbs.list_workers())
        ]
    headers = ("worker", "status", "host", "pid", "version", "seen (UTC)", "executes")
    rows = [
        (each["worker_id"], each["status"], each["host"], str(each["pid"]), each["version"],
         moment(each["seen_at"]), _names(each["items"]))
        for each in found
    ]  # fmt: skip
    session.output.answer(found, table(headers, rows) if rows else ["No workers."])


def _document(
    worker: WorkerRecord, items: Sequence[RunningItem], *, alive: bool | None
) -> dict[str, Any]:
    return {
        "worker_id": worker.worker_id,
        "status": "dead" if alive is False else worker.status,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "lease": worker.lease,
        "started_at": worker.started_at,
        "seen_at": worker.seen_at,
        "items": [
            {"task_id": item.task_id, "item_id": item.item_id, "handler": item.handler,
             "queue": item.queue, "attempt": item.attempt}
            for item in items
        ],
    }  # fmt: skip


def _names(items: Sequence[dict[str, str]]) -> str:
    shown = [f"{item['handler']} {item['task_id']}:{item['item_id']}" for item in items[:_SHOWN]]
    rest = len(items) - _SHOWN
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")

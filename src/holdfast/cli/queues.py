"""`queues` and `queue`: what waits where, and how much of it may run."""

from __future__ import annotations

import re

import click

from holdfast import errors, operations
from holdfast.cli.output import duration, table
from holdfast.cli.plain import clean
from holdfast.cli.session import Session, command
from holdfast.store import Store, verbs
from holdfast.store.verbs import QueueRecord

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@command("queues")
def queues_command(session: Session) -> None:
    """List queues: limits, what runs, what is ready and how long.

    A queue is listed when it is limited, or when something in it is ready or runs.
    """
    with session.store() as store:
        found = store.read(verbs.list_queues())
        now = store.now()
    rows = [
        (each.name, str(each.running), str(each.ready), _waits(each, now), limits(each))
        for each in found
    ]
    headers = ("queue", "running", "ready", "oldest waits", "limits")
    lines = table(headers, rows) if rows else ["No queue is limited, and nothing is ready or runs."]
    session.output.answer([_document(each, now) for each in found], lines)


def _waits(queue: QueueRecord, now: float) -> str:
    return "" if queue.oldest is None else duration(max(0.0, now - queue.oldest))


def _document(queue: QueueRecord, now: float) -> dict[str, object]:
    oldest = None if queue.oldest is None else max(0.0, now - queue.oldest)
    return {
        "queue": queue.name,
        "running": queue.running,
        "ready": queue.ready,
        "oldest_waits_seconds": oldest,
        "limit_running": queue.limit_running,
        "limit_rate": queue.limit_rate,
        "limit_per_seconds": queue.limit_per if queue.limit_rate is not None else None,
    }


def limits(queue: QueueRecord) -> str:
    """Return a queue's limits for people."""
    parts: list[str] = []
    if queue.limit_running is not None:
        parts.append(f"{queue.limit_running} running")
    if queue.limit_rate is not None:
        parts.append(f"{queue.limit_rate} starts in {queue.limit_per:g} s")
    return ", ".join(parts) or "none"


@command("queue")
@click.argument("name", metavar="NAME")
@click.option(
    "--running",
    type=click.IntRange(0),
    metavar="N",
    help="Work items that may run at once, on all machines; 0 holds the queue.",
)
@click.option(
    "--rate", metavar="N/UNIT", help="Starts in any such time: 10/s, 100/m, 5/h, 1/10m, 50/d."
)
@click.option("--unlimited", is_flag=True, help="Lift the limits that aren't given.")
def queue_command(
    session: Session, name: str, running: int | None, rate: str | None, *, unlimited: bool
) -> None:  # fmt: skip
    """Limit a queue, for all workers on all machines.

    Without an option it shows the queue. A limit that isn't given stays as it is. It counts from
    the next claim on; what runs goes on. An item that waits doesn't run, and holds no place.
    """
    starts, per = (None, 1.0) if rate is None else parse_rate(rate)
    with session.store() as store:
        if running is not None or starts is not None or unlimited:
            before = _queue(store, name)
            if not unlimited:
                running = before.limit_running if running is None else running
                if starts is None and before.limit_rate is not None:
                    starts, per = before.limit_rate, before.limit_per or 1.0
            session.run(operations.limit_queue(store, name, running=running, rate=starts, per=per))
        found = _queue(store, name)
        now = store.now()
    text = f"Queue {name}: {found.running} running, {found.ready} ready; limits: {limits(found)}."
    session.output.answer(_document(found, now), [clean(text)])


def _queue(store: Store, name: str) -> QueueRecord:
    nothing = QueueRecord(name, None, None, None, 0, 0, None)
    return next((each for each in store.read(verbs.list_queues()) if each.name == name), nothing)


def parse_rate(text: str) -> tuple[int, float]:
    """Return how many starts in how many seconds `10/s`, `100/m` or `1/10m` means.

    Raises:
        UsageError: it means nothing.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})?([smhd])", text)
    if found is None or int(found[1]) == 0 or (found[2] is not None and int(found[2]) == 0):
        message = f"{text!r} is no rate. Use so many per second, minute, hour or day: 10/s, 100/m."
        raise errors.UsageError(message)
    return int(found[1]), int(found[2] or 1) * _UNITS[found[3]]

"""Verbs about queues: how many of their items may run at once, and how many may start in a while.

Limits are kept in the transaction of the claim. A claim keeps the rows of the limited queues it
takes from, so that no other counts at the same time; it passes by those that another one keeps. A
queue without a limit has no row, and nobody waits for anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from holdfast.store.verb import Rows, Steps, run, verb


class QueueLimit(msgspec.Struct, frozen=True, array_like=True):
    """What a queue allows, as it is recorded.

    Args:
        name: of the queue.
        running: items that may run at once; None: any number.
        rate: items that may start within `per` seconds; None: any number.
        per: seconds.
        starts: how many have started since it has a rate.
    """

    name: str
    running: int | None
    rate: int | None
    per: float
    starts: int


class QueueRecord(msgspec.Struct, frozen=True, array_like=True):
    """A queue as it stands now.

    Args:
        name: of the queue.
        limit_running: items that may run at once; None: any number.
        limit_rate: items that may start within `limit_per` seconds; None: any number.
        limit_per: seconds.
        ready: items that could run.
        running: items that do.
        oldest: since when the longest waiting of the ready ones waits, wall time in seconds.
    """

    name: str
    limit_running: int | None
    limit_rate: int | None
    limit_per: float | None
    ready: int
    running: int
    oldest: float | None


class Places(msgspec.Struct, frozen=True):
    """What the limited queues have room for while one claim is under way.

    Args:
        room: how many more items may start, by queue; a queue that isn't named has no limit.
        kept: the queues that this transaction has to itself.
    """

    room: Mapping[str, int] = {}
    kept: tuple[QueueLimit, ...] = ()

    def of(self, queue: str, wanted: int) -> int:
        """Return how many of `wanted` items of a queue may start."""
        return min(wanted, self.room.get(queue, wanted))


def keep_places(limited: Sequence[str], wanted: int, now: float) -> Steps[Places]:
    """Have limited queues to this transaction alone, and count what they have room for.

    Those that another claim has at this moment have none.
    """
    rows = yield from run("queue.hold", queues=msgspec.json.encode(limited).decode())
    return (yield from _places(rows, dict.fromkeys(limited, 0), wanted, now))


def keep_place_of_item(task_id: str, item_id: str, now: float) -> Steps[Places]:
    """Do the same for the queue of one item, waiting until no other claim has it."""
    rows = yield from run("queue.hold_of_item", task_id=task_id, item_id=item_id)
    return (yield from _places(rows, {}, 1, now))


def _places(rows: Rows, room: dict[str, int], wanted: int, now: float) -> Steps[Places]:
    kept = tuple(msgspec.convert(row, QueueLimit) for row in rows)
    for limit in kept:
        room[limit.name] = yield from _room(limit, wanted, now)
    return Places(room, kept)


def _room(limit: QueueLimit, wanted: int, now: float) -> Steps[int]:
    """Count: the n-th start after the last has to be `per` seconds after the one `rate` before."""
    many, after = wanted, limit.starts
    if limit.rate is not None:
        many, after = min(wanted, limit.rate), limit.starts - limit.rate
    rows = yield from run(
        "queue.room", queue=limit.name, after=after, until=after + many, per=limit.per, now=now
    )
    running, young = rows[0]
    room = many - young
    return max(0, room if limit.running is None else min(room, limit.running - running))


def count_starts(places: Places, queues: Sequence[str], now: float) -> Steps[None]:
    """Remember when items of these queues started, where there is a rate."""
    started = Counter(queues)
    for limit in places.kept:
        if limit.rate is None or not started[limit.name]:
            continue
        last = limit.starts + started[limit.name]
        for number in range(limit.starts + 1, last + 1):
            yield from run("queue.put_start", queue=limit.name, number=number, now=now)
        yield from run("queue.set_starts", queue=limit.name, number=last)
        yield from run("queue.forget_starts", queue=limit.name, until=last - limit.rate)


@verb(wakes=True)
def limit_queue(name: str, running: int | None, rate: int | None, per: float) -> Steps[None]:
    """Set what a queue allows, for every claim that begins afterwards; what runs goes on."""
    yield from run("queue.limit", queue=name, running=running, rate=rate, per=per)
    yield from run("queue.drop_unlimited", queue=name)
    yield from run("queue.drop_starts", queue=name)


@verb()
def list_queues() -> Steps[list[QueueRecord]]:
    """Return every queue that is limited or has something ready or running, by name."""
    rows = yield from run("queue.list")
    return [msgspec.convert(row, QueueRecord, strict=False) for row in rows]

"""Verbs about schedules: tasks that are submitted when a clock says so."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.store.verb import Steps, run, verb
from holdfast.store.verbs.tasks import NewTask, Submitted, insert_task


class NewSchedule(msgspec.Struct, frozen=True):
    """A schedule as a program declares it.

    Args:
        name: of the schedule.
        task: the name of the task's function.
        input: its arguments, packed.
        cron: when, as a cron expression.
        timezone: where that is the time of day.
        options: how the task is submitted, encoded.
    """

    name: str
    task: str
    input: bytes
    cron: str
    timezone: str
    options: bytes


class ScheduleRecord(msgspec.Struct, frozen=True, array_like=True):
    """A schedule as it is recorded. Times are wall time in seconds."""

    name: str
    task: str
    input: bytes
    cron: str
    timezone: str
    next_at: float
    last_at: float | None
    options: bytes | None
    paused: bool
    last_task: str | None


@verb()
def put_schedules(schedules: Sequence[tuple[NewSchedule, float]]) -> Steps[None]:
    """Record schedules, each with the time it is due first.

    One that is there keeps its next time unless its cron expression or time zone changed.
    """
    for new, next_at in sorted(schedules, key=lambda pair: pair[0].name):
        yield from run("schedule.put", **msgspec.structs.asdict(new), next_at=next_at)


@verb()
def coming_schedules(names: Sequence[str], now: float) -> Steps[list[tuple[ScheduleRecord, float]]]:
    """Return those of the named schedules that aren't paused, and in how many seconds each is due.

    What is overdue comes first. The database's clock decides where it has one.
    """
    listed = msgspec.json.encode(tuple(names)).decode()
    rows = yield from run("schedule.coming", names=listed, now=now)
    return [(_record(row[:-1]), row[-1]) for row in rows]


@verb(wakes=True)
def fire_schedule(
    due: ScheduleRecord, next_at: float, new: NewTask, now: float
) -> Steps[Submitted | None]:
    """Submit the task that is due and say when the next one is, in one transaction.

    None, and nothing is done, when another worker has done it or the schedule was changed.
    """
    rows = yield from run(
        "schedule.advance",
        name=due.name,
        cron=due.cron,
        timezone=due.timezone,
        due_at=due.next_at,
        next_at=next_at,
    )
    if not rows:
        return None
    submitted = yield from insert_task(new, now)
    yield from run("schedule.set_last_task", name=due.name, task_id=submitted.task.task_id)
    return submitted


@verb()
def list_schedules() -> Steps[list[ScheduleRecord]]:
    """Return every schedule, by name."""
    rows = yield from run("schedule.list")
    return [_record(row) for row in rows]


@verb()
def set_schedule(name: str, next_at: float, *, paused: bool) -> Steps[None]:
    """Pause a schedule or let it go on, and say when it is due next."""
    yield from run("schedule.set", name=name, next_at=next_at, paused=int(paused))


@verb()
def remove_schedule(name: str) -> Steps[None]:
    """Forget a schedule. The tasks that it submitted stay."""
    yield from run("schedule.remove", name=name)


def _record(row: Sequence[object]) -> ScheduleRecord:
    return msgspec.convert(row, ScheduleRecord, strict=False)

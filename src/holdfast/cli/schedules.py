"""`schedules` and `schedule`: what is due when."""

from __future__ import annotations

import click

from holdfast import errors, operations
from holdfast.cli.output import moment, table
from holdfast.cli.plain import clean
from holdfast.cli.session import Session, command
from holdfast.operations import ScheduleChange
from holdfast.store import Store, verbs
from holdfast.store.verbs import ScheduleRecord


@command("schedules")
def schedules_command(session: Session) -> None:
    """List schedules: when each is due, and what it did last."""
    with session.store() as store:
        found = store.read(verbs.list_schedules())
    rows = [
        (each.name, each.task, f"{each.cron} {each.timezone}", _next(each),
         moment(each.last_at), each.last_task or "")
        for each in found
    ]  # fmt: skip
    headers = ("schedule", "name", "times", "next (UTC)", "last (UTC)", "last task")
    lines = table(headers, rows) if rows else ["No schedules."]
    session.output.answer([_document(each) for each in found], lines)


def _next(schedule: ScheduleRecord) -> str:
    return "paused" if schedule.paused else moment(schedule.next_at)


def _document(schedule: ScheduleRecord) -> dict[str, object]:
    return {
        "schedule": schedule.name,
        "name": schedule.task,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "paused": schedule.paused,
        "next_at": None if schedule.paused else schedule.next_at,
        "last_at": schedule.last_at,
        "last_task": schedule.last_task,
    }


@command("schedule")
@click.argument("name", metavar="NAME")
@click.option("--pause", is_flag=True, help="Nothing is due any more.")
@click.option("--resume", is_flag=True, help="Go on with the next time; nothing is made up for.")
@click.option("--run-now", is_flag=True, help="Be due now, beside its times.")
@click.option("--remove", is_flag=True, help="Forget it; a program that declares it adds it again.")
def schedule_command(
    session: Session, name: str, *, pause: bool, resume: bool, run_now: bool, remove: bool
) -> None:  # fmt: skip
    """Pause a schedule, let it go on or run now, or remove it.

    Without an option it shows the schedule. A worker of the program that declares it submits its
    task, within a second or so.
    """
    chosen: list[ScheduleChange] = []
    if pause:
        chosen.append("pause")
    if resume:
        chosen.append("resume")
    if run_now:
        chosen.append("run")
    if remove:
        chosen.append("remove")
    if len(chosen) > 1:
        message = "Use one of --pause, --resume, --run-now and --remove at a time."
        raise errors.UsageError(message)
    with session.store() as store:
        for how in chosen:
            session.run(operations.change_schedule(store, name, how))
        found = None if remove else _schedule(store, name)
    if found is None:
        session.output.answer({"schedule": name, "removed": True}, [clean(f"{name} is removed.")])
        return
    state = f"due {_next(found)} UTC" if not found.paused else "paused"
    text = f"Schedule {name} of {found.task}: {found.cron} {found.timezone}, {state}."
    session.output.answer(_document(found), [clean(text)])


def _schedule(store: Store, name: str) -> ScheduleRecord:
    found = [each for each in store.read(verbs.list_schedules()) if each.name == name]
    if not found:
        message = f"No schedule is named {name!r}. `holdfast schedules` lists what there is."
        raise errors.UsageError(message)
    return found[0]

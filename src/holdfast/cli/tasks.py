"""`tasks`: what there is."""

from __future__ import annotations

import click

from holdfast.cli.output import moment, table
from holdfast.cli.plain import one_line
from holdfast.cli.session import Session, command
from holdfast.models import Task
from holdfast.states import TaskStatus
from holdfast.store import verbs


@command("tasks")
@click.option(
    "--status",
    type=click.Choice([each.value for each in TaskStatus]),
    help="Only those of one status.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=20,
    show_default=True,
    metavar="N",
    help="How many at most.",
)
def tasks_command(session: Session, status: str | None, limit: int) -> None:  # fmt: skip
    """List tasks, the newest first."""
    with session.store() as store:
        found = store.read(verbs.list_tasks(status, limit))
    rows = [
        (task.task_id, task.status.value, task.name, moment(task.created_at), _remark(task))
        for task in found
    ]
    lines = table(("task", "status", "name", "created (UTC)", ""), rows) if rows else ["No tasks."]
    session.output.answer([summary(task) for task in found], lines)


def summary(task: Task) -> dict[str, object]:
    """Return what a listing says about a task."""
    return {
        "task_id": task.task_id,
        "name": task.name,
        "status": task.status,
        "key": task.key,
        "parent_id": task.parent_id,
        "queue": task.queue,
        "priority": task.priority,
        "error": task.error,
        "forked_from": task.forked_from,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "finished_at": task.finished_at,
    }


def _remark(task: Task) -> str:
    if task.error:
        return one_line(task.error)[:100]
    if task.parent_id:
        return f"child of {task.parent_id}"
    return f"fork of {task.forked_from}" if task.forked_from else ""

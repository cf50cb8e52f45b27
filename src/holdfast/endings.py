"""How a task ended without success, as the error that says so."""

from __future__ import annotations

from holdfast import errors
from holdfast.models import Task
from holdfast.states import ItemStatus, TaskStatus
from holdfast.store import Store, verbs


def failed_error(store: Store, task: Task, message: str) -> errors.TaskFailedError:
    """Return the error for a task that failed, with what its first failed item raised."""
    items = store.read(verbs.list_items(task.task_id))
    failed = [item for item in items if item.status is ItemStatus.FAILED]
    first = min(failed, key=lambda item: item.position, default=None)
    return errors.TaskFailedError(
        message,
        task_id=task.task_id,
        item_id=None if first is None else first.item_id,
        error_type=None if first is None else (first.error or "").partition(":")[0] or None,
    )


def child_error(store: Store, task: Task) -> errors.TaskError | None:
    """Return the error of a child that ended without success."""
    if task.status is TaskStatus.FAILED:
        message = f"Child task {task.task_id} ({task.name}) failed: {task.error}"
        return failed_error(store, task, message)
    if task.status is TaskStatus.CANCELED:
        message = f"Child task {task.task_id} ({task.name}) was canceled."
        return errors.TaskCanceledError(message, task_id=task.task_id)
    return None

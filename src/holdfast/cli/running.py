"""`run`, `submit` and `resume`: tasks of an application."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import click

from holdfast.cli.application import application
from holdfast.cli.arguments import fit, parse_arguments
from holdfast.cli.following import with_progress
from holdfast.cli.output import text_of
from holdfast.cli.session import Session, command
from holdfast.cli.waiting import Stopped, run_until_signal
from holdfast.operations import find_task
from holdfast.runner import TaskRunner
from holdfast.submitting import Submitter

_app = click.argument("app", metavar="APP")
_task = click.argument("task", metavar="TASK")


def _task_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--priority", type=click.IntRange(-1000, 1000), default=0, metavar="N",
                     help="Higher is executed earlier; a point is worth a minute of waiting."),
        click.option("--queue", metavar="NAME", help="Which workers may execute it."),
        click.option("--key", metavar="TEXT", help="Names the task: one key is one task."),
        click.option("--args", "together", metavar="JSON", help="All arguments, as an object."),
        click.option("--arg", "single", metavar="NAME=JSON", multiple=True,
                     help="One argument; may be given several times."),
    ):  # fmt: skip
        function = option(function)
    return function


@command("run")
@_app
@_task
@_task_options
def run_command(
    session: Session,
    app: str,
    task: str,
    together: str | None,
    single: Sequence[str],
    **options: Any,
) -> int:
    """Run a task here to its end, or go on with it.

    TASK is the name of a task function of APP. The function and its arguments (or --key) name the
    task: run the same command again after a crash, and it goes on. The result is printed to
    stdout, progress to stderr. Ctrl-C hands back what runs.
    """
    with application(session, app) as runner:
        handler = runner.handlers.get(task)
        arguments = fit(handler, parse_arguments(together, single))
        submitter = _submitter(runner, options)

        async def run() -> tuple[str, Any]:
            handle = await submitter.aensure(handler, **arguments)
            return handle.task_id, await _drive(session, runner, handle.task_id, runner.drive)

        return _to_the_end(session, run)


@command("submit")
@_app
@_task
@_task_options
def submit_command(
    session: Session,
    app: str,
    task: str,
    together: str | None,
    single: Sequence[str],
    **options: Any,
) -> None:
    """Record a task for workers to execute, and print its id.

    TASK is the name of a task function of APP. It is a new task each time, unless --key names it.
    """
    with application(session, app) as runner:
        handler = runner.handlers.get(task)
        arguments = fit(handler, parse_arguments(together, single))
        handle = _submitter(runner, options).submit(handler, **arguments)
        recorded = handle.task
    document = {"task_id": handle.task_id, "name": recorded.name, "status": recorded.status}
    session.output.answer(document, [handle.task_id])


@command("resume")
@_app
@_task
def resume_command(session: Session, app: str, task: str) -> int:
    """Check a task's evidence again and run it to its end here.

    Items whose evidence no longer holds are run again, with what depends on them.
    """
    with application(session, app) as runner:
        task_id = find_task(runner.store, task).task_id

        async def run() -> tuple[str, Any]:
            return task_id, await _drive(session, runner, task_id, runner.aresume)

        return _to_the_end(session, run)


def _submitter(runner: TaskRunner, options: dict[str, Any]) -> Submitter:
    return runner.options(**options)


async def _drive(
    session: Session,
    runner: TaskRunner,
    task_id: str,
    how: Callable[[str], Coroutine[Any, Any, Any]],
) -> Any:  # noqa: ANN401  the task's result
    session.output.note(f"task {task_id}")
    return await with_progress(session.output, runner.store, task_id, lambda: how(task_id))


def _to_the_end(session: Session, run: Callable[[], Coroutine[Any, Any, tuple[str, Any]]]) -> int:
    try:
        task_id, result = run_until_signal(run)
    except Stopped as stopped:
        session.output.note("Stopped; what ran was handed back. The same command goes on.")
        return stopped.code
    _print_result(session, task_id, result)
    return 0


def _print_result(session: Session, task_id: str, result: object) -> None:
    document = {"task_id": task_id, "status": "succeeded", "result": result}
    session.output.answer(document, [] if result is None else [text_of(result)])

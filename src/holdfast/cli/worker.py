"""`worker`: executes tasks until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from contextlib import suppress

import click

from holdfast import errors
from holdfast.cli.application import application
from holdfast.cli.plain import clean
from holdfast.cli.session import Session, command
from holdfast.cli.waiting import catch_signals
from holdfast.runner import TaskRunner
from holdfast.store import verbs
from holdfast.worker import Worker

_SERVED = "default"


@command("worker")
@click.argument("app", metavar="APP")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Work items at a time; the application's own setting if not given.",
)
@click.option("--queues", default=_SERVED, show_default=True, metavar="A,B", help="Which to serve.")
@click.option(
    "--lease",
    type=float,
    metavar="S",
    help="Seconds without a sign of life after which others take over.",
)
@click.option(
    "--grace",
    type=float,
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds that what runs has to end after a signal; then it is handed back.",
)
def worker_command(
    session: Session,
    app: str,
    *,
    concurrency: int | None,
    queues: str,
    lease: float | None,
    grace: float,
) -> int:  # fmt: skip
    """Execute tasks until told to stop.

    At SIGTERM or Ctrl-C it claims nothing more and lets what runs end within --grace; the rest is
    handed back for others to go on with. A second signal ends it at once, which loses nothing
    that was recorded. It exits with 0 after SIGTERM and 130 after Ctrl-C.
    """
    served = tuple(name for each in queues.split(",") if (name := each.strip()))
    if not served:
        message = "--queues names no queue."
        raise errors.UsageError(message)
    _require_seconds("--lease", lease, least=0.1)
    _require_seconds("--grace", grace, least=0.0)
    logging.basicConfig(level=logging.WARNING, handlers=[_Handler(session)])
    with application(session, app) as runner:
        runner.use(lease=lease)
        worker = runner.new_worker(queues=served, concurrency=concurrency)
        number = asyncio.run(_work(session, runner, worker, served, grace))
    return 128 + number if number == signal.SIGINT else 0


def _require_seconds(name: str, value: float | None, least: float) -> None:
    if value is not None and not (math.isfinite(value) and value >= least):
        message = f"{name} takes seconds, at least {least:g}, not {value}."
        raise errors.UsageError(message)


async def _work(
    session: Session, runner: TaskRunner, worker: Worker, queues: tuple[str, ...], grace: float
) -> int:
    """Work until a signal comes; returns its number."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[int] = loop.create_future()
    catch_signals(received.set_result)
    await worker.start()
    worker_id = worker.worker_id or ""
    handlers = runner.handlers.names
    _tell(session, "started", worker_id, f"executes {', '.join(handlers) or 'nothing'}",
          handlers=handlers, queues=queues)  # fmt: skip
    number = await received
    _tell(session, "stopping", worker_id, f"lets what runs end, for up to {grace:g} s",
          signal=signal.Signals(number).name)  # fmt: skip
    store = runner.store
    with suppress(errors.StoreError):  # it is only for people to see; the stop goes on
        await store.commit(verbs.drain_worker(worker_id, store.now()))
    await worker.stop(grace)
    _tell(session, "stopped", worker_id, "stopped; what hadn't ended was handed back")
    return number


def _tell(session: Session, event: str, worker_id: str, text: str, **facts: object) -> None:
    if session.output.json:
        session.output.document({"event": event, "worker_id": worker_id, **facts})
    else:
        session.output.note(f"worker {worker_id} {text}")


class _Handler(logging.Handler):
    """Shows warnings on stderr, one line each; their tracebacks only for debugging."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._json = session.output.json

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text = f"{text}: {type(error).__name__}: {error}"
        click.echo(clean(text), err=True)

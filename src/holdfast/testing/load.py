"""The work that is under way while servers and workers are killed: letters, each sent once.

`holdfast worker holdfast.testing.load:runner` executes it. What it does to the world, and what a
call told it is recorded, goes to files in the directory that `HOLDFAST_TEST_FOLDER` names.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from holdfast.clock import SystemClock
from holdfast.context import Context
from holdfast.models import Task, WorkItem
from holdfast.runner import TaskRunner
from holdfast.tool import Done, NotDone, Reconciled, Tool, idempotency_key

FOLDER = "HOLDFAST_TEST_FOLDER"
"""The environment variable that names the directory."""

OUTBOX = "outbox.jsonl"
"""What the `once` tools sent."""
ACKNOWLEDGED = "acknowledged.jsonl"
"""What calls returned to handlers: all of it must be in the journal at the end."""
PULSES = "pulses.jsonl"
"""That handlers run, whatever the database does."""
SAID = "said.jsonl"
"""What the workers said in their logs."""

LETTERS = "letters"
"""A task whose calls can be reconciled, by looking into the outbox."""
NOTICES = "notices"
"""A task whose calls can't: one in doubt needs a person."""

_TAKES = 0.01  # seconds of the shortest calls, before and after their effect
_MANY = 1_000_000
_SLOW = 100  # one item in so many takes its time
_PULSE = 0.05
_PULSES = 100

_CLOCK = SystemClock()


class Notes:
    """Files outside the database, to which each line is appended by one `write`.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, file: str, what: object, **facts: Any) -> None:
        """Append a line, with which process wrote it, and when by the boot clock."""
        line = {"what": what, "pid": os.getpid(), "at": _CLOCK.boottime(), **facts}
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self.folder / file, flags, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(line) + b"\n")
        finally:
            os.close(descriptor)

    def lines(self, file: str) -> list[dict[str, Any]]:
        """Return the lines of a file, oldest first."""
        path = self.folder / file
        if not path.exists():
            return []
        whole, end, _ = path.read_bytes().rpartition(b"\n")  # the last may be only half there
        return [msgspec.json.decode(line) for line in (whole + end).splitlines()]


class Load:
    """The handlers and tools.

    Args:
        notes: where their effects go.
    """

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.runner = TaskRunner()
        self._tools = {
            LETTERS: Tool(
                self._send,
                name="letter",
                reconcile=self._was_sent,
                settle_after=0.0,
                stops_when_canceled=True,
            ),
            NOTICES: Tool(self._send, name="notice"),
        }
        task = self.runner.task
        self._item = task(name="send", max_crashes=_MANY)(self._post)
        self.mail = task(name="mail", max_crashes=_MANY)(self._mail)
        self.runner.planner(self.mail)(self._plan)

    def _plan(self, task: Task) -> list[WorkItem]:
        given = self.runner.arguments(task)
        return [
            WorkItem(f"{number}", self._item, {"kind": given["kind"], "number": number})
            for number in range(given["first"], given["first"] + given["count"])
        ]

    async def _mail(self, ctx: Context, kind: str, first: int, count: int) -> int:
        del kind, first, count
        return len(ctx.results)

    async def _post(self, ctx: Context, kind: str, number: int) -> str:
        receipt = await ctx.tool(self._tools[kind], number)
        self.notes.add(ACKNOWLEDGED, f"{number}:sent", value=receipt)
        for _ in range(0 if number % _SLOW else _PULSES):  # an entry is behind: it has progressed
            self.notes.add(PULSES, number)
            await asyncio.sleep(_PULSE)
        stamp = await ctx.options(name="stamp").step(self._stamp, number)
        self.notes.add(ACKNOWLEDGED, f"{number}:stamped", value=stamp)
        return stamp

    # -- the tools -------------------------------------------------------------------------------

    async def _send(self, number: int) -> str:
        receipt = uuid4().hex
        takes = _TAKES * (1 + number % 5)  # or those of a worker would all be made in step
        await asyncio.sleep(takes)
        self.notes.add(OUTBOX, number, key=idempotency_key(), receipt=receipt)
        await asyncio.sleep(takes)
        return receipt

    async def _was_sent(self, arguments: dict[str, Any], key: str) -> Reconciled:
        del arguments
        for line in self.notes.lines(OUTBOX):
            if line["key"] == key:
                return Done(line["receipt"])
        return NotDone()

    async def _stamp(self, number: int) -> str:
        return f"{number}:{uuid4().hex}"


class _Said(logging.Handler):
    def __init__(self, notes: Notes) -> None:
        super().__init__(logging.INFO)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.add(SAID, record.getMessage())


def _load() -> Load:
    notes = Notes(Path(os.environ.get(FOLDER, ".")))
    if FOLDER in os.environ:
        log = logging.getLogger("holdfast")
        log.setLevel(logging.INFO)
        log.addHandler(_Said(notes))
        log.propagate = False
    return Load(notes)


load = _load()
runner = load.runner

"""Worker processes that are killed, stopped and replaced, and what must be true of their work."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from holdfast import errors, operations
from holdfast.clock import SystemClock
from holdfast.states import EntryKind, EntryStatus, TaskStatus
from holdfast.store import verbs
from holdfast.testing.checker import Call, calls_of
from holdfast.testing.load import ACKNOWLEDGED, FOLDER, OUTBOX, Load, Notes

APP = "holdfast.testing.load:runner"

PATIENCE = 120.0
"""Seconds after which work that doesn't end counts as stuck."""

_LOOK = 0.05
_PR_SET_PDEATHSIG = 1
_CLOCK = SystemClock()


class Fleet:
    """Processes of `holdfast worker`, each of which a signal may hit.

    Use it as a context manager: leaving the block kills those that are still there.

    Args:
        url: their database.
        notes: where they write what they do.
        lease: seconds.
        concurrency: work items at a time, each.
        app: what they execute.
    """

    def __init__(
        self, url: str, notes: Notes, lease: float, concurrency: int = 25, app: str = APP
    ) -> None:
        self._url = url
        self._notes = notes
        self._command = [
            str(Path(sys.executable).with_name("holdfast")), "worker", app,
            "--lease", f"{lease}", "--concurrency", f"{concurrency}", "--grace", "1",
        ]  # fmt: skip
        self.running: list[subprocess.Popen[bytes]] = []
        self.stopped: list[subprocess.Popen[bytes]] = []

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker, with more in its environment."""
        given = {"HOLDFAST_DB": self._url, FOLDER: str(self._notes.folder), **environment}
        with (self._notes.folder / "log").open("ab") as log:
            worker = subprocess.Popen(  # noqa: S603  our own command
                self._command,
                env={**os.environ, **given},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        self.running.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker (SIGKILL)."""
        worker.kill()
        worker.wait()
        self.running = [each for each in self.running if each is not worker]
        self.stopped = [each for each in self.stopped if each is not worker]

    def stop(self, worker: subprocess.Popen[bytes]) -> None:
        """Stop a worker (SIGSTOP): it holds what it holds, and does nothing."""
        worker.send_signal(signal.SIGSTOP)
        self.running.remove(worker)
        self.stopped.append(worker)

    def resume(self, worker: subprocess.Popen[bytes]) -> None:
        """Let a stopped worker go on (SIGCONT)."""
        worker.send_signal(signal.SIGCONT)
        self.stopped.remove(worker)
        self.running.append(worker)

    def end(self) -> None:
        """Kill every worker."""
        for worker in (*self.running, *self.stopped):
            self.kill(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Account(msgspec.Struct):
    """What became of the work.

    Args:
        acknowledged: outcomes that a handler was told are recorded.
        sent: what the outbox holds.
        doubts: calls in doubt, each of which was reported.
        violations: what is not as promised.
    """

    acknowledged: int = 0
    sent: int = 0
    doubts: int = 0
    violations: list[str] = []


class Mail:
    """The tasks of a load: submitted, waited for, compared with the world, settled.

    Args:
        load: what they are made of. Its runner has the database.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self.notes = load.notes
        self.tasks: dict[str, int] = {}
        """How many letters each of them sends."""
        self._next = 0

    @property
    def due(self) -> int:
        """How many letters were submitted."""
        return self._next

    def submit(self, kind: str, count: int, patience: float = PATIENCE) -> bool:
        """Submit a task of so many letters, again under its key while the database is away.

        Returns False when it doesn't come back.
        """
        first, self._next = self._next, self._next + count
        submitter = self._load.runner.options(key=f"{kind}-{first}")
        ends = _CLOCK.boottime() + patience
        while True:
            try:
                task = submitter.submit(self._load.mail, kind, first, count)
            except errors.StoreUnavailableError:
                if _CLOCK.boottime() > ends:
                    return False
                time.sleep(_LOOK)
                continue
            self.tasks[task.task_id] = count
            return True

    def wait(self, patience: float = PATIENCE) -> bool:
        """Wait until every task has ended or needs a person; False when that takes too long."""
        ends = _CLOCK.boottime() + patience
        open_ones = list(self.tasks)
        while open_ones and _CLOCK.boottime() < ends:
            with suppress(errors.StoreUnavailableError):
                while open_ones and self._is_at_rest(open_ones[-1]):
                    open_ones.pop()
            time.sleep(_LOOK)
        return not open_ones

    def _is_at_rest(self, task_id: str) -> bool:
        status = self._load.runner.store.read(verbs.get_task(task_id)).status
        return status in {TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.BLOCKED}

    def account(self) -> Account:
        """Compare what was acknowledged and what was sent with what the database says."""
        sent = Counter(line["what"] for line in self.notes.lines(OUTBOX))
        told = self.notes.lines(ACKNOWLEDGED)
        found = Account(len(told), len(sent))
        wrong = found.violations
        wrong += [f"repeated: {what} was sent {n} times" for what, n in sent.items() if n > 1]
        recorded: dict[str, Any] = {}
        for task_id in self.tasks:
            needs = operations.needs_of(self._load.runner.store, task_id)
            for call in calls_of(self._load.runner.store, self._task(task_id)):
                if call.status == EntryStatus.RELEASED:
                    continue  # it didn't happen, and another one was made
                what = f"{_number(call)}:{'sent' if call.kind == EntryKind.TOOL else 'stamped'}"
                recorded[what] = call.value if call.status == EntryStatus.DONE else call.status
                if call.kind == EntryKind.TOOL:
                    wrong += _doubt(call, needs, sent)
                    found.doubts += call.status != EntryStatus.DONE
        for line in told:
            if recorded.get(line["what"]) != line["value"]:
                wrong.append(f"lost: {line} was acknowledged, now {recorded.get(line['what'])}")
        return found

    def settle(self) -> None:
        """Resolve every call in doubt as a person would who looks into the outbox.

        Only when nobody can send any more what is not there.
        """
        store = self._load.runner.store
        receipts = {line["what"]: line["receipt"] for line in self.notes.lines(OUTBOX)}
        for task_id in self.tasks:
            for call in calls_of(store, self._task(task_id)):
                if call.kind == EntryKind.TOOL and call.status == EntryStatus.DOUBT:
                    receipt = receipts.get(_number(call))
                    how = "retry" if receipt is None else "done"
                    asyncio.run(operations.resolve(store, call.entry, how, receipt))

    def unsent(self) -> list[int]:
        """Return what isn't in the outbox exactly once."""
        sent = Counter(line["what"] for line in self.notes.lines(OUTBOX))
        return [number for number in range(self._next) if sent[number] != 1]

    def unfinished(self) -> list[str]:
        """Return the tasks that have not succeeded."""
        return [each for each in self.tasks if self._task(each).status != TaskStatus.SUCCEEDED]

    def _task(self, task_id: str) -> Any:  # noqa: ANN401  a task
        return self._load.runner.store.read(verbs.get_task(task_id))


def _number(call: Call) -> int:
    return int(call.entry.split(":")[1])


def _doubt(call: Call, needs: list[str], sent: Counter[int]) -> list[str]:
    """Return what is wrong about a call that may have been made or not."""
    number = _number(call)
    if call.status == EntryStatus.DONE:
        return [] if sent[number] else [f"lost: {number} is recorded as sent, and was not"]
    if call.status != EntryStatus.DOUBT:
        return [f"doubt: {number} is {call.status}, not in doubt"]
    reported = any(call.entry in need for need in needs)
    return [] if reported else [f"doubt: {call.entry} was not reported"]


def until(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Wait until a condition holds; False when that takes too long."""
    ends = _CLOCK.boottime() + patience
    while not condition():
        if _CLOCK.boottime() > ends:
            return False
        time.sleep(_LOOK)
    return True


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

"""Crashing at a chosen moment: a real signal, to a real process, at one boundary.

Every write of Holdfast is a transaction of its engine. `CrashingEngine` stands between the store
and the engine, so the code under test needs no hooks: it counts the transactions, and at the chosen
one, right before or right after the real COMMIT, the process sends itself SIGKILL or SIGSTOP.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal

import msgspec

from holdfast.clock import Clock, SystemClock
from holdfast.store import DEADLINE, Store
from holdfast.store.engine import Engine
from holdfast.store.sqlite import SqliteEngine
from holdfast.store.verb import Rows, Statement

Side = Literal["before", "after"]
Action = Literal["kill", "stop"]

IDLE = frozenset(
    {
        "worker.renew",
        "writer.mark",
        "item.wake_due",
        "queue.look",
        "item.candidates",
        "item.candidates_of_root",
    }
)
"""What a transaction consists of that only renews leases and finds nothing to claim. Such ones come
by the clock, so they aren't counted: the n-th boundary is to be the same in every run."""

FENCE = "item.fence"
"""The statement every write under a lease starts with; it gives a row when the lease is held."""


class Point(msgspec.Struct, frozen=True):
    """A moment in a process: before or after its n-th commit, or its n-th external effect."""

    kind: Literal["commit", "effect"]
    number: int
    side: Side

    def __str__(self) -> str:
        """Name the point."""
        return f"{self.side} {self.kind} {self.number}"


class CrashPlan:
    """Counts boundaries; at one of them the process kills or stops itself.

    Without a point it only counts, which tells how many points there are.

    Args:
        point: where; None for a dry run.
        action: `kill` (SIGKILL) or `stop` (SIGSTOP, until somebody continues it).
        on_reached: called with the boundary's label right before the signal is sent.
    """

    def __init__(
        self,
        point: Point | None = None,
        action: Action = "kill",
        on_reached: Callable[[str], None] | None = None,
    ) -> None:
        self.point = point
        self.counts: Counter[str] = Counter()
        self.labels: list[str] = []
        self.reached = False
        self._signal = signal.SIGKILL if action == "kill" else signal.SIGSTOP
        self._on_reached = on_reached

    @contextmanager
    def boundary(self, kind: Literal["commit", "effect"], label: str) -> Generator[None]:
        """Mark what happens inside the block as one boundary of that kind.

        Use `effect` in a tool, around what the tool does to the world.
        """
        self.counts[kind] += 1
        number = self.counts[kind]
        self.labels.append(f"{kind} {label}")
        self._pass(Point(kind, number, "before"), label)
        yield
        self._pass(Point(kind, number, "after"), label)

    def _pass(self, here: Point, label: str) -> None:
        if here != self.point:
            return
        self.reached = True
        if self._on_reached is not None:
            self._on_reached(f"{here} ({label})")
        # To this very thread: it goes no further, whatever the others do until they stop, too.
        signal.pthread_kill(threading.get_ident(), self._signal)


class CrashingEngine:
    """An engine that follows a plan at every commit; see `CrashPlan`.

    ::

        plan = CrashPlan(Point("commit", 7, "before"))
        runner = TaskRunner(Store(CrashingEngine(engine, plan), clock))

    After the plan was carried out by a stop, it also counts the writes under a lease that were
    accepted and refused since: `accepted`, `refused`.
    """

    def __init__(self, engine: Engine, plan: CrashPlan) -> None:
        self._engine = engine
        self._plan = plan
        self._statements: list[str] = []
        self.dialect = engine.dialect
        self.accepted = 0
        self.refused = 0

    def begin(self, *, wait: bool) -> None:
        """Start the write transaction."""
        self._statements = []
        self._engine.begin(wait=wait)

    def execute(self, statement: Statement) -> Rows:
        """Run one statement inside the write transaction."""
        rows = self._engine.execute(statement)
        self._statements.append(statement.query)
        if statement.query == FENCE and self._plan.reached:
            self.accepted += bool(rows)
            self.refused += not rows
        return rows

    def commit(self) -> None:
        """Make the transaction durable, crashing before or after when it is the planned one."""
        if IDLE.issuperset(self._statements):
            self._engine.commit()
            return
        with self._plan.boundary("commit", _label(self._statements)):
            self._engine.commit()

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        self._engine.rollback()

    def settle(self, question: Statement) -> bool:
        """Say for good whether a transaction whose commit failed is there."""
        return self._engine.settle(question)

    def read(self, statement: Statement) -> Rows:
        """Run one statement that only reads."""
        return self._engine.read(statement)

    def data_version(self) -> int:
        """Return a number that changes when another connection committed."""
        return self._engine.data_version()

    def alive(self, slot: int) -> bool | None:
        """Say whether the worker holding that slot lives."""
        return self._engine.alive(slot)

    def hold_slot(self, slot: int) -> bool:
        """Take a worker's slot."""
        return self._engine.hold_slot(slot)

    def release_slot(self, slot: int) -> None:
        """Give a slot back."""
        self._engine.release_slot(slot)

    def close(self) -> None:
        """Close every connection."""
        self._engine.close()


def crash_at(
    path: str,
    point: Point | None,
    action: Action = "kill",
    *,
    clock: Clock | None = None,
    deadline: float = DEADLINE,
) -> Store:
    """Open an SQLite database in a store that crashes this process at a point.

    Args:
        path: the file.
        point: where; None never.
        action: `kill` or `stop`.
        clock: what is asked for time.
        deadline: seconds that a call to the database may take.
    """
    return open_with_plan(path, CrashPlan(point, action), clock=clock, deadline=deadline)[0]


def open_with_plan(
    path: str, plan: CrashPlan, *, clock: Clock | None = None, deadline: float = DEADLINE
) -> tuple[Store, CrashingEngine]:
    """Open an SQLite database under a plan; returns the store and its engine."""
    clock = clock or SystemClock()
    engine = CrashingEngine(SqliteEngine(path, clock, deadline), plan)
    return Store(engine, clock, deadline), engine


def _label(statements: list[str]) -> str:
    """Name a transaction by what it changed, for people."""
    telling = [name for name in dict.fromkeys(statements) if name.endswith(_CHANGES)]
    return " ".join(telling[:4]) or " ".join(statements[:2])


_CHANGES = (
    ".put", ".claim", ".finish", ".park", ".fail", ".set_status", ".set_result", ".take",
    ".expire", ".retire", ".take_back", ".end_planning", ".extend_idle", ".set_restores",
)  # fmt: skip

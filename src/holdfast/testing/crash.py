"""Crashing at a chosen moment: a real signal, to a real process, at one boundary.

Every write of Holdfast is a transaction of its engine. `CrashingEngine` stands between the store
and the engine, so the code under test needs no hooks: it counts the transactions, and at the chosen
one, right before or right after the real COMMIT, the process sends itself SIGKILL or SIGSTOP.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import msgspec

from holdfast.clock import Clock, SystemClock
from holdfast.models import Lease, WorkerRecord
from holdfast.store import DEADLINE, Store, open_engine
from holdfast.store.engine import Engine, RemoteEngine
from holdfast.store.verb import Rows, Statement
from holdfast.store.verbs import Append

Side = Literal["before", "after"]
Action = Literal["kill", "stop"]

IDLE = frozenset(
    {
        "worker.renew",
        "writer.mark",
        "item.wake_due",
        "queue.look",
        "item.candidates",
        "item.candidates_of_roots",
    }
)
"""What a transaction consists of that only renews leases and finds nothing to claim. Such ones come
by the clock, so they aren't counted: the n-th boundary is to be the same in every run."""

FENCES = frozenset({"item.fence", "item.hold", "item.abandon"})
"""The statements that check the token, one in every write under a lease; they give a row when it is
held."""

APPEND = "engine.append"
"""What a transaction of many appends in one statement is called."""


class Point(msgspec.Struct, frozen=True):
    """A moment in a process: before or after its n-th commit, or its n-th external effect."""

    kind: Literal["commit", "effect"]
    number: int
    side: Side

    def __str__(self) -> str:
        """Name the point."""
        return f"{self.side} {self.kind} {self.number}"


class Boundary:
    """One boundary that is being passed.

    Attributes:
        void: set it when nothing was done after all; the boundary isn't counted then.
    """

    def __init__(self) -> None:
        self.void = False


class CrashPlan:
    """Counts boundaries; at one of them the process kills or stops itself.

    Without a point it only counts, which tells how many points there are.

    Args:
        point: where; None for a dry run.
        action: `kill` (SIGKILL), `stop` (SIGSTOP, until somebody continues it), or a function to
            call there.
        on_reached: called with the boundary's label right before the signal is sent.
    """

    def __init__(
        self,
        point: Point | None = None,
        action: Action | Callable[[], object] = "kill",
        on_reached: Callable[[str], None] | None = None,
    ) -> None:
        self.point = point
        self.counts: Counter[str] = Counter()
        self.labels: list[str] = []
        self.reached = False
        self._act = action if callable(action) else partial(_send, action)
        self._on_reached = on_reached

    @contextmanager
    def boundary(self, kind: Literal["commit", "effect"], label: str) -> Generator[Boundary]:
        """Mark what happens inside the block as one boundary of that kind.

        Use `effect` in a tool, around what the tool does to the world.
        """
        self.counts[kind] += 1
        number = self.counts[kind]
        self.labels.append(f"{kind} {label}")
        self._pass(Point(kind, number, "before"), label)
        boundary = Boundary()
        yield boundary
        if boundary.void:
            self.counts[kind] -= 1
            self.labels.remove(f"{kind} {label}")
            return
        self._pass(Point(kind, number, "after"), label)

    def _pass(self, here: Point, label: str) -> None:
        if here != self.point:
            return
        self.reached = True
        if self._on_reached is not None:
            self._on_reached(f"{here} ({label})")
        self._act()


def _send(action: Action) -> None:
    """Send a signal to this very thread: it goes no further, whatever others do until they stop."""
    number = signal.SIGKILL if action == "kill" else signal.SIGSTOP
    signal.pthread_kill(threading.get_ident(), number)


class CrashingEngine:
    """An engine that follows a plan at every commit; see `CrashPlan`.

    ::

        plan = CrashPlan(Point("commit", 7, "before"))
        store, engine = open_with_plan("agent.db", plan)

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

    @staticmethod
    def around(engine: Engine, plan: CrashPlan) -> CrashingEngine:
        """Return the kind that does what the engine does."""
        if isinstance(engine, RemoteEngine):
            return CrashingRemoteEngine(engine, plan)
        return CrashingEngine(engine, plan)

    def begin(self, *, wait: bool) -> None:
        """Start the write transaction."""
        self._statements = []
        self._engine.begin(wait=wait)

    def execute(self, statement: Statement) -> Rows:
        """Run one statement inside the write transaction."""
        rows = self._engine.execute(statement)
        self._note(statement, rows)
        return rows

    def _note(self, statement: Statement, rows: Rows) -> None:
        self._statements.append(statement.query)
        if statement.query in FENCES and self._plan.reached:
            self.accepted += bool(rows)
            self.refused += not rows

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

    def define(self, name: str, like: str, parts: dict[str, str]) -> None:
        """Add a query made from another."""
        self._engine.define(name, like, parts)

    def set_secret_key(self, key: bytes) -> None:
        """Make this the key that secrets are digested with."""
        self._engine.set_secret_key(key)

    def data_version(self) -> int:
        """Return a number that changes when another connection committed."""
        return self._engine.data_version()

    def alive(self, worker: WorkerRecord) -> bool | None:
        """Say whether a worker's process lives."""
        return self._engine.alive(worker)

    def hold_slot(self, slot: int) -> bool:
        """Take a worker's slot."""
        return self._engine.hold_slot(slot)

    def release_slot(self, slot: int) -> None:
        """Give a slot back."""
        self._engine.release_slot(slot)

    def close(self) -> None:
        """Close every connection."""
        self._engine.close()


class CrashingRemoteEngine(CrashingEngine):
    """A `CrashingEngine` of PostgreSQL, where a journal entry may be committed in one journey."""

    _engine: Engine
    _remote: RemoteEngine

    def __init__(self, engine: Engine, plan: CrashPlan) -> None:
        super().__init__(engine, plan)
        assert isinstance(engine, RemoteEngine)  # noqa: S101  `around` asked
        self._remote = engine

    def execute_all(self, statements: Sequence[Statement]) -> list[Rows]:
        """Run statements inside the write transaction, in one journey."""
        found = self._remote.execute_all(statements)
        for statement, rows in zip(statements, found, strict=True):
            self._note(statement, rows)
        return found

    def append(self, appends: Sequence[tuple[Lease, Append]]) -> set[tuple[str, str]]:
        """Add to many items' journals in one statement; those it refuses are fenced again."""
        refused = self._remote.append(appends)
        self._statements.append(APPEND)
        self._accept(appends, refused)
        return refused

    def open(self, *, wait: bool) -> None:
        """Have a connection to write on."""
        self._remote.open(wait=wait)

    def append_at_once(
        self, appends: Sequence[tuple[Lease, Append]], under_way: Callable[[], None]
    ) -> set[tuple[str, str]] | None:
        """Append in a transaction of its own, crashing before or after when it is the planned."""
        with self._plan.boundary("commit", "append_at_once") as boundary:
            refused = self._remote.append_at_once(appends, under_way)
            if refused is None:
                boundary.void = True
            else:
                self._accept(appends, refused)
        return refused

    def announce(self) -> None:
        """Tell idle workers of other programs, once the transaction is committed."""
        self._remote.announce()

    def _accept(
        self, appends: Sequence[tuple[Lease, Append]], refused: set[tuple[str, str]]
    ) -> None:
        if self._plan.reached:
            items = [(lease.task_id, lease.item_id) for lease, _ in appends]
            self.accepted += sum(item not in refused for item in items)


def crash_at(
    where: str,
    point: Point | None,
    action: Action = "kill",
    *,
    clock: Clock | None = None,
    deadline: float = DEADLINE,
) -> Store:
    """Open a database in a store that crashes this process at a point.

    Args:
        where: a URL, or an SQLite file.
        point: where; None never.
        action: `kill` or `stop`.
        clock: what is asked for time.
        deadline: seconds that a call to the database may take.
    """
    return open_with_plan(where, CrashPlan(point, action), clock=clock, deadline=deadline)[0]


def open_with_plan(
    where: str, plan: CrashPlan, *, clock: Clock | None = None, deadline: float = DEADLINE
) -> tuple[Store, CrashingEngine]:
    """Open a database, named by a URL or an SQLite file, under a plan.

    Returns the store and its engine.
    """
    clock = clock or SystemClock()
    url = where if "://" in where else f"sqlite:///{where}"
    opened, key = open_engine(url, clock, deadline)
    engine = CrashingEngine.around(opened, plan)
    return Store(engine, clock, deadline, secret_key=key), engine


def _label(statements: list[str]) -> str:
    """Name a transaction by what it changed, for people."""
    telling = [name for name in dict.fromkeys(statements) if name.endswith(_CHANGES)]
    return " ".join(telling[:4]) or " ".join(statements[:2])


_CHANGES = (
    ".put", ".claim", ".finish", ".park", ".fail", ".set_status", ".succeed", ".take",
    ".append", ".expire", ".retire", ".take_back", ".end_planning", ".extend_idle", ".set_restores",
)  # fmt: skip

"""Moves everything in one database into another, on any two engines.

Both are locked by a transaction meanwhile: the source so that nobody changes what was copied
already, the target so that it is seen with everything in it or with nothing. What arrived is read
back, and compared, before it is committed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import msgspec

from holdfast import errors
from holdfast.models import WorkerRecord
from holdfast.store.engine import Engine, NotKeptError
from holdfast.store.processes import ENDED
from holdfast.store.store import Store
from holdfast.store.tables import COPIED, NOT_COPIED, Column, Table
from holdfast.store.verb import Row, Rows, Statement

PAGE_ROWS = 1000
PAGE_BYTES = 4 * 1024 * 1024
"""What is in memory at a time; one row may be larger."""

_PROSE = {"error", "reason"}
"""Columns for people. PostgreSQL shows a zero character in them, since its text can't hold one."""

Tell = Callable[[str], object]


class TableReport(msgspec.Struct, frozen=True):
    """What a table holds: how many rows, and the SHA-256 of them all in the order of its key."""

    table: str
    rows: int
    digest: str


class Copied(msgspec.Struct, frozen=True):
    """What is the same on both sides now.

    Args:
        tables: each table's rows.
        before: whether an earlier call had already copied it, and this one only compared.
        sealed: whether no Holdfast opens the source any more.
    """

    tables: tuple[TableReport, ...]
    before: bool
    sealed: bool


def copy_database(source: Store, target: Store, tell: Tell, *, seal: bool = True) -> Copied:
    """Copy everything into an empty database, compare, and seal the source.

    A crash leaves the target as it was, or with everything and the source not yet sealed. Called
    again it then compares, and seals.

    Args:
        source: nobody is at work on it.
        target: empty, or what an earlier call made of it.
        tell: called with what is being done now.
        seal: whether the source is not to be opened any more.

    Raises:
        UsageError: somebody is at work on either, or the target holds something else. Nothing was
            changed.
        StoreCorruptError: what arrived isn't what was sent. Nothing was kept.
        StoreError: a database failed. Call it again.
    """
    _refuse_one_and_the_same(source, target)
    with _transaction(source.engine) as left:
        tables = left.tables()
        left.lock(tables)
        left.refuse_workers("the source")
        # Whoever was about to fill an entry of the cache has gone.
        left.run("prune.cache", now=-math.inf, reserved_before=math.inf)
        with _transaction(target.engine) as right:
            theirs = [right.alike(table) for table in tables]
            right.lock(theirs)
            right.refuse_workers("the target")
            before = any(right.run(f"copy.rows.first.{name}", limit=1) for name in COPIED)
            if not before:
                _copy(left, right, tables, tell)
            tell("comparing")
            reports = _compare(left.reports(tables), right.reports(theirs), before=before)
            if source.secret_key is not None:
                right.engine.set_secret_key(source.secret_key)
        if seal:
            left.run("copy.seal")
    return Copied(reports, before, seal)


def _refuse_one_and_the_same(source: Store, target: Store) -> None:
    """Refuse two names of one database: its own locks would keep the copy waiting.

    Raises:
        UsageError: they are.
    """
    ours, theirs = (
        each.engine.read(Statement("catalogue.place", {}))[0] for each in (source, target)
    )
    if ours == theirs and ours[0] is not None:
        message = "SOURCE and TARGET are one database. Nothing was done."
        raise errors.UsageError(message)


@contextmanager
def _transaction(engine: Engine) -> Generator[_Side]:
    try:
        engine.begin(wait=True)
        yield _Side(engine)
        engine.commit()
    except NotKeptError as refused:
        engine.rollback()
        raise refused.failure from refused
    except BaseException:
        engine.rollback()
        raise


class _Side:
    """One of the two databases, inside a transaction."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(self, query: str, **params: object) -> Rows:
        return self.engine.execute(Statement(query, params))

    def tables(self) -> list[Table]:
        """Return the tables to copy.

        Raises:
            StoreTooNewError: there are some this program doesn't know.
        """
        names = {row[0] for row in self.run("catalogue.tables")}
        unknown = sorted(names - {*COPIED, *NOT_COPIED})
        if unknown:
            message = (
                f"The source has tables that this Holdfast doesn't know: {', '.join(unknown)}. "
                f"Nothing was copied. Use the newest Holdfast that works on it."
            )
            raise errors.StoreTooNewError(message, needs=0, reads=0)
        return [self.table(name) for name in COPIED]

    def table(self, name: str) -> Table:
        rows = self.run("catalogue.columns", table=name)
        return Table(name, tuple(Column(*row) for row in rows))

    def alike(self, table: Table) -> Table:
        """Return the same columns of this side's table, with the types they have here.

        Raises:
            StoreTooNewError: some are missing.
        """
        here = {column.name: column for column in self.table(table.name).columns}
        missing = [column.name for column in table.columns if column.name not in here]
        if missing:
            message = (
                f"The source's table {table.name} has columns that this Holdfast doesn't know: "
                f"{', '.join(missing)}. Nothing was copied. Use the newest Holdfast that works on "
                f"it."
            )
            raise errors.StoreTooNewError(message, needs=0, reads=0)
        return Table(table.name, tuple(here[column.name] for column in table.columns))

    def lock(self, tables: list[Table]) -> None:
        """Make the queries of these tables, and keep others from writing."""
        for table in tables:
            parts = table.parts(typed=self.engine.dialect == "postgres")
            first = parts | {"behind": "TRUE"}
            behind = parts | {"behind": f"({parts['key']}) > ({parts['key_values']})"}
            for query in ("copy.lock", "copy.put", "copy.analyze"):
                self.engine.define(f"{query}.{table.name}", query, parts)
            for query in ("copy.sizes", "copy.rows"):
                self.engine.define(f"{query}.first.{table.name}", query, first)
                self.engine.define(f"{query}.behind.{table.name}", query, behind)
            self.run(f"copy.lock.{table.name}")
        # Whoever starts a worker meanwhile waits, and is then told that everything was moved.
        self.engine.define("copy.lock.workers", "copy.lock", {"table": '"workers"'})
        self.run("copy.lock.workers")

    def pages(self, table: Table) -> Iterator[Rows]:
        """Yield a table's rows in the order of its key."""
        which, after = "first", dict[str, object]()
        prose = [i for i, column in enumerate(table.columns) if column.name in _PROSE]
        while True:
            sizes = self.run(f"copy.sizes.{which}.{table.name}", limit=PAGE_ROWS, **after)
            if not sizes:
                return
            rows = self.run(f"copy.rows.{which}.{table.name}", limit=_fitting(sizes), **after)
            which = "behind"
            after = {table.columns[index].name: rows[-1][index] for index in table.key}
            yield [_shown(row, prose) for row in rows] if prose else rows

    def reports(self, tables: list[Table]) -> tuple[TableReport, ...]:
        """Read the tables whole and say what they hold."""
        return tuple(map(self._report, tables))

    def _report(self, table: Table) -> TableReport:
        digest = hashlib.sha256()
        count = 0
        for page in self.pages(table):
            count += len(page)
            for row in page:
                digest.update(msgspec.msgpack.encode(row))
        return TableReport(table.name, count, digest.hexdigest())

    def refuse_workers(self, which: str) -> None:
        """Refuse while a process may still do something for a task of this database."""
        records = self.workers()
        busy = [each for each in records if each.status != "gone"]
        busy += [each for each in records if each not in busy and self.engine.alive(each)]
        running = self.run("copy.running")
        if busy or running:
            names = [f"{each.worker_id} (process {each.pid} on {each.host})" for each in busy]
            names = names or [f"whoever runs {task_id}/{item_id}" for task_id, item_id in running]
            message = (
                f"At work on {which}: {', '.join(names)}. Nothing was copied. Stop them: with "
                f"SIGTERM a worker finishes or hands back what it runs; a process that hangs has "
                f"to be ended. Then call it again."
            )
            raise errors.UsageError(message)

    def workers(self) -> list[WorkerRecord]:
        return [
            msgspec.convert(row, WorkerRecord, strict=False) for row in self.run("copy.workers")
        ]


def _fitting(sizes: Rows) -> int:
    """Return how many of the next rows to have in memory at a time."""
    count = total = 0
    for (size,) in sizes:
        total += size
        if count and total > PAGE_BYTES:
            break
        count += 1
    return count


def _shown(row: Row, prose: list[int]) -> Row:
    cells = list(row)
    for index in prose:
        if cells[index]:
            cells[index] = cells[index].replace("\0", "\u2400")
    return tuple(cells)


# -- both sides -----------------------------------------------------------------------------------


def _copy(left: _Side, right: _Side, tables: list[Table], tell: Tell) -> None:
    for table in tables:
        tell(f"copying {table.name}")
        names = [column.name for column in table.columns]
        for page in left.pages(table):
            for row in page:
                right.run(f"copy.put.{table.name}", **dict(zip(names, row, strict=True)))
            right.run("copy.arrive")
        right.run(f"copy.analyze.{table.name}")
    _remember_workers(left, right)


def _remember_workers(left: _Side, right: _Side) -> None:
    """Keep which processes have ended: `once` calls that they began can still be reconciled.

    Where that can't be seen from here, PostgreSQL gets what is known of the process. SQLite would
    take any that holds no byte of its lock file for ended, so there it is left out.
    """
    for record in left.workers():
        ended = left.engine.alive(record) is False
        if not ended and right.engine.dialect != "postgres":
            continue
        slot = right.run("worker.next_slot")[0][0]
        process = ENDED if ended else record.process
        moved = msgspec.structs.replace(record, slot=slot, process=process)
        right.run("worker.put", **msgspec.structs.asdict(moved))


def _compare(
    ours: tuple[TableReport, ...], theirs: tuple[TableReport, ...], *, before: bool
) -> tuple[TableReport, ...]:
    """Return what both sides hold.

    Raises:
        UsageError: there was something else in the target before.
        StoreCorruptError: what arrived isn't what was sent.
    """
    if ours == theirs:
        return ours
    different = ", ".join(
        f"{mine.table} ({mine.rows:,} and {their.rows:,} rows)"
        for mine, their in zip(ours, theirs, strict=True)
        if mine != their
    )
    if before:
        message = (
            f"The target isn't empty, and doesn't hold what the source holds: {different}. Nothing "
            f"was changed. Name an empty database: another file, or another ?schema=."
        )
        raise errors.UsageError(message)
    message = (
        f"What arrived in the target isn't what the source holds: {different}. Nothing was kept. "
        f"Look for triggers and defaults in the target, and for damage with `holdfast doctor`."
    )
    raise errors.StoreCorruptError(message)

"""The SQLite engine: WAL, synchronous=FULL, one write connection, one read connection.

The library comes with the driver (`apsw`), so every machine runs the same fixed SQLite. Versions
3.7.0 to 3.51.2 can corrupt a database in WAL mode when two connections write and checkpoint at
once (https://sqlite.org/wal.html, "WAL-reset bug"); they are refused.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import apsw

from holdfast import errors
from holdfast.store.engine import BusyError, store_closed
from holdfast.store.keyfile import replace_key
from holdfast.store.lockfile import LockFile, open_lock_file
from holdfast.store.migrations import migrate
from holdfast.store.queries import load_queries
from holdfast.store.sqlite_file import APPLICATION_ID, check_file, identity

if TYPE_CHECKING:
    from collections.abc import Generator

    from holdfast.clock import Clock
    from holdfast.models import WorkerRecord
    from holdfast.store.verb import Rows, Statement

_FIRST_AFFECTED = (3, 7, 0)
_FIXED = (3, 51, 3)
AUTOCHECKPOINT = 250
"""Pages in the write-ahead log after which a commit copies them into the file."""

_STATEMENTS = 300
"""Prepared statements kept by a connection: more than there are queries."""

_PAUSE_OPENING = 0.01


class SqliteEngine:
    """One database file, or a private database in memory when `path` is None.

    Args:
        path: the file; created when it isn't there.
        clock: what is asked for wall time.
        deadline: seconds that any call may wait for another process's lock.
    """

    dialect = "sqlite"

    def __init__(self, path: str | None, clock: Clock, deadline: float) -> None:
        check_library(apsw.sqlite_lib_version())
        # Absolute, so that a change of directory can't lead to another file; without links, so
        # that every process finds the same lock file, as it finds the same write-ahead log.
        self._path = None if path is None else os.path.realpath(path)
        self._clock = clock
        self._deadline_ms = int(deadline * 1000)
        self._queries = dict(load_queries(self.dialect))
        self._pid = os.getpid()
        self._reading = threading.Lock()
        # Held from `begin` to the end of the transaction, so that nothing is closed inside one. A
        # database in memory is one connection: its reads wait there, too.
        self._writing = self._reading if path is None else threading.Lock()
        self._in_write = False
        self._closed = False
        self._sound = True
        self._locks: LockFile | None = None
        self._file = (0, 0)
        self._connections: list[apsw.Connection] = []
        try:
            with _opening, _translated(self._path):
                self._open()
        except BaseException:
            self._close_connections()
            raise

    # -- opening ---------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._path is not None and identity(self._path) in _inherited:
            raise _forked(
                "the database was open: SQLite would take its locks for this process's, and what "
                "is written here would be lost"
            )
        if self._path is not None and identity(self._path) not in _open_databases:
            # Closing any descriptor of a file drops the locks this process has on it, SQLite's
            # own included (https://sqlite.org/howtocorrupt.html §2.2): read it only when nobody
            # here has it open. A connection checks the same things once more.
            check_file(self._path)
        self._writer = self._connect()
        if migrate(self._writer, APPLICATION_ID, self._clock.now(), self._path) and self._path:
            self._keep_log()
        self._set_up(self._writer)
        # A database in memory is its connection: reads share it, between two transactions.
        self._reader = self._writer if self._path is None else self._connect()
        if self._path is not None:
            self._reader.pragma("query_only", 1)
            self._locks = open_lock_file(self._path + "-lock")
            self._file = identity(self._path)
            _open_databases[self._file] += 1
            _open_paths[self._path] += 1
        self._write = self._writer.cursor()

    def _connect(self) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(
            self._path or ":memory:", flags=flags, statementcachesize=_STATEMENTS
        )
        self._connections.append(connection)
        connection.set_busy_timeout(self._deadline_ms)
        self._waits = True
        return connection

    def _keep_log(self) -> None:
        """Switch to the write-ahead log, and put what a migration wrote into the file itself.

        A reader version that was raised is seen in the file's header by older programs.
        """
        ends = self._clock.boottime() + self._deadline_ms / 1000
        while True:
            try:
                mode = self._writer.pragma("journal_mode", "wal")
                break
            except apsw.BusyError:  # for this SQLite doesn't wait, as for others that open it
                if self._clock.boottime() >= ends:
                    raise
                time.sleep(_PAUSE_OPENING)
        if mode != "wal":
            message = (
                f"{self._path} can't have a write-ahead log (SQLite answered {mode!r}), as on a "
                f"network file system. Put the database on a local disk."
            )
            raise errors.StoreOpenError(message, path=self._path)
        self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _set_up(self, connection: apsw.Connection) -> None:
        if self._path is not None and connection.pragma("journal_mode") != "wal":
            self._keep_log()  # a creation that was killed before its last step
        for name, value in _PRAGMAS:
            connection.pragma(name, value)

    # -- writing ---------------------------------------------------------------------------------

    def begin(self, *, wait: bool) -> None:
        """Take the database's write lock."""
        self._refuse_fork()
        if not self._in_write:  # after a commit that failed it still is
            self._writing.acquire()
            self._in_write = True
        try:
            self._refuse_when_closed()
            if not self._sound:
                self._reconnect()
            if wait is not self._waits:
                self._writer.set_busy_timeout(self._deadline_ms if wait else 0)
                self._waits = wait
            self._write.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            self._end_write()
            if isinstance(error, apsw.BusyError) and not wait:
                raise BusyError from error
            if isinstance(error, apsw.Error):
                raise translate(error, self._path) from error
            raise

    def execute(self, statement: Statement) -> Rows:
        """Run one statement inside the write transaction."""
        try:
            return self._write.execute(self._queries[statement.query], statement.params).fetchall()
        except apsw.Error as error:
            raise translate(error, self._path) from error

    def commit(self) -> None:
        """Make the transaction durable."""
        try:
            self._write.execute("COMMIT")
        except apsw.FullError as error:
            # The last page of a transaction is written last and makes it one: it wasn't.
            self.rollback()
            raise translate(error, self._path) from error
        except apsw.Error as error:
            raise translate(error, self._path) from error
        self._end_write()

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        if os.getpid() != self._pid:
            return
        try:
            if self._writer.in_transaction:
                self._write.execute("ROLLBACK")
        except apsw.Error:
            self._sound = False  # closing the connection undoes it
        finally:
            self._end_write()

    def define(self, name: str, like: str, parts: dict[str, str]) -> None:
        """Add a query: another one with its `{parts}` filled in."""
        self._queries[name] = self._queries[like].format(**parts)

    def set_secret_key(self, key: bytes) -> None:
        """Replace the key file beside the database."""
        if self._path is not None:
            replace_key(self._path, key)

    def settle(self, question: Statement) -> bool:
        """Say for good whether a transaction whose commit failed is there."""
        if self._path is None:
            self.rollback()
            return False
        self._sound = False
        self.begin(wait=True)
        try:
            landed = bool(self.execute(question))
            # Its pages may stand in the log behind the last commit, where a recovery would find
            # them after all. Another commit in their place takes them away.
            self._writer.pragma("user_version", self._writer.pragma("user_version"))
            self.commit()
        except BaseException:
            self.rollback()
            self._sound = False
            raise
        return landed

    def _reconnect(self) -> None:
        if self._path is None:  # another connection would be another database
            if self._writer.in_transaction:
                self._write.execute("ROLLBACK")
            self._sound = True
            return
        with suppress(apsw.Error):
            self._writer.close(True)  # noqa: FBT003  apsw names it `force`, by position only
        if self._writer in self._connections:
            self._connections.remove(self._writer)
        self._writer = self._connect()
        self._set_up(self._writer)
        self._write = self._writer.cursor()
        self._sound = True

    def _end_write(self) -> None:
        if self._in_write:
            self._in_write = False
            self._writing.release()

    # -- reading ---------------------------------------------------------------------------------

    def read(self, statement: Statement) -> Rows:
        """Run one statement that only reads."""
        self._refuse_fork()
        with self._reading, _translated(self._path):
            self._refuse_when_closed()
            return self._reader.execute(self._queries[statement.query], statement.params).fetchall()

    def data_version(self) -> int:
        """Return a number that changes when another connection committed."""
        self._refuse_fork()
        with self._reading, _translated(self._path):
            self._refuse_when_closed()
            return int(self._reader.pragma("data_version"))

    # -- who is alive ----------------------------------------------------------------------------

    def alive(self, worker: WorkerRecord) -> bool | None:
        """Say whether the process that holds the worker's slot lives."""
        locks = self._locks
        return None if locks is None else locks.is_held(worker.slot)

    def hold_slot(self, slot: int) -> bool:
        """Take a worker's byte of the lock file for the life of this process."""
        locks = self._locks
        return locks is None or locks.hold(slot)

    def release_slot(self, slot: int) -> None:
        """Give the byte back."""
        locks = self._locks
        if locks is not None:
            locks.release(slot)

    def close(self) -> None:
        """Close both connections, after whatever runs on them has ended.

        Does nothing in a forked child: they are the parent's.
        """
        if os.getpid() != self._pid:
            return
        with ExitStack() as exclusive:
            for lock in {self._writing, self._reading}:
                exclusive.enter_context(lock)
            if self._closed:
                return
            self._closed = True
            exclusive.enter_context(_opening)
            exclusive.enter_context(_translated(self._path))
            self._close_connections()
            if self._locks is not None:
                self._locks.close()
                self._locks = None
                _open_databases[self._file] -= 1
                if not _open_databases[self._file]:
                    del _open_databases[self._file]
                _open_paths[self._path or ""] -= 1

    def _close_connections(self) -> None:
        while self._connections:
            self._connections.pop().close(True)  # noqa: FBT003  `force`, by position only

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise store_closed()

    def _refuse_fork(self) -> None:
        if os.getpid() != self._pid:
            raise _forked("the store was open, and its connections here can corrupt the database")


_opening = threading.Lock()
_open_databases: Counter[tuple[int, int]] = Counter()
_open_paths: Counter[str] = Counter()
_inherited: set[tuple[int, int]] = set()
"""Databases that were open in the parent when this process was forked. SQLite's memory of their
locks came along, the locks didn't (https://sqlite.org/howtocorrupt.html §2.6): a connection made
here would hold none, and others would take its log away from under it."""


def open_databases() -> list[str]:
    """Return the real paths of the databases this process has open.

    No other code of the process may open one, or a file beside it, and close it again: that drops
    the locks which SQLite and the worker hold on it.
    """
    return [path for path, users in tuple(_open_paths.items()) if users > 0]


def _after_fork_in_child() -> None:
    global _opening  # noqa: PLW0603  a thread that doesn't exist here may have held it
    _opening = threading.Lock()
    _inherited.update(_open_databases)
    _open_databases.clear()
    _open_paths.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)

_PRAGMAS: tuple[tuple[str, int | str], ...] = (
    ("synchronous", "full"),
    # Only macOS has these two; elsewhere they do nothing.
    ("fullfsync", 1),
    ("checkpoint_fullfsync", 1),
    ("temp_store", "memory"),
    ("journal_size_limit", 64 * 1024 * 1024),
    # A commit that overwrites the log costs a good deal less than one that makes it grow, so it is
    # started anew after a megabyte already.
    ("wal_autocheckpoint", AUTOCHECKPOINT),
)


def check_library(version: str) -> None:
    """Refuse an SQLite library that can corrupt a database.

    Raises:
        UnsafeSqliteError: the version has the WAL-reset bug.
    """
    number = tuple(int(part) for part in version.split(".")[:3])
    if _FIRST_AFFECTED <= number < _FIXED:
        message = (
            f"SQLite {version} can corrupt a database that several connections write (the "
            f"WAL-reset bug, fixed in 3.51.3). Nothing was opened. Install apsw 3.51.3 or newer, "
            f"which brings its own SQLite."
        )
        raise errors.UnsafeSqliteError(message, version=version)


@contextmanager
def _translated(path: str | None) -> Generator[None]:
    try:
        yield
    except apsw.Error as error:
        raise translate(error, path) from error


def translate(error: apsw.Error, path: str | None) -> errors.StoreError:
    """Return the `StoreError` that says what an error of the driver means."""
    where = path or "the database in memory"
    match error:
        case apsw.BusyError() | apsw.LockedError() | apsw.InterruptError():
            return _unavailable(path)
        case apsw.FullError():
            return errors.StoreFullError(
                f"No room left for {where}. What was acknowledged is safe, this write was not "
                f"kept. Free some space; work goes on by itself.",
                path=path,
            )
        case apsw.CorruptError() | apsw.NotADBError():
            return errors.StoreCorruptError(
                f"{where} is damaged ({error}). Stop its workers, keep a copy, and see what "
                f"`holdfast doctor` can read.",
                path=path,
            )
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError():
            return errors.ReadOnlyStoreError(
                f"{where} can't be opened for writing ({error}). Nothing was changed.", path=path
            )
        case _:
            return errors.StoreUnavailableError(
                f"{where} failed ({error}). What was acknowledged is safe, this call was not kept.",
                path=path,
            )


def _forked(what: str) -> errors.UsageError:
    return errors.UsageError(
        f"This process was forked while {what}. Nothing was done. Fork before the store is opened "
        f"or after it was closed, or start children with the 'spawn' method."
    )


def _unavailable(path: str | None) -> errors.StoreUnavailableError:
    return errors.StoreUnavailableError(
        f"{path or 'the database in memory'} is locked by another process for longer than the "
        f"deadline. What was acknowledged is safe, this call was not kept; try again.",
        path=path,
    )

"""The PostgreSQL engine: one write connection, one read connection, one for notifications.

No session state is used outside the last, so a pooler in transaction mode may stand between.
Transactions run at READ COMMITTED; what must not interleave is kept apart by row locks, first the
task's, then its items'. Statements that give no rows are only put into the pipeline, and go out
with the next that does, or with the COMMIT.

When the answer to a COMMIT is lost, a new connection ends the old one's backend and waits until it
is gone; then nothing can change any more. Behind a pooler nobody knows which backend that was.
There, the COMMIT is never sent before the answer to what locks a row: whoever locks that row next
has waited for it.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg

from holdfast import errors
from holdfast.store.appending import join, refused_of, to_statement
from holdfast.store.binary import UnfitValue
from holdfast.store.dialing import Dialer
from holdfast.store.engine import BusyError, NotKeptError, store_closed
from holdfast.store.listening import Listener
from holdfast.store.postgres_errors import AGAIN, is_unusable, translate, unavailable, words
from holdfast.store.postgres_migrations import migrate_postgres, secret_key
from holdfast.store.postgres_queries import load_postgres_queries, make_query
from holdfast.store.processes import is_running
from holdfast.store.queries import load_queries
from holdfast.store.verb import Statement
from holdfast.store.wire import ConnectionLost, StatementFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.clock import Clock
    from holdfast.models import Lease, WorkerRecord
    from holdfast.store.postgres_url import Place
    from holdfast.store.verb import Rows
    from holdfast.store.verbs.shared import Append
    from holdfast.store.wire import Query, Wire

_log = logging.getLogger("holdfast")

_BEGIN = make_query("begin", "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE")
_COMMIT = make_query("commit", "COMMIT")
_ROLLBACK = make_query("rollback", "ROLLBACK")
_SYNCHRONOUS = make_query("synchronous", "SET LOCAL synchronous_commit TO on")

_PAUSE_ENDING = 0.01

_PROSE = ("error", "reason")


class PostgresEngine:
    """One schema of a PostgreSQL database.

    Args:
        place: what the URL says.
        clock: what is asked for time.
        deadline: seconds that any call may take; the connection is given up then.
    """

    dialect = "postgres"

    def __init__(self, place: Place, clock: Clock, deadline: float) -> None:
        self._place = place
        self._clock = clock
        self._deadline = deadline
        self._queries = dict(load_postgres_queries(place.schema))
        self._channel = f"holdfast_{place.schema}"
        self._notify = make_query("notify", "SELECT pg_notify(:channel, '')")._replace(wanted=False)
        self._pid = os.getpid()
        self._closed = False
        self._reading = threading.Lock()
        self._reader: Wire | None = None
        self._writer: Wire | None = None
        self._lost_backend: tuple[int, str] | None = None
        self._in_transaction = False
        self._dialer = Dialer(place, clock, deadline)
        self._newest = self._dialer.newest
        self._listener = Listener(self._listening(deadline), self._channel, clock)
        try:
            with self._dialer.dial() as connection:
                migrate_postgres(connection, place, clock.now())
                self.secret_key = secret_key(connection, place.schema)
        except psycopg.Error as error:
            message = (
                f"{place.shown} can't be opened: {words(error)}. Nothing was changed. Check the "
                f"URL, and that the user may create the schema {place.schema} there."
            )
            raise errors.StoreOpenError(message, path=place.shown) from error

    def _listening(self, deadline: float) -> Dialer | None:
        if self._place.listen is None:
            return None
        place = self._place._replace(server=self._place.listen)
        return Dialer(place, self._clock, deadline, self._newest, "holdfast-listener")

    # -- writing ---------------------------------------------------------------------------------

    def open(self, *, wait: bool) -> None:
        """Have a connection to write on."""
        self._refuse_when_unusable()
        writer = self._writer
        if writer is not None and (writer.is_closed or writer.server != self._newest.server):
            self._drop()  # a server that was replaced can't commit what is sent there any more
        if self._writer is None:
            if not wait:
                raise BusyError  # connecting takes its time: not on the event loop
            self._writer = self._dialer.connect()

    def begin(self, *, wait: bool) -> None:
        """Start a transaction."""
        self.open(wait=wait)
        self._in_transaction = True
        self._send(_BEGIN, {})
        if self._writer is not None and not self._writer.is_durable:
            self._send(_SYNCHRONOUS, {})

    def execute(self, statement: Statement) -> Rows:
        """Run one statement inside the transaction; without rows, at the next chance."""
        return self.execute_all((statement,))[0]

    def execute_all(self, statements: Sequence[Statement]) -> list[Rows]:
        """Run statements inside the transaction in one journey; return the rows of each.

        Where none of them gives rows, they go out with the next that does.
        """
        queries = [self._queries[statement.query] for statement in statements]
        for query, statement in zip(queries, statements, strict=True):
            self._send(query, _tidied(statement.params))
        if not any(query.wanted for query in queries):
            return [[] for _ in queries]
        found = iter(self._fetch())
        return [next(found) if query.wanted else [] for query in queries]

    def _fetch(self) -> list[Rows]:
        if self._writer is None:
            raise unavailable(self._place.shown, "the connection is gone")
        try:
            return self._writer.fetch()
        except StatementFailed as failed:
            self._refused(failed)
        except ConnectionLost as lost:
            raise self._lost(lost) from lost

    def append(self, appends: Sequence[tuple[Lease, Append]]) -> set[tuple[str, str]]:
        """Add to many items' journals in one statement, each under its lease.

        Returns the items for which nothing was done: their lease isn't held, or their journal isn't
        where the writer believes it to be.
        """
        together = join(appends)
        self._send(*to_statement(self._queries, together))
        refused = refused_of(together, self._fetch()[-1])
        for lease, append in together:
            if (lease.task_id, lease.item_id) not in refused:
                for blob in append.blobs:
                    if blob.digest is not None:
                        values = {"digest": blob.digest, "data": blob.data}
                        query = self._queries["blob.put"]
                        self._send(query, {"task_id": lease.task_id, **values})
        return refused

    def append_at_once(
        self, appends: Sequence[tuple[Lease, Append]], under_way: Callable[[], None]
    ) -> set[tuple[str, str]] | None:
        """Add to items' journals in a transaction of its own and a single journey.

        Returns the items as `append` does; None when it can't be done: behind a pooler, or where
        large payloads have to be kept too. `under_way` is called while the server works on it.
        """
        if self._writer is None or self._writer.backend is None or not self._writer.is_durable:
            return None
        together = join(appends)
        for _, append in together:
            if append.blobs or not append.entries:
                return None
        writer = self._send(*to_statement(self._queries, together))
        try:
            rows = writer.sync(under_way)[-1]
        except StatementFailed as failed:
            self._refused(failed)
        except ConnectionLost as lost:
            raise self._lost(lost) from lost
        self._distrust(writer)
        return refused_of(together, rows)

    def _distrust(self, writer: Wire) -> None:
        """Raise when the server warned while committing, as when the wait for a standby was cut."""
        if writer.warned:
            self._drop()
            raise unavailable(
                self._place.shown, "the server warned while committing: ask whether it is safe"
            )

    def announce(self) -> None:
        """Tell idle workers elsewhere, when this transaction is committed, to look at once."""
        if self._place.listen is not None:
            self._send(self._notify, {"channel": self._channel})

    def commit(self) -> None:
        """Make the transaction durable, on a synchronous standby too where there is one."""
        writer = self._send(_COMMIT, {})
        try:
            writer.sync()
        except StatementFailed as failed:
            self._refused(failed)
        except ConnectionLost as lost:
            raise self._lost(lost) from lost
        self._in_transaction = False
        self._distrust(writer)

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        if os.getpid() != self._pid or not self._in_transaction:
            return
        self._in_transaction = False
        if self._writer is None:
            return
        try:
            if not self._writer.is_idle:
                self._end_pipeline(self._writer)
            self._writer.send(_ROLLBACK, {})
            self._writer.sync()
        except (ConnectionLost, StatementFailed):
            self._drop()

    def _end_pipeline(self, writer: Wire) -> None:
        with suppress(StatementFailed):
            writer.sync()

    def settle(self, question: Statement) -> bool:
        """Say for good whether a transaction whose commit failed is there.

        On a new connection, the old one's backend is ended. Then the row that it held a lock on is
        locked, which waits where that wasn't possible, and written, which makes the answer as
        durable as an acknowledgement.
        """
        lock = "engine.lock_writer" if "writer_id" in question.params else "engine.lock_item"
        limit = self._clock.boottime() + self._deadline
        self.open(wait=True)
        if self._writer is not None:
            self._writer.limit = limit
        try:
            self._end_lost()
            self.begin(wait=True)
            self.execute(question._replace(query=lock))
            landed = bool(self.execute(question))
            self.commit()
        except NotKeptError as refused:
            self.rollback()
            raise refused.failure from refused
        except BaseException:
            self.rollback()
            self._drop()
            raise
        finally:
            if self._writer is not None:
                self._writer.limit = math.inf
        _log.info("The answer to a commit was lost; it was %s.", "kept" if landed else "not kept")
        return landed

    def define(self, name: str, like: str, parts: dict[str, str]) -> None:
        """Add a query: another one with its `{parts}` filled in."""
        sql = load_queries(self.dialect)[like].format(**parts)
        self._queries[name] = make_query(name, sql, self._place.schema)

    def set_secret_key(self, key: bytes) -> None:
        """Replace the key in the table `meta`."""
        self.execute(Statement("engine.set_secret_key", {"value": key.hex()}))

    def _end_lost(self) -> None:
        if self._lost_backend is None or self._writer is None:
            return
        pid, started = self._lost_backend
        query = self._queries["engine.end_backend"]
        ends = self._clock.boottime() + self._deadline
        try:
            while True:
                self._writer.send(query, {"pid": pid, "started": started})
                if not self._writer.sync()[-1]:
                    break
                if self._clock.boottime() > ends:
                    raise unavailable(
                        self._place.shown, "the lost connection's backend doesn't end"
                    )
                threading.Event().wait(_PAUSE_ENDING)
        except StatementFailed as failed:
            raise translate(failed, self._place.shown) from failed
        except ConnectionLost as lost:
            raise unavailable(self._place.shown, str(lost)) from lost
        self._lost_backend = None

    def _send(self, query: Query, params: dict[str, Any]) -> Wire:
        if self._writer is None:
            raise unavailable(self._place.shown, "the connection is gone")
        try:
            self._writer.send(query, params)
        except UnfitValue as unfit:
            raise NotKeptError(errors.InputError(f"{unfit}. Nothing was recorded.")) from unfit
        except ConnectionLost as lost:
            raise self._lost(lost) from lost
        return self._writer

    def _drop(self) -> None:
        self._in_transaction = False
        if self._writer is not None:
            self._lost_backend = self._lost_backend or self._writer.backend
            self._dialer.move_on(self._writer.host)
            self._writer.close()
            self._writer = None

    # -- reading ---------------------------------------------------------------------------------

    def read(self, statement: Statement) -> Rows:
        """Run one statement that only reads, on a connection of its own."""
        self._refuse_when_unusable()
        query = self._queries[statement.query]
        with self._reading:
            for last in (False, True):
                if self._reader is not None and self._reader.server != self._newest.server:
                    self._drop_reader()  # it was replaced, and would answer with the past
                fresh = self._reader is None
                if self._reader is None:
                    self._reader = self._dialer.connect()
                try:
                    self._reader.send(query, statement.params)
                    return self._reader.sync()[-1]
                except UnfitValue as unfit:
                    raise errors.InputError(f"{unfit}. Nothing was read.") from unfit
                except StatementFailed as failed:
                    raise translate(failed, self._place.shown) from failed
                except ConnectionLost as lost:
                    self._dialer.move_on(self._reader.host)
                    self._drop_reader()
                    if last or fresh or lost.late:
                        raise unavailable(self._place.shown, str(lost)) from lost
        raise AssertionError

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def data_version(self) -> int:
        """Return a number that changes when another connection may have committed."""
        return self._listener.version()

    # -- who is alive ----------------------------------------------------------------------------

    def alive(self, worker: WorkerRecord) -> bool | None:
        """Say whether the worker's process runs: None where it is on another machine."""
        return is_running(worker.pid, worker.process)

    def hold_slot(self, slot: int) -> bool:
        """Do nothing: a worker's row says which process it is."""
        return slot > 0

    def release_slot(self, slot: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close every connection. Does nothing in a forked child: they are the parent's."""
        if os.getpid() != self._pid:
            return
        self._closed = True
        self._listener.close()
        self._drop()
        with self._reading:
            self._drop_reader()

    # -- errors ----------------------------------------------------------------------------------

    def _refused(self, failed: StatementFailed) -> NoReturn:
        """Raise for a statement the server refused: nothing of the transaction was kept."""
        failure = translate(failed, self._place.shown)
        if is_unusable(failed):
            self._drop()
        raise NotKeptError(failure, again=failed.state in AGAIN) from failed

    def _lost(self, lost: ConnectionLost) -> errors.StoreUnavailableError:
        self._drop()
        return unavailable(self._place.shown, str(lost))

    def _refuse_when_unusable(self) -> None:
        if self._closed:
            raise store_closed()
        if os.getpid() != self._pid:
            message = (
                "This process was forked while the store was open; two processes can't share its "
                "connections. Nothing was done. Open the store in the child, or start children "
                "with the 'spawn' method."
            )
            raise errors.UsageError(message)


def _tidied(params: dict[str, Any]) -> dict[str, Any]:
    """Show a zero character in what is only for people; elsewhere it is refused."""
    shown = {name: params[name].replace("\0", "\u2400") for name in _PROSE if params.get(name)}
    return params | shown if shown else params

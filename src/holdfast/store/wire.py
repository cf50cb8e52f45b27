"""One connection to PostgreSQL: statements go out in a pipeline, and every wait has an end.

The driver's own waits end when the server answers or the connection breaks. A server that is
stopped, or whose packets are dropped, does neither for a long time, whatever its
`statement_timeout` says, so each wait here ends at a deadline of this side, and the connection with
it.
"""

from __future__ import annotations

import math
import select
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import pq

from holdfast.store.binary import array, dump, load, refuse_zero

if TYPE_CHECKING:
    import psycopg

    from holdfast.clock import Clock
    from holdfast.store.binary import Kind
    from holdfast.store.dialing import Server
    from holdfast.store.verb import Rows

_BINARY = 1
_STATE = pq.DiagnosticField.SQLSTATE
_TEXT = pq.DiagnosticField.MESSAGE_PRIMARY
_COMMAND_OK = int(pq.ExecStatus.COMMAND_OK)
_BAD = int(pq.ConnStatus.BAD)
_PIPELINE_SYNC = int(pq.ExecStatus.PIPELINE_SYNC)
_FAILED = frozenset(
    map(int, (
        pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.NONFATAL_ERROR, pq.ExecStatus.BAD_RESPONSE,
    ))
)  # fmt: skip


MOST_ROWS = 200
"""Rows that go out as one statement."""

SMALL = 4096
"""Characters or bytes in one value. A row with a larger one goes out by itself."""


class Query(NamedTuple):
    """A statement ready to be sent.

    Args:
        name: what it is prepared under.
        sql: the statement, its parameters numbered.
        columns: the parameters in that order, with the kind of each, or of the elements of each
            that is an array.
        wanted: whether it gives rows; otherwise its answer isn't waited for.
        many: of one that inserts a row: the same for many, given arrays.
    """

    name: bytes
    sql: bytes
    columns: tuple[tuple[str, Kind], ...]
    wanted: bool
    many: Query | None = None


class StatementFailed(Exception):  # noqa: N818  the server's answer, not a fault of the wire
    """The server refused a statement; the transaction is as good as undone."""

    def __init__(self, state: str, text: str) -> None:
        super().__init__(text)
        self.state = state


class ConnectionLost(Exception):  # noqa: N818  what the server did isn't known
    """The connection broke, or the server didn't answer in time.

    Args:
        text: what is known.
        late: whether it was the time that ran out.
    """

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


class _Sent(NamedTuple):
    """What an answer is to.

    Args:
        preparing: the name of the statement that was prepared, where it is to that.
        wanted: whether the answer's rows are.
    """

    preparing: bytes | None
    wanted: bool


_WANTED = _Sent(None, wanted=True)
_UNWANTED = _Sent(None, wanted=False)


class Wire:
    """A connection in pipeline mode. One thread at a time may use it.

    Args:
        connection: a fresh connection.
        clock: what deadlines are measured with.
        deadline: seconds that one wait for the server may take.
    """

    def __init__(self, connection: psycopg.Connection[Any], clock: Clock, deadline: float) -> None:
        self._connection = connection
        self._pg = connection.pgconn
        self._pg.nonblocking = 1
        self._pg.notice_handler = self._notice
        self._pg.enter_pipeline_mode()
        self._clock = clock
        self._deadline = deadline
        self._prepared: set[bytes] = set()
        self._held: list[tuple[Query, dict[str, Any]]] = []  # rows of one table, to go out as one
        self._expected: list[_Sent] = []  # whose answers are under way
        self._skipping = False  # the server skips everything until the pipeline ends
        self._descriptor = self._pg.socket
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self.warned = False
        self.prepare = False
        """Whether statements are prepared on first use, which no pooler may stand between."""
        self.backend: tuple[int, str] | None = None
        """Its process in the server, where nothing stands between."""
        self.host = 0
        """Which of the hosts that the URL names."""
        self.server: Server | None = None
        """The server it leads to, where that says."""
        self.is_durable = True
        """Whether the server answers a COMMIT only when it is safe."""
        self.limit = math.inf
        """The boot time at which the last of several waits must end."""

    @property
    def is_closed(self) -> bool:
        """Whether it is of no use any more."""
        return self._pg.status == _BAD

    @property
    def is_idle(self) -> bool:
        """Whether no answer is under way, and what is sent will be executed."""
        return not (self._held or self._expected or self._skipping)

    def send(self, query: Query, params: dict[str, Any]) -> None:
        """Put a statement into the pipeline; whether it failed is known at the next `fetch`.

        Rows that are inserted into one table, one after another, go out as one statement.
        """
        holds = query.many is not None and _is_small(params)
        if self._held and not (holds and self._held[0][0] is query and len(self._held) < MOST_ROWS):
            self._let_go()
        if holds:
            self._held.append((query, params))
        else:
            self._put(query, params)

    def _let_go(self) -> None:
        """Send the rows that were held back."""
        held, self._held = self._held, []
        (query, params), rows = held[0], [row for _, row in held]
        if len(rows) > 1 and query.many is not None:
            query = query.many
            params = {
                name: array([row[name] for row in rows], kind) for name, kind in query.columns
            }
        self._put(query, params)

    def _put(self, query: Query, params: dict[str, Any]) -> None:
        values, formats = dump(query.columns, params), [_BINARY] * len(query.columns)
        try:
            if not self.prepare:
                self._pg.send_query_params(query.sql, values, None, formats, _BINARY)
            else:
                if query.name not in self._prepared:
                    self._pg.send_prepare(query.name, query.sql)
                    self._prepared.add(query.name)
                    self._expected.append(_Sent(query.name, wanted=False))
                self._pg.send_query_prepared(query.name, values, formats, _BINARY)
        except Exception as error:
            raise ConnectionLost(str(error)) from error
        self._expected.append(_WANTED if query.wanted else _UNWANTED)

    def fetch(self) -> list[Rows]:
        """Wait for every answer under way and return the rows of each statement that gives any.

        Raises:
            StatementFailed: a statement was refused; what was behind it was not executed.
            ConnectionLost: nothing is known of what was under way.
        """
        return self._collect(self._pg.send_flush_request)

    def sync(self, under_way: Callable[[], None] | None = None) -> list[Rows]:
        """As `fetch`, and end the pipeline: after a failure, statements are executed again.

        Args:
            under_way: called when what there is has gone out, before anything is waited for.
        """
        return self._collect(self._pg.pipeline_sync, under_way, synced=True)

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        self._connection.close()

    def release(self) -> psycopg.Connection[Any]:
        """Return the connection as the driver made it; this one is of no use from then on."""
        self._pg.exit_pipeline_mode()
        return self._connection

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._descriptor

    # -- waiting ---------------------------------------------------------------------------------

    def _collect(
        self,
        finish: Callable[[], object],
        under_way: Callable[[], None] | None = None,
        *,
        synced: bool = False,
    ) -> list[Rows]:
        self.warned = False
        if self._held:
            self._let_go()
        ends = min(self._clock.boottime() + self._deadline, self.limit)
        try:
            self._flush(finish, under_way, ends)
            return self._read(ends, synced=synced)
        except StatementFailed:
            raise
        except BaseException:  # such as Ctrl-C: what comes later must not read these answers
            self.close()
            raise

    def _flush(
        self, finish: Callable[[], object], under_way: Callable[[], None] | None, ends: float
    ) -> None:
        try:
            finish()
            left = self._pg.flush()
        except Exception as error:
            raise ConnectionLost(_words(error)) from error
        if under_way is not None:
            under_way()
        try:
            while left:
                self._wait(select.POLLIN | select.POLLOUT, ends)
                self._pg.consume_input()
                left = self._pg.flush()
        except ConnectionLost:
            raise
        except Exception as error:
            raise ConnectionLost(_words(error)) from error

    def _read(self, ends: float, *, synced: bool) -> list[Rows]:
        expected, self._expected = self._expected, []
        failure: StatementFailed | None = None
        found: list[Rows] = []
        for position, sent in enumerate(expected):
            result = self._result(ends)
            status = result.status
            if sent.preparing is not None and status != _COMMAND_OK:
                self._prepared.discard(sent.preparing)  # skipped behind a statement that failed
            if status in _FAILED and failure is None:
                failure = self._failed(result)
                if not synced:
                    self._expected, self._skipping = expected[position + 1 :], True
                    raise failure
            elif sent.wanted:
                found.append(load(result))
        while synced and self._result(ends).status != _PIPELINE_SYNC:
            pass
        if synced:
            self._skipping = False
        if failure is not None:
            raise failure
        return found

    def _result(self, ends: float) -> pq.abc.PGresult:
        """Return the answer to the next statement, or the mark of the pipeline's end."""
        connection = self._pg
        try:
            while connection.is_busy():
                self._wait(select.POLLIN, ends)
                connection.consume_input()
            result = connection.get_result()
            if result is not None and result.status != _PIPELINE_SYNC:
                while connection.is_busy():
                    self._wait(select.POLLIN, ends)
                    connection.consume_input()
                connection.get_result()  # the end of one statement's answer
        except ConnectionLost:
            raise
        except Exception as error:
            raise ConnectionLost(_words(error)) from error
        if result is None:
            raise ConnectionLost("the connection ended")
        return result

    def _wait(self, events: int, ends: float) -> None:
        left = ends - self._clock.boottime()
        if events != select.POLLIN:
            self._poll.modify(self._descriptor, events)
        ready = left > 0 and self._poll.poll(left * 1000)
        if events != select.POLLIN:
            self._poll.modify(self._descriptor, select.POLLIN)
        if not ready:
            raise ConnectionLost("the server didn't answer in time", late=True)

    def _failed(self, result: pq.abc.PGresult) -> StatementFailed:
        state = (result.error_field(_STATE) or b"").decode()
        text = (result.error_field(_TEXT) or b"").decode(errors="replace")
        if not state or self._pg.status == _BAD:
            raise ConnectionLost(text or "the connection broke")
        return StatementFailed(state, text)

    def _notice(self, _result: pq.abc.PGresult) -> None:
        self.warned = True


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _is_small(params: Mapping[str, Any]) -> bool:
    """Say whether a row may be held back; what can't be sent is refused at once."""
    for value in params.values():
        if isinstance(value, str):
            refuse_zero(value)
        if isinstance(value, (str, bytes)) and len(value) > SMALL:
            return False
    return True

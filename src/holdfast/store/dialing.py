"""Connects to PostgreSQL, and waits longer and longer while that fails.

Only a server that takes writes will do, and none that this program knows to have been replaced.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from holdfast.store.postgres_errors import unavailable, words
from holdfast.store.postgres_queries import make_query
from holdfast.store.wire import ConnectionLost, StatementFailed, Wire

if TYPE_CHECKING:
    from holdfast.clock import Clock
    from holdfast.store.postgres_url import Place

_log = logging.getLogger("holdfast")

PAUSE = 0.1
"""Seconds between two tries to connect, doubled each time, at most `PAUSE_MAX`."""

PAUSE_MAX = 2.0

_LEAST_TIMEOUT = 2  # seconds; the driver takes less for this

_FACTS = make_query(
    "facts",
    """
SELECT current_setting('synchronous_commit'), pid, backend_start::text
FROM pg_stat_activity WHERE pid = pg_backend_pid()
""",
)

_BY_INDEX = make_query(
    "by_index",
    """
SELECT set_config(name, 'off', false) FROM (VALUES ('enable_seqscan'), ('jit')) AS settings (name)
WHERE current_setting(name, true) IS NOT NULL
""",
)._replace(wanted=False)
"""A prepared statement keeps its plan. One that was made while a table was small would read all of
it until the server counts the table again, a minute and a hundred thousand rows later."""

_SERVER = make_query(
    "server",
    """
SELECT system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
FROM pg_control_system()
""",
)


class Server(NamedTuple):
    """Which of the servers that hold the same data this is.

    Args:
        system: the same for a primary and its standbys.
        timeline: grows whenever a standby is promoted.
    """

    system: str
    timeline: int


class Newest:
    """The newest server that this program has talked to.

    A primary that was frozen, replaced, and wakes still takes itself for one. It can't acknowledge
    a commit, since its standby left it, but it answers what reads from it, and with the past.
    """

    server: Server | None = None

    def admit(self, server: Server | None) -> bool:
        """Take note of a server; False when another one has replaced it."""
        known = self.server
        if server is None:
            return True
        if known is not None and known.system == server.system and known.timeline > server.timeline:
            return False
        self.server = server
        return True


class Dialer:
    """Makes connections to one place.

    Args:
        place: what the URL says. Where it names several hosts, the one that served last is tried
            first, unless a connection to it was lost since.
        clock: what is asked for time.
        deadline: seconds that a wait on a connection may take.
        newest: shared by those who must not talk to different servers.
        name: what the server calls the connections; after the schema when None.
    """

    def __init__(
        self,
        place: Place,
        clock: Clock,
        deadline: float,
        newest: Newest | None = None,
        name: str | None = None,
    ) -> None:
        self._place = place
        self._clock = clock
        self._deadline = deadline
        self.newest = newest or Newest()
        self._name = name or f"holdfast/{place.schema}"
        self._hosts = _split(place.server)
        self._first = 0
        self._failures = 0
        self._retry_at = 0.0
        self._lock = threading.Lock()

    def dial(self) -> psycopg.Connection[Any]:
        """Return a connection as the driver makes it, to the server that takes writes.

        Raises:
            psycopg.Error: there is none to be had.
        """
        return self._reach().release()

    def _reach(self) -> Wire:
        """Return a connection to the first host that will do.

        The hosts share the deadline; one that is not reached in time is the first the next time.
        """
        ends = self._clock.boottime() + self._deadline
        said: list[str] = []
        for untried in range(len(self._hosts), 0, -1):
            left = ends - self._clock.boottime()
            if said and left <= 0:
                break
            try:
                return self._call(self._first, int(left / untried))
            except (psycopg.Error, ConnectionLost, StatementFailed) as error:
                said.append(words(error))
                self.move_on(self._first)
        raise psycopg.OperationalError("; ".join(said))

    def _call(self, host: int, timeout: int) -> Wire:
        connection = psycopg.connect(
            self._hosts[host],
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=max(_LEAST_TIMEOUT, timeout),
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=int(self._deadline * 1000),
            target_session_attrs="read-write",
            application_name=self._name,
        )
        wire = Wire(connection, self._clock, self._deadline)
        try:
            self._ask(wire, connection.pgconn.backend_pid)
            wire.host = host
        except BaseException:
            wire.close()
            raise
        return wire

    def _ask(self, wire: Wire, seen: int) -> None:
        """Ask what must be known of a connection; refuse a server that was replaced."""
        wire.send(_FACTS, {})
        ((level, backend, started),) = wire.sync()[0]
        # A pooler gives its clients process ids of its own.
        direct = backend == seen
        wire.prepare = direct if self._place.prepare is None else self._place.prepare
        if direct:
            wire.send(_BY_INDEX, {})
        wire.backend = (backend, started) if direct else None
        wire.is_durable = level in {"on", "remote_apply"}
        wire.server = _server_of(wire)
        if not self.newest.admit(wire.server):
            raise psycopg.OperationalError(
                "it was replaced by a standby, which this program has worked with. Should it be "
                "the primary again, what was recorded on the other is lost: see to that, and "
                "start this program anew"
            )

    def move_on(self, host: int) -> None:
        """Begin with the next host the next time, where this one would be the first."""
        if host == self._first:
            self._first = (host + 1) % len(self._hosts)

    def connect(self) -> Wire:
        """Return a new connection, not before the pause after the last failure is over.

        Raises:
            StoreUnavailableError: there is none to be had.
        """
        with self._lock:
            wait = self._retry_at - self._clock.boottime()
            if wait > 0:
                threading.Event().wait(min(wait, self._deadline))
            try:
                wire = self._reach()
            except psycopg.Error as error:
                self._failed(error)
                raise unavailable(self._place.shown, words(error)) from error
            if self._failures:
                _log.warning("The database %s is back.", self._place.shown)
            self._failures = 0
            return wire

    def _failed(self, error: psycopg.Error) -> None:
        if not self._failures:
            _log.warning("The database %s is away: %s", self._place.shown, words(error))
        self._failures += 1
        pause = min(PAUSE_MAX, PAUSE * 2 ** min(self._failures, 10))
        self._retry_at = self._clock.boottime() + pause


def _split(server: str) -> list[str]:
    """Return what the driver is told for each of the hosts that a URL names."""
    told = conninfo_to_dict(server)
    lists = {
        name: str(told[name]).split(",") for name in ("host", "hostaddr", "port") if told.get(name)
    }
    many = max([len(each) for each in lists.values()], default=1)
    return [
        make_conninfo("", **{**told, **{k: v[n if len(v) > 1 else 0] for k, v in lists.items()}})
        for n in range(many)
    ]


def _server_of(wire: Wire) -> Server | None:
    """Return which server a connection leads to; None where it doesn't say."""
    wire.send(_SERVER, {})
    try:
        (((system, timeline),),) = wire.sync()
    except StatementFailed:
        return None
    return Server(system, int(timeline, 16))

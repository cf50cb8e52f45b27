"""Connects to PostgreSQL, and waits longer and longer while that fails."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import psycopg

from holdfast.store.postgres_errors import unavailable, words
from holdfast.store.wire import Wire

if TYPE_CHECKING:
    from holdfast.clock import Clock
    from holdfast.store.postgres_url import Place

_log = logging.getLogger("holdfast")

PAUSE = 0.1
"""Seconds between two tries to connect, doubled each time, at most `PAUSE_MAX`."""

PAUSE_MAX = 2.0

_LEAST_TIMEOUT = 2  # seconds; the driver takes less for this

_FACTS = """
SELECT current_setting('synchronous_commit'), pid, backend_start::text
FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""


class Dialer:
    """Makes connections to one place.

    Args:
        place: what the URL says.
        clock: what is asked for time.
        deadline: seconds that a wait on a connection may take.
    """

    def __init__(self, place: Place, clock: Clock, deadline: float) -> None:
        self._place = place
        self._clock = clock
        self._deadline = deadline
        self._failures = 0
        self._retry_at = 0.0
        self._lock = threading.Lock()

    def dial(self) -> psycopg.Connection[Any]:
        """Return a connection as the driver makes it.

        Raises:
            psycopg.Error: there is none to be had.
        """
        return psycopg.connect(
            self._place.server,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=max(_LEAST_TIMEOUT, int(self._deadline)),
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=int(self._deadline * 1000),
            target_session_attrs="read-write",
            application_name="holdfast",
        )

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
                wire = self._wire()
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

    def _wire(self) -> Wire:
        connection = self.dial()
        try:
            row = connection.execute(_FACTS).fetchone()
        except BaseException:
            connection.close()
            raise
        level, backend, started = row or ("", 0, "")
        # A pooler gives its clients process ids of its own.
        direct = backend == connection.pgconn.backend_pid
        prepare = direct if self._place.prepare is None else self._place.prepare
        wire = Wire(connection, self._clock, self._deadline, prepare=prepare)
        wire.backend = (backend, started) if direct else None
        wire.is_durable = level in {"on", "remote_apply"}
        return wire

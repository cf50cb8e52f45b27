"""Hears of other programs' commits: notifications where there are any, and now and then anyway."""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from holdfast.clock import Clock
    from holdfast.store.dialing import Dialer, Newest

POLL = 1.0
"""Seconds after which something may have happened, as long as nobody listens."""

POLL_LISTENING = 5.0
"""The same while notifications come."""

_PAUSE = 2.0


class Listener:
    """Counts what other connections announce, on a thread and a connection of its own.

    Args:
        dialer: leads to the server directly; None to do without notifications.
        channel: what to listen to.
        clock: what is asked for time.
    """

    def __init__(self, dialer: Dialer | None, channel: str, clock: Clock) -> None:
        self._dialer = dialer
        self._channel = channel
        self._clock = clock
        self._heard = 0
        self._listening = False
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()

    def version(self) -> int:
        """Return a number that grows when another program may have committed."""
        with self._starting:
            if self._thread is None and self._dialer is not None and not self._stopping.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="holdfast-listener", daemon=True
                )
                self._thread.start()
        every = POLL_LISTENING if self._listening else POLL
        return (self._heard << 40) + int(self._clock.boottime() / every)

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        with self._starting:
            self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        dialer = self._dialer
        while dialer is not None and not self._stopping.is_set():
            try:
                with dialer.dial() as connection:
                    if _is_pooled(connection):
                        return  # a pooler passes no notifications on: look now and then
                    self._listen(connection, dialer.newest)
            except (psycopg.Error, OSError):
                pass
            self._listening = False
            self._stopping.wait(_PAUSE)

    def _listen(self, connection: psycopg.Connection[Any], newest: Newest) -> None:
        server = newest.server
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        self._listening = True
        self._heard += 1  # whatever was announced before is not heard
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        # A server that was replaced says nothing more, and may never say so.
        while newest.server == server and not self._stopping.is_set():
            if not poll.poll(200):
                continue
            connection.pgconn.consume_input()
            while connection.pgconn.notifies() is not None:
                self._heard += 1


def _is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Say whether a pooler stands between: it gives its clients process ids of its own."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != connection.pgconn.backend_pid

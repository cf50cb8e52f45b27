"""The store: verbs in, outcomes out, on any engine."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from holdfast import errors
from holdfast.ids import new_id
from holdfast.secret import release_key, use_key
from holdfast.store.committer import Committer, running_loop
from holdfast.store.engine import RemoteEngine
from holdfast.store.rounds import drive
from holdfast.store.ticket import Ticket
from holdfast.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from holdfast.clock import Clock
    from holdfast.store.engine import Engine
    from holdfast.store.verb import Verb

T = TypeVar("T")

_log = logging.getLogger("holdfast")

DEADLINE = 5.0
"""Seconds any call to the database may take; below a third of the default lease."""


class Pending(Generic[T]):
    """A write on its way: await it, wait for it in a thread, or leave it behind.

    When awaiting or waiting returns, the write is durable; when it raises, nothing of it was kept
    (or, for `StoreUnavailableError`, all or nothing: the message says so).
    """

    __slots__ = ("_committer", "_deadline", "_ticket")

    def __init__(self, committer: Committer, verb: Verb[T], deadline: float) -> None:
        self._committer = committer
        self._deadline = deadline
        self._ticket = Ticket(verb)

    def __await__(self) -> Generator[Any, None, T]:
        ticket = self._ticket
        if self._committer.submit(ticket):
            try:
                yield  # others submit theirs meanwhile; who has the first turn again commits all
            except asyncio.CancelledError:
                self._committer.flush(ticket)
                raise
            self._committer.flush(ticket)
        if not ticket.done:
            ticket.future = asyncio.get_running_loop().create_future()
            yield from ticket.future.__await__()
        return ticket.outcome()

    def wait(self, timeout: float | None = None) -> T:
        """Commit from a thread and return the result. `timeout` is in seconds."""
        seconds = self._deadline if timeout is None else timeout
        self._committer.submit_and_wait(self._ticket, seconds)
        return self._ticket.outcome()

    def within(self, seconds: float) -> T:
        """Commit on the committer's own thread, and wait no longer than this whatever happens.

        A thread that waits with `wait` may do what others have queued as well.

        Raises:
            StoreUnavailableError: it took longer; it may still be kept.
        """
        self._committer.submit_within(self._ticket, seconds)
        return self._ticket.outcome()

    def behind(self) -> Ticket[T]:
        """Commit with the next write that somebody waits for, or shortly after.

        The order of writes is kept: a later one of the same item that is durable means that this
        one is. Look at `Ticket.error` once it is done. Works with and without an event loop.
        """
        if running_loop() is None:
            self._committer.submit_behind(self._ticket)
        else:
            self._committer.submit(self._ticket, soon=False)
        return self._ticket


class Store:
    """One open database.

    Every verb of `holdfast.store.verbs` is one transaction; a verb under a lease first updates its
    item's row, which locks it and checks the fencing token.

    Args:
        engine: the database.
        clock: what is asked for wall time.
        deadline: seconds that a call may take.
        secret_key: what secrets are digested with while this is open.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        deadline: float = DEADLINE,
        secret_key: bytes | None = None,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.deadline = deadline
        self.writer_id = new_id(clock.now())
        self._is_remote = isinstance(engine, RemoteEngine)
        self._listeners: set[Callable[[], object]] = set()
        self._committer = Committer(engine, clock, self.writer_id, self._wake)
        self._closing = threading.Lock()
        self._closed = False
        self._secret_key = secret_key
        if secret_key is not None:
            use_key(secret_key)

    def commit(self, verb: Verb[T]) -> Pending[T]:
        """Return the write, not yet under way: await it, `wait` for it, or leave it `behind`.

        Raises:
            LeaseLostError: (when waited for) another worker holds the lease now.
            StoreUnavailableError, StoreFullError, StoreCorruptError: see there.
        """
        return Pending(self._committer, verb, self.deadline)

    def read(self, verb: Verb[T]) -> T:
        """Run a verb that only reads and return its result."""
        return drive(verb.start(), self.engine.read)

    @property
    def secret_key(self) -> bytes | None:
        """What secrets are digested with while this is open, unless the environment says."""
        return self._secret_key

    async def beside(self, reading: Callable[[], T]) -> T:
        """Call what only reads; on a thread of its own where every read is a journey.

        A server that doesn't answer would hold up the whole event loop, and with it the end of
        attempts whose lease it can't renew.
        """
        return await start_thread(reading) if self._is_remote else reading()

    def now(self) -> float:
        """Return the wall time in seconds."""
        return self.clock.now()

    def on_wake(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener` (from any thread) when this process made something ready.

        Returns a function that takes it off the list.
        """
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def _wake(self) -> None:
        for listener in tuple(self._listeners):
            try:
                listener()
            except Exception:  # noqa: BLE001  the writes are kept, and the other listeners must hear of them
                _log.exception("a listener of the store failed")

    def close(self) -> None:
        """Commit what is queued and close. Safe to call twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        try:
            self._committer.close()
            self.engine.close()
        except BaseException:  # such as Ctrl-C while it waited: it may be closed again
            self._closed = False
            raise
        if self._secret_key is not None:
            release_key(self._secret_key)

    def __enter__(self) -> Self:
        if self._closed:
            message = "The store is closed. Open it again."
            raise errors.StoreUnavailableError(message)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""Changes of a database: what all who wait for something in one event loop hear of, together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from holdfast import errors
from holdfast.store import Store

POLL = 0.05
"""Seconds between looks at whether another process committed anything."""

LOOK = 0.25
"""Seconds after which something may have changed although nothing was heard of: not every server
tells."""


class _Next(threading.local):
    """The next change that this thread's event loop waits for, and how to stop listening."""

    change: asyncio.Future[None] | None = None
    unwatch: Callable[[], None] | None = None


class Changes:
    """Tells an event loop when something may have been committed; a hundred wait as cheaply as one.

    What this process commits is heard of at once; what another does, within `POLL` seconds where
    the database tells of commits, and within `LOOK` seconds where it doesn't.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = _Next()

    def next(self) -> asyncio.Future[None]:
        """Return a future that is done after the next change. Many wait for it: don't cancel it.

        Ask for it before looking at what may change, so that nothing comes between.
        """
        loop, next_ = asyncio.get_running_loop(), self._next
        change = next_.change
        if change is None or change.done() or change.get_loop() is not loop:
            if next_.unwatch is not None:
                next_.unwatch()
            change = next_.change = loop.create_future()
            next_.unwatch = self._watch(change, loop)
        return change

    def _watch(
        self, change: asyncio.Future[None], loop: asyncio.AbstractEventLoop
    ) -> Callable[[], None]:
        version = self._store.engine.data_version()
        ends = loop.time() + LOOK

        def tell() -> None:
            if not change.done():
                change.set_result(None)

        def look() -> None:
            with suppress(errors.StoreError):  # whoever waits finds out what it is
                if self._store.engine.data_version() == version and loop.time() < ends:
                    if not change.done():
                        loop.call_later(POLL, look)
                    return
            tell()

        def heard() -> None:
            with suppress(RuntimeError):  # the loop is closed, and so nobody waits
                loop.call_soon_threadsafe(tell)

        loop.call_later(POLL, look)
        return self._store.on_wake(heard)

"""Turns of an event loop: when what its tasks submit is committed, and who needn't wait for it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ALONE = 4
"""Commits in a row that a task may make without a turn of its loop, when it was the only one at the
last turn."""

WRITE_BEHIND_DELAY = 0.02
"""Seconds after which an operation nobody waits for is committed, if no other came by."""


class Turns(threading.local):
    """Those of the event loop of each thread."""

    _loop: asyncio.AbstractEventLoop | None = None
    _soon = False  # what the loop was asked to call
    _later = False
    _task = 0  # the `id` of the one that was alone
    _left = 0  # how often it may commit without a turn

    def ask_for_one(
        self, loop: asyncio.AbstractEventLoop, flush: Callable[[], None], *, soon: bool
    ) -> None:
        """Have the loop call `flush` at the end of this turn, or after `WRITE_BEHIND_DELAY`."""
        if self._loop is not loop:  # what an earlier loop was asked for, it may never call
            self._loop, self._soon, self._later = loop, False, False
        if soon and not self._soon:
            self._soon = True
            loop.call_soon(flush)
        elif not soon and not (self._soon or self._later):
            self._later = True
            loop.call_later(WRITE_BEHIND_DELAY, flush)

    def asked_for_none(self) -> None:
        """Note that all that is queued is being committed."""
        self._soon = self._later = False

    def begin(self, queued: int) -> None:
        """Note that the running task has the first turn, with so many operations to commit."""
        self._task = id(asyncio.current_task())
        self._left = ALONE if queued == 1 else 0

    def needs_none(self, queued: int) -> bool:
        """Say whether the running task may commit at once, and count that it does."""
        if not self._left or queued > 1 or self._task != id(asyncio.current_task()):
            return False
        self._left -= 1
        return True

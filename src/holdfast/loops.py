"""One contract for everything that runs again and again in the background."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from holdfast import errors

log = logging.getLogger("holdfast")

PAUSE = 0.1
"""Seconds before a failed tick is tried again; doubled at each further failure."""

PAUSE_MAX = 5.0
"""Seconds between tries at most."""


class Loop(ABC):
    """Calls `tick` every `interval` seconds until it is stopped.

    A tick that fails is tried again with growing pauses and doesn't end the loop. A failure is
    reported once, not at every tick, and so is its end.

    Args:
        interval: seconds between the end of one tick and the start of the next.
        pause_max: seconds between tries of a failed one at most.
    """

    def __init__(self, interval: float, pause_max: float = PAUSE_MAX) -> None:
        self.interval = interval
        self._pause_max = pause_max
        self._name = type(self).__name__.lstrip("_")
        self._running: asyncio.Task[None] | None = None
        self._failing = ""

    @abstractmethod
    async def tick(self) -> None:
        """Do the work once."""

    def start(self) -> None:
        """Start, if it isn't running."""
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Stop and wait until it has. Safe to call twice and before `start`."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
            self._running = None

    async def _run(self) -> None:
        pause = self.interval
        while True:
            worked = await self._try()
            pause = self.interval if worked else min(self._pause_max, max(PAUSE, pause * 2))
            await asyncio.sleep(pause)

    async def _try(self) -> bool:
        try:
            await self.tick()
        except Exception as error:  # noqa: BLE001  a loop outlives any tick
            self._report(error)
            return False
        if self._failing:
            log.warning("%s works again.", self._name)
        self._failing = ""
        return True

    def _report(self, error: Exception) -> None:
        failing, self._failing = self._failing, type(error).__name__
        if failing == self._failing:
            return
        if isinstance(error, errors.StoreError):
            log.warning("%s waits for the database: %s", self._name, error)
        else:
            log.error("%s failed; it goes on.", self._name, exc_info=error)

"""A clock that stands still until a test moves it."""

from __future__ import annotations


class ManualClock:
    """A `Clock` whose time passes only in `advance`.

    Args:
        now: wall time to start at, in seconds since 1970-01-01 UTC.
        boottime: seconds since boot to start at.
    """

    def __init__(self, now: float = 1_700_000_000.0, boottime: float = 1000.0) -> None:
        self._now = now
        self._boottime = boottime

    def now(self) -> float:
        """Return the wall time, in seconds since 1970-01-01 UTC."""
        return self._now

    def boottime(self) -> float:
        """Return seconds since boot."""
        return self._boottime

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now += seconds
        self._boottime += seconds

    def set_wall(self, now: float) -> None:
        """Set the wall clock, as an administrator may; the boot-time clock doesn't notice."""
        self._now = now

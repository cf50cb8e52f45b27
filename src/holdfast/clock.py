"""The only place that reads a clock.

Wall time is for people and for timers that outlive a boot. Everything that decides about a lease
uses `boottime`, which no administrator can set and which goes on during suspend.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What Holdfast asks about time. All values are in seconds."""

    def now(self) -> float:
        """Return the wall time, in seconds since 1970-01-01 UTC."""
        ...

    def boottime(self) -> float:
        """Return seconds since the machine started; never goes back, includes suspend."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        """Return the wall time, in seconds since 1970-01-01 UTC."""
        return time.time()

    def boottime(self) -> float:
        """Return seconds since boot, including suspend where the platform can tell."""
        return time.clock_gettime(_BOOT_CLOCK)


def _pick_boottime() -> int:
    # macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC already includes suspend.
    return getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


_BOOT_CLOCK = _pick_boottime()

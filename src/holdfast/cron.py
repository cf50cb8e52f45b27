"""Cron expressions in a time zone: when they are due next."""

from __future__ import annotations

from datetime import datetime, tzinfo

import msgspec

from holdfast import errors

_FIELDS = "minute hour day month weekday, such as '0 9 * * mon-fri'"


class Cron(msgspec.Struct, frozen=True):
    """A cron expression in a time zone.

    What is due at a fixed time of day is due once a day. Where the clocks go forward over that
    time, it is due as soon as they have; where they go back, at the first of the two. What is due
    every so many minutes or hours goes by the time that really passes.

    Args:
        expression: five fields, as in Debian's cron: minute, hour, day, month, weekday. Or six,
            seconds first.
        timezone: a name of the IANA time zone database.
    """

    expression: str
    timezone: str = "UTC"

    def check(self) -> None:
        """Refuse what can never be due.

        Raises:
            UsageError: the expression or the time zone can't be read, or there is no such day.
        """
        self.next_after(0.0)

    def next_after(self, at: float) -> float:
        """Return when it is due next after a moment; both are wall time in seconds.

        Raises:
            UsageError: see `check`.
        """
        from cronsim import CronSim, CronSimError

        zone = self._zone()
        try:
            for due in CronSim(self.expression, datetime.fromtimestamp(at, zone)):
                # Where the clocks are set back, the time of day alone says too little.
                if due.timestamp() > at:
                    return due.timestamp()
        except CronSimError as error:
            message = f"{self.expression!r} is no cron expression: {error}. Use {_FIELDS}."
            raise errors.UsageError(message) from None
        message = f"{self.expression!r} is never due: there is no such day."
        raise errors.UsageError(message)

    def shown(self, at: float) -> str:
        """Return a moment, wall time in seconds, as date and time of the time zone."""
        return datetime.fromtimestamp(at, self._zone()).isoformat()

    def _zone(self) -> tzinfo:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            message = f"There is no time zone {self.timezone!r}. Use a name like 'Europe/Berlin'."
            raise errors.UsageError(message) from None

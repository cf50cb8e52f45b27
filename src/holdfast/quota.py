"""How long a model call waits that its provider refuses for now.

Each refusal is an entry of the journal, with the time from which the call may be made anew. A call
that is made in another attempt goes on counting where the one before it stopped.
"""

from __future__ import annotations

from holdfast import errors

QUOTA_WAIT = 86_400.0
"""Seconds one call waits at most, from its first refusal, if no option says otherwise."""

MAX_REFUSALS = 100
"""How often one call is made anew at most."""

PAUSE = 15.0
"""Seconds before the second try where the provider doesn't say; doubled each time."""

LONGEST_PAUSE = 900.0


class Refusals:
    """The refusals of one call.

    Args:
        limit: seconds it may wait in all; 0 never waits.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = QUOTA_WAIT if limit is None else limit
        self._since: float | None = None
        self._count = 0
        self.retry_at: float | None = None
        """Wall time, in seconds, before which the call isn't made; None when nothing keeps it."""

    def note(self, at: float, retry_at: float | None) -> None:
        """Count a refusal that is recorded."""
        self._since = at if self._since is None else self._since
        self._count += 1
        self.retry_at = retry_at

    def allow(self, error: errors.RateLimitedError, now: float) -> float | None:
        """Return when the call may be made anew after one more refusal; None: it fails."""
        if error.retry_at is not None:
            retry_at = error.retry_at
        elif error.retry_after is not None:
            retry_at = now + error.retry_after
        else:
            retry_at = now + min(PAUSE * 2**self._count, LONGEST_PAUSE)
        since = now if self._since is None else self._since
        too_long = self._limit <= 0 or max(retry_at, now) - since > self._limit
        return None if too_long or self._count >= MAX_REFUSALS else retry_at

"""What an answer of PostgreSQL means to whoever asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast import errors

if TYPE_CHECKING:
    from holdfast.store.wire import StatementFailed

AGAIN = {
    "23505",  # unique: another transaction made the same row; run again, it is found
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock not available
}
"""SQLSTATEs after which the same may succeed."""

_FULL = {"53100", "53200"}
_CORRUPT = {"XX001", "XX002"}
_UNUSABLE = {
    "25006",  # this server became a standby, or its database read-only
    "26000",  # a prepared statement isn't there: a pooler stands between after all
    "42P05",  # or is there already
}
_SHUTTING_DOWN = "57"


def is_unusable(failed: StatementFailed) -> bool:
    """Say whether another connection is needed."""
    return failed.state in _UNUSABLE or failed.state.startswith(_SHUTTING_DOWN)


def translate(failed: StatementFailed, where: str) -> errors.StoreError:
    """Return the `StoreError` that says what a refusal means."""
    if failed.state in _FULL:
        return errors.StoreFullError(
            f"No room left for {where} ({failed}). What was acknowledged is safe, this write was "
            f"not kept. Free some space; work goes on by itself.",
            path=where,
        )
    if failed.state in _CORRUPT:
        return errors.StoreCorruptError(
            f"{where} is damaged ({failed}). Stop its workers and restore it.", path=where
        )
    return unavailable(where, f"{failed}, SQLSTATE {failed.state}")


def unavailable(where: str, why: str) -> errors.StoreUnavailableError:
    """Return the error for a database that failed, and why."""
    return errors.StoreUnavailableError(
        f"{where} failed ({why}). What was acknowledged is safe, this call was not kept; try "
        f"again.",
        path=where,
    )


def words(error: Exception) -> str:
    """Return an error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__

"""Database rows: exactly one row matches, and it has the values that were claimed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.errors import EvidenceIdentifierError, EvidenceInputError
from holdfast.evidence import Evidence, Verdict
from holdfast.verifiers.site import Site, failed, verified

SECONDS = 10.0


def check_row(evidence: Evidence, _previous: Verdict | None, site: Site) -> Verdict:
    """Check the row in its own database, read-only and within a time limit.

    Names are looked up in the database's catalogue and then quoted; values are bound. Neither
    is ever formatted into a statement as text.
    """
    url: str = evidence.params["url"]
    if url.startswith("sqlite:///"):
        from holdfast.verifiers.rows_sqlite import check_sqlite_row

        return check_sqlite_row(evidence, site)
    if url.startswith(("postgresql://", "postgres://")):
        from holdfast.verifiers.rows_postgres import check_postgres_row

        return check_postgres_row(evidence)
    raise EvidenceInputError("A row can be checked at sqlite:///… or postgresql://… only.")


def judge(
    rows: list[dict[str, Any]], values: Mapping[str, Any], equal: Callable[[str], bool]
) -> Verdict:
    """Return the verdict about the rows that matched; at most two of them are needed.

    Args:
        rows: what was found, as plain data.
        values: column to claimed value.
        equal: whether the first row has the claimed value in this column.
    """
    if not rows:
        return failed("no such row")
    if len(rows) > 1:
        return failed("more than one row matches; add columns to `where` until it names one")
    captured = {"row": rows[0]}
    different = [column for column in values if not equal(column)]
    if different:
        found = ", ".join(f"{c} is {_show(rows[0][c])}, not {_show(values[c])}" for c in different)
        return failed(found, captured)
    return verified("the row is there" + (" with these values" if values else ""), captured)


def known_columns(wanted: Iterable[str], catalogue: Iterable[str], table: str) -> None:
    """Refuse column names that the table doesn't have.

    Raises:
        EvidenceIdentifierError: naming the first one.
    """
    have = set(catalogue)
    for column in wanted:
        if column not in have:
            raise EvidenceIdentifierError(
                f"The table {table!r} has no column {column!r}. Nothing was checked.",
                identifier=column,
            )


def unknown_table(table: str) -> EvidenceIdentifierError:
    """Return the error for a table that the catalogue doesn't have."""
    return EvidenceIdentifierError(
        f"The database has no table {table!r}. Nothing was checked.", identifier=table
    )


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004  one line for people

"""Rows in a SQLite file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import apsw

from holdfast.errors import EvidencePathError
from holdfast.evidence import Evidence, Verdict
from holdfast.evidence.inputs import relative_path
from holdfast.verifiers.rows import SECONDS, judge, known_columns, unknown_table
from holdfast.verifiers.site import Site, could_not_tell, failed

_BUSY_MS = 2000
_STEPS_BETWEEN_LOOKS = 10_000


def check_sqlite_row(evidence: Evidence, site: Site) -> Verdict:
    """Check a row in a SQLite file, opened read-only unless a dead writer left it half written."""
    try:
        path, flags = _locate(evidence.params["url"], site)
    except (FileNotFoundError, NotADirectoryError):
        return failed("the database file doesn't exist")
    try:
        try:
            return _look(path, apsw.SQLITE_OPEN_READONLY | flags, evidence.params, site)
        except apsw.ReadOnlyError:
            # A writer was killed inside a transaction. What it left half written is rolled back by
            # the next connection that may write, whosever it is; this one writes nothing else.
            return _look(path, apsw.SQLITE_OPEN_READWRITE | flags, evidence.params, site)
    except apsw.InterruptError:
        return could_not_tell(f"no answer within {SECONDS:g} s")
    except apsw.Error as error:
        return could_not_tell(f"{type(error).__name__}: {error}")


def _look(path: str, flags: int, params: dict[str, Any], site: Site) -> Verdict:
    connection = apsw.Connection(path, flags=flags)
    try:
        connection.set_busy_timeout(_BUSY_MS)
        _limit_time(connection, site)
        connection.execute("PRAGMA query_only = ON")
        return _check(connection, params)
    finally:
        connection.close()


def _locate(url: str, site: Site) -> tuple[str, int]:
    """Return the path to open, and the flags that keep it where it was looked at."""
    name = url.removeprefix("sqlite:///")
    if name.startswith("/"):
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise EvidencePathError(f"{name!r} is no regular file. Nothing was read.", path=name)
        return name, 0
    inside = relative_path(name)
    site.beneath.stat_file(inside)
    # SQLite opens by name. With its NOFOLLOW it refuses a link that appears after the look.
    root = os.path.realpath(site.beneath.root)
    return f"{root}/{inside}", apsw.SQLITE_OPEN_NOFOLLOW


def _limit_time(connection: apsw.Connection, site: Site) -> None:
    deadline = site.clock.boottime() + SECONDS

    def over() -> bool:
        return site.clock.boottime() > deadline or site.stopped()

    # A view can be a query without end.
    connection.set_progress_handler(over, _STEPS_BETWEEN_LOOKS)


def _check(connection: apsw.Connection, params: dict[str, Any]) -> Verdict:
    where: dict[str, Any] = params["where"]
    values: dict[str, Any] = params["values"]
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("BEGIN")
    table = _table(connection, params["table"])
    listed = connection.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))
    known_columns([*where, *values], [str(name) for (name,) in listed], table)
    columns = list(dict.fromkeys([*where, *values]))
    statement = (
        f"SELECT {', '.join(map(_quote, columns))} FROM main.{_quote(table)} "  # noqa: S608
        f"WHERE {' AND '.join(f'{_quote(column)} IS ?' for column in where)} LIMIT 2"
    )
    found = connection.execute(statement, tuple(where.values())).fetchall()
    rows = [dict(zip(columns, row, strict=True)) for row in found]
    return judge(rows, values, lambda column: rows[0][column] == values[column])


def _table(connection: apsw.Connection, name: str) -> str:
    found = connection.execute(
        "SELECT name FROM main.sqlite_schema WHERE type IN ('table', 'view') AND name = ?", (name,)
    ).fetchone()
    if found is None:
        raise unknown_table(name)
    return str(found[0])


def _quote(name: str) -> str:
    """Quote a name that the catalogue has."""
    return '"' + name.replace('"', '""') + '"'

"""Reads rows of a SQLite file: a program of its own, asked on its standard input.

SQLite's locks belong to a process, and closing a file drops all that the process has on it. A
process is not told of its own locks either. Python's `sqlite3` is another SQLite than ours, so
reading here beside a handler's open transaction could roll that back, or damage the database. From
another process nothing can happen: the locks are seen.

It imports nothing of Holdfast, so that it starts quickly.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import apsw

_STEPS_BETWEEN_LOOKS = 10_000


def main() -> None:
    """Answer one question: the rows, the columns or the table that there are, or what went wrong.

    It holds the `path`, whether `links` may lead there, `busy_ms` to wait for locks, the `seconds`
    that all may take, the `table`, the `columns` to return, and the values of some (`where`) that
    name the rows. Of those, no more than two are returned.
    """
    question = json.load(sys.stdin, object_hook=to_bytes)
    try:
        answer = _ask(question)
    except apsw.InterruptError:
        answer = {"error": f"no answer within {question['seconds']:g} s"}
    except apsw.Error as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout, default=from_bytes)


def from_bytes(value: bytes) -> dict[str, str]:
    """Return bytes as JSON has them."""
    return {"hex": value.hex()}


def to_bytes(value: dict[str, Any]) -> Any:  # noqa: ANN401  any JSON
    """Undo `from_bytes`."""
    return bytes.fromhex(value["hex"]) if value.keys() == {"hex"} else value


def _ask(question: dict[str, Any]) -> dict[str, Any]:
    try:
        return _look(question, apsw.SQLITE_OPEN_READONLY)
    except apsw.ReadOnlyError:
        # A writer was killed inside a transaction. What it left half written is rolled back by
        # the next connection that may write, whosever it is; this one writes nothing else.
        return _look(question, apsw.SQLITE_OPEN_READWRITE)


def _look(question: dict[str, Any], flags: int) -> dict[str, Any]:
    links = 0 if question["links"] else apsw.SQLITE_OPEN_NOFOLLOW
    connection = apsw.Connection(question["path"], flags=flags | links)
    try:
        connection.set_busy_timeout(question["busy_ms"])
        # A view can be a query without end.
        deadline = time.monotonic() + question["seconds"]
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("BEGIN")
        return _find(connection, question["table"], question["columns"], question["where"])
    finally:
        connection.close()


def _find(
    connection: apsw.Connection, table: str, columns: list[str], where: dict[str, Any]
) -> dict[str, Any]:
    """Names are looked up in the catalogue and then quoted; values are bound."""
    found = connection.execute(
        "SELECT name FROM main.sqlite_schema WHERE type IN ('table', 'view') AND name = ?", (table,)
    ).fetchone()
    if found is None:
        return {"columns": None}
    listed = connection.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))
    known = [str(name) for (name,) in listed]
    if not set(columns) <= set(known):
        return {"columns": known}
    statement = (
        f"SELECT {', '.join(map(_quote, columns))} FROM main.{_quote(table)} "  # noqa: S608
        f"WHERE {' AND '.join(f'{_quote(column)} IS ?' for column in where)} LIMIT 2"
    )
    rows = connection.execute(statement, tuple(where.values())).fetchall()
    return {"columns": known, "rows": rows}


def _quote(name: str) -> str:
    """Quote a name that the catalogue has."""
    return '"' + name.replace('"', '""') + '"'


if __name__ == "__main__":
    main()

"""Brings a database to the newest schema: numbered files, each recorded in its own transaction.

A migration that is killed half way was never committed, so the next open starts it again. The
lowest reader version that may open the database is kept in SQLite's `user_version`, where it can
be read without opening the file.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from holdfast import errors

if TYPE_CHECKING:
    from collections.abc import Generator

    import apsw

READER_VERSION = 1
"""What this Holdfast can read. A migration that older readers can't cope with raises the bar."""

SEALED = 1_000_000
"""The reader version of a database that was moved: every Holdfast refuses it, whatever its age."""


class Migration(NamedTuple):
    """One numbered file."""

    number: int
    name: str
    sql: str


@cache
def load_migrations(dialect: str) -> tuple[Migration, ...]:
    """Return the dialect's migrations, in order."""
    folder = resources.files(__package__).joinpath("sql", dialect, "migrations")
    found: list[Migration] = []
    for file in folder.iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name, file.read_text("utf-8")))
    return tuple(sorted(found))


def migrate(connection: apsw.Connection, application_id: int, now: float, path: str | None) -> bool:
    """Bring the database up to date, one transaction for each migration.

    Returns whether anything was to be done.

    Raises:
        NotHoldfastError: the database holds somebody else's tables.
        StoreTooNewError: only a newer Holdfast may open it.
        StoreMovedError: nobody may open it any more.
    """
    migrations = load_migrations("sqlite")
    with _transaction(connection, "BEGIN"):
        applied = _applied(connection, application_id, path)
    missing = [migration for migration in migrations if migration.number not in applied]
    for migration in missing:
        with _transaction(connection, "BEGIN IMMEDIATE"):
            # Another process may have been faster while this one waited for the lock.
            if migration.number not in _applied(connection, application_id, path):
                _apply(connection, migration, application_id, now)
    return bool(missing)


def refuse_reader(needs: int, path: str) -> None:
    """Refuse a database that is not for this Holdfast to open.

    Args:
        needs: the lowest reader version that may open it.
        path: the file, or the URL without its password.

    Raises:
        StoreMovedError: for none, since it was moved.
        StoreTooNewError: only for a newer one.
    """
    refuse_moved(needs, path)
    if needs > READER_VERSION:
        message = (
            f"{path} needs a Holdfast that reads version {needs}; this one reads up to "
            f"{READER_VERSION}. It was not touched. Upgrade this Holdfast."
        )
        raise errors.StoreTooNewError(message, path=path, needs=needs, reads=READER_VERSION)


def refuse_moved(needs: int, path: str | None = None) -> None:
    """Refuse a database that was moved.

    Raises:
        StoreMovedError: it was.
    """
    if needs == SEALED:
        message = (
            f"Everything in {path or 'this database'} was moved to another database by `holdfast "
            f"copy`. Nothing was changed: two databases with the same tasks would do everything "
            f"twice. Open the other."
        )
        raise errors.StoreMovedError(message, path=path)


@contextmanager
def _transaction(connection: apsw.Connection, begin: str) -> Generator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _applied(connection: apsw.Connection, application_id: int, path: str | None) -> set[int]:
    """Return the migrations the database has. Inside a transaction, so that it is one moment's."""
    owner = connection.pragma("application_id")
    if owner == application_id:
        refuse_reader(int(connection.pragma("user_version")), path or "")
        return {int(str(row[0])) for row in connection.execute("SELECT number FROM migrations")}
    if owner != 0 or connection.execute("SELECT 1 FROM sqlite_schema").fetchall():
        message = f"{path} belongs to another program; it was not touched. Name another file."
        raise errors.NotHoldfastError(message, path=path)
    return set()


def _apply(
    connection: apsw.Connection, migration: Migration, application_id: int, now: float
) -> None:
    connection.pragma("application_id", application_id)
    if migration.number == 1:
        connection.pragma("user_version", 1)
    connection.execute(migration.sql)
    connection.execute(
        "INSERT INTO migrations (number, name, applied_at) VALUES (?, ?, ?)",
        (migration.number, migration.name, now),
    )

"""Brings a schema of a PostgreSQL database up to date, and refuses what isn't ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from holdfast import errors
from holdfast.store.keyfile import new_key
from holdfast.store.migrations import load_migrations, refuse_reader

if TYPE_CHECKING:
    from holdfast.store.migrations import Migration
    from holdfast.store.postgres_url import Place

_TRIES = 5
"""Without advisory locks, two programs that create the same schema disturb one another."""

_RACES = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
)


def migrate_postgres(connection: psycopg.Connection[Any], place: Place, now: float) -> None:
    """Bring the schema up to date, one transaction for each migration.

    Several programs may do so at once: an advisory lock, where the server has those, makes them
    wait for one another.

    Args:
        connection: in autocommit mode.
        place: where the database is, and the schema's name.
        now: wall time, which is recorded with a migration.

    Raises:
        NotHoldfastError: the schema holds somebody else's tables.
        StoreTooNewError: only a newer Holdfast may open it.
        StoreMovedError: nobody may open it any more.
    """
    for migration in load_migrations("postgres"):
        for left in reversed(range(_TRIES)):
            try:
                _step(connection, place, migration, now)
                break
            except _RACES:
                if not left:
                    raise


def secret_key(connection: psycopg.Connection[Any], schema: str) -> bytes:
    """Return the key that secrets are digested with, the same for every machine."""
    query = sql.SQL("SELECT value FROM {}.meta WHERE name = 'secret_key'")
    row = connection.execute(query.format(sql.Identifier(schema))).fetchone()
    return bytes.fromhex(row[0] if row else "")


def _step(
    connection: psycopg.Connection[Any], place: Place, migration: Migration, now: float
) -> None:
    if migration.number in _applied(connection, place):
        return
    with connection.transaction():
        _lock(connection, place.schema)
        if migration.number not in _applied(connection, place):
            _apply(connection, place.schema, migration, now)


def _lock(connection: psycopg.Connection[Any], schema: str) -> None:
    try:
        with connection.transaction():
            name = f"holdfast.{schema}"
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFunction):
        pass  # an engine without them: see _TRIES


def _applied(connection: psycopg.Connection[Any], place: Place) -> set[int]:
    tables = {
        row[0]
        for row in connection.execute(
            "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
            "WHERE nspname = %s AND relkind IN ('r', 'p', 'v', 'm', 'f')",
            (place.schema,),
        )
    }
    if not tables:
        return set()
    if not tables >= {"meta", "migrations", "work_items"}:
        message = (
            f"The schema {place.schema} of {place.shown} belongs to another program; it was not "
            f"touched. Name another one with ?schema=."
        )
        raise errors.NotHoldfastError(message, path=place.shown)
    schema = sql.Identifier(place.schema)
    query = sql.SQL("SELECT value FROM {}.meta WHERE name = 'reader_version'").format(schema)
    row = connection.execute(query).fetchone()
    refuse_reader(int(row[0]) if row else 0, place.shown)
    query = sql.SQL("SELECT number FROM {}.migrations").format(schema)
    return {int(row[0]) for row in connection.execute(query)}


def _apply(
    connection: psycopg.Connection[Any], schema: str, migration: Migration, now: float
) -> None:
    name = sql.Identifier(schema)
    known = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,))
    if not known.fetchone():  # IF NOT EXISTS asks for the right to create one even so
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
    connection.execute(migration.sql.replace("holdfast.", f"{schema}.").encode())
    if migration.number == 1:
        connection.execute(
            sql.SQL(
                "INSERT INTO {}.meta VALUES ('reader_version', '1'), ('secret_key', %s)"
            ).format(name),
            (new_key().hex(),),
        )
    connection.execute(
        sql.SQL("INSERT INTO {}.migrations (number, name, applied_at) VALUES (%s, %s, %s)").format(
            name
        ),
        (migration.number, migration.name, now),
    )

"""Schemas of a test's own, on a PostgreSQL server that several tests share."""

from __future__ import annotations

import os
from itertools import count

from holdfast.store.postgres_url import parse_url

_numbers = count(1)

_EMPTY = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables
        WHERE schemaname = '{schema}' AND tablename NOT IN ('meta', 'migrations')
    LOOP EXECUTE format('DELETE FROM {schema}.%I', name); END LOOP;
END $$
"""


def new_schema(server_url: str) -> str:
    """Return the URL of a schema that no other test has."""
    joint = "&" if "?" in server_url else "?"
    return f"{server_url}{joint}schema=test_{os.getpid()}_{next(_numbers)}"


def drop_schema(url: str) -> None:
    """Remove a schema, if it is there."""
    _run(url, "DROP SCHEMA IF EXISTS {schema} CASCADE")


def empty_schema(url: str) -> None:
    """Make a schema what it was when it was new, which takes less than to make it anew."""
    _run(url, _EMPTY)


def _run(url: str, statement: str) -> None:
    import psycopg

    place = parse_url(url)
    with psycopg.connect(place.server, autocommit=True) as connection:
        connection.execute(statement.replace("{schema}", place.schema))

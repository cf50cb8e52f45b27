"""Options for every test, and the PostgreSQL that some of them need.

`HOLDFAST_TEST_PG_URL` names a server to use instead of one of our own; its user must be allowed to
create schemas.
"""

from __future__ import annotations

import os
from itertools import count

import pytest
from hypothesis import settings

from holdfast import errors
from holdfast.testing import PostgresServer

# A property must hold, not hold within 200 ms on a busy machine; pytest's own timeout ends what
# hangs. CI also draws the same examples every time, so that a red run can be repeated.
settings.register_profile("holdfast", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "holdfast")

VARIABLE = "HOLDFAST_TEST_PG_URL"

_schemas = count(1)


@pytest.fixture(scope="session")
def postgres_server():
    """Return a PostgreSQL server of this test process's own."""
    pytest.importorskip("psycopg")
    try:
        server = PostgresServer()
    except errors.StoreOpenError as reason:
        pytest.skip(f"NO POSTGRESQL: {reason}")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server_url(request):
    """Return where the PostgreSQL for tests is: the environment's, or else one of our own."""
    return os.environ.get(VARIABLE) or request.getfixturevalue("postgres_server").url


@pytest.fixture
def postgres_url(postgres_server_url):
    """Return the URL of a schema that isn't there yet."""
    import psycopg

    schema = f"test_{os.getpid()}_{next(_schemas)}"
    joint = "&" if "?" in postgres_server_url else "?"
    yield f"{postgres_server_url}{joint}schema={schema}"
    with psycopg.connect(postgres_server_url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")

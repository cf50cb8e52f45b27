"""Options for every test, and the servers that some of them need.

`HOLDFAST_TEST_PG_URL` names a server to use instead of one of our own; its user must be allowed to
create schemas.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from support.model_server import ModelServer
from support.schemas import drop_schema, new_schema

from holdfast import errors
from holdfast.testing import PostgresServer
from holdfast.testing.postgres import BINARIES

# A property must hold, not hold within 200 ms on a busy machine; pytest's own timeout ends what
# hangs. CI also draws the same examples every time, so that a red run can be repeated.
settings.register_profile("holdfast", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "holdfast")

VARIABLE = "HOLDFAST_TEST_PG_URL"


def pytest_xdist_auto_num_workers():
    """Return how many processes run tests: one more than cores, since many tests mostly wait."""
    return min(4, (os.cpu_count() or 1) + 1)


@pytest.fixture(scope="session")
def postgres_servers():
    """Return a function that gives a server of this test process's own, by version."""
    started = {}

    def server(version):
        pytest.importorskip("psycopg")
        if version not in started:
            try:
                started[version] = PostgresServer(version=version)
            except errors.StoreOpenError as reason:
                pytest.skip(f"NO POSTGRESQL: {reason}")
        return started[version]

    yield server
    for each in started.values():
        each.stop()


@pytest.fixture(scope="session")
def postgres_server(postgres_servers):
    """Return a PostgreSQL server of this test process's own."""
    return postgres_servers(os.environ.get(BINARIES) or "18")


@pytest.fixture(scope="session")
def postgres_server_url(request):
    """Return where the PostgreSQL for tests is: the environment's, or else one of our own."""
    return os.environ.get(VARIABLE) or request.getfixturevalue("postgres_server").url


@pytest.fixture
def postgres_url(postgres_server_url):
    """Return the URL of a schema that isn't there yet."""
    url = new_schema(postgres_server_url)
    yield url
    drop_schema(url)


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Start a scripted provider, where the SDKs of both providers look for theirs."""
    started = []

    def start(script):
        server = ModelServer(script, tmp_path / "requests.jsonl")
        started.append(server)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        return server

    yield start
    for server in started:
        server.close()

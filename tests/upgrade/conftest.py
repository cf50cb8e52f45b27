"""Both engines, and a database as the first migration leaves it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import psycopg
import pytest

from holdfast.store import migrations, open_store, postgres_migrations

HERE = Path(__file__).parent


def _load():
    spec = importlib.util.spec_from_file_location("upgrade_program", HERE / "program.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def program():
    return _load()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/holdfast.db"


@pytest.fixture
def migrated_once(url, tmp_path, monkeypatch, program) -> str:
    """A database with the data of `migration_1.jsonl`, to which only that migration was applied."""
    first = {dialect: migrations.load_migrations(dialect)[:1] for dialect in ("sqlite", "postgres")}
    with monkeypatch.context() as patched:
        for module in (migrations, postgres_migrations):
            patched.setattr(module, "load_migrations", first.__getitem__)
        open_store(url).close()
    rows = [json.loads(line) for line in (HERE / "migration_1.jsonl").read_text().splitlines()]
    _insert(url, [
        (table, {name: program.from_text(value, tmp_path) for name, value in values.items()})
        for row in rows
        for table, values in row.items()
    ])  # fmt: skip
    return url


def _insert(url, rows):
    if url.startswith("sqlite"):
        import apsw

        connection = apsw.Connection(url.removeprefix("sqlite:///"))
        with connection:
            for table, values in rows:
                marks = ", ".join("?" * len(values))
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})",  # noqa: S608
                    tuple(values.values()),
                )
        connection.close()
        return
    server, _, schema = url.partition("?schema=")
    with psycopg.connect(server) as connection:
        for table, values in rows:
            given = dict(values)
            if table == "workers":  # what this dialect alone has
                given |= {"process": "", "expires_at": "-infinity"}
            marks = ", ".join(["%s"] * len(given))
            connection.execute(
                f"INSERT INTO {schema}.{table} ({', '.join(given)}) VALUES ({marks})",  # noqa: S608
                tuple(given.values()),
            )

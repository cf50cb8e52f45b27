# ruff: noqa: SLF001  the engine's own connection is asked what a claim looks at
"""A claim looks at as much with many items ready as with few, whoever they are for."""

from __future__ import annotations

import json

import psycopg
import pytest

from holdfast.bench.claims import Ready, fill
from holdfast.bench.figures import Bench
from holdfast.bench.sites import PostgresSite, SqliteSite
from holdfast.models import WorkerRecord
from holdfast.store import open_store, verbs
from holdfast.store.postgres_queries import load_postgres_queries
from holdfast.store.verbs import ClaimFilter

FEW = 200
MANY = 20_000
ASKED = {
    "handlers": json.dumps(["work", "other"]),
    "idle": 1,
    "in_line_since": 0.0,
    "queue": "default",
    "limit": 1,
    "items": '[["a1", "a100"]]',
    "worker_id": "w",
    "now": 1.0,
}


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request, tmp_path):
    site = (
        SqliteSite(tmp_path)
        if request.param == "sqlite"
        else PostgresSite(request.getfixturevalue("postgres_server_url"), tmp_path)
    )
    yield Bench(site, rounds=1, quick=True, tell=lambda _: None)
    site.close()


def _looked_at(bench, *items):
    """Return the steps of the machine on SQLite, the pages on PostgreSQL, to find a candidate."""
    place = bench.place()
    for ready in items:
        fill(bench, place, ready)
    return (_steps if bench.site.name == "sqlite" else _pages)(place.url)


def _steps(url):
    found = []
    with open_store(url) as store:
        connection = store.engine._reader
        connection.set_progress_handler(lambda: found.append(1) or False, 10)
        query = store.engine._queries["item.candidates"]
        assert len(connection.execute(query, ASKED).fetchall()) == 1
    return len(found)


def _pages(url, name="item.candidates"):
    query = load_postgres_queries("holdfast")[name]
    values = [str(ASKED[name]).encode() for name, _ in query.columns]
    explain = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query.sql
    with psycopg.connect(url) as connection:
        for _ in range(2):  # the first looks into the catalogue, too
            connection.execute("SAVEPOINT before")
            answer = connection.pgconn.exec_params(explain, values).get_value(0, 0)
            connection.execute("ROLLBACK TO before")
    plan = json.loads(answer or b"")[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def test_a_claim_looks_at_no_more_with_many_items_than_with_few(bench):
    few = _looked_at(bench, Ready("a", FEW))
    assert _looked_at(bench, Ready("a", MANY)) < 2 * few + 10


def test_a_claim_passes_by_what_no_handler_is_here_for_without_looking_at_it(bench):
    few = _looked_at(bench, Ready("a", FEW))
    behind = (Ready("a", MANY, handler="'elsewhere'"), Ready("b", FEW, order=MANY))
    assert _looked_at(bench, *behind) < 2 * few + 10


@pytest.mark.parametrize("bench", ["postgresql"], indirect=True)
@pytest.mark.parametrize("name", ["item.candidates", "item.claim"])
def test_a_claim_finds_its_item_among_many_of_one_task_at_once(bench, name):
    place = bench.place()
    fill(
        bench, place, Ready("a", MANY)
    )  # and what the server knows of tasks is that they are small
    bench.site.run("UPDATE holdfast.work_items SET item_id = task_id, task_id = 'a1'", place)
    assert _pages(place.url, name) < 100


def test_it_still_takes_the_longest_waiting_of_several_handlers_first(bench):
    place = bench.place()
    fill(bench, place, Ready("a", 20, handler="CASE WHEN i % 3 = 0 THEN 'other' ELSE 'work' END"))
    with open_store(place.url) as store:
        record = WorkerRecord("w", 1, "host", 1, "0", 30.0, 0, "alive", 1.0, 1.0)
        assert store.commit(verbs.register_worker(record)).wait()
        wanted = ClaimFilter(("work", "other"), ("default",))
        claimed = store.commit(verbs.claim_work_items("w", wanted, 7, store.now())).wait()
    assert [each.item.claim_order for each in claimed] == [1, 2, 3, 4, 5, 6, 7]

# ruff: noqa: SLF001  the plan is asked of the connection itself
"""The SQL: every query named, described, used, and answered from an index where it is hot."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

import holdfast.store
from holdfast.store import open_store
from holdfast.store.queries import load_queries

STORE = Path(holdfast.store.__file__).parent
SQL = sorted((STORE / "sql").glob("*/*.sql"))
NAMED = re.compile(r'(?:run|Statement)\(\s*(f?)"([^"]+)"|"([a-z_]+\.[a-z_]+)"')


def _used():
    """Return the query names the code mentions, f-strings expanded by what follows `for`."""
    names, prefixes = set(), set()
    for file in STORE.rglob("*.py"):
        for formatted, given, other in NAMED.findall(file.read_text("utf-8")):
            name = given or other
            if formatted:
                prefixes.add(name.partition("{")[0])
            else:
                names.add(name)
    return names, prefixes


def test_every_query_has_a_line_that_says_its_purpose():
    for file in SQL:
        for block in re.split(r"(?m)^-- name: ", file.read_text("utf-8"))[1:]:
            name, purpose, *_ = block.splitlines()
            assert re.fullmatch(r"-- [A-Z].*[.;:]", purpose), f"{name}: {purpose}"


def test_every_query_is_used_and_every_name_used_is_a_query():
    queries = set(load_queries("sqlite") | load_queries("postgres"))
    names, prefixes = _used()
    missing = {name for name in names if re.fullmatch(r"[a-z_]+\.[a-z_]+", name)} - queries
    unused = {n for n in queries - names if not n.startswith(tuple(prefixes))}
    files = {name for name in missing if name.startswith("llm_cache.")}  # counters
    assert missing - files == set()
    assert unused == set()


def test_both_dialects_have_the_same_queries_but_for_those_of_an_engine_itself():
    own = {name for name in load_queries("postgres") if name.startswith("engine.")}
    assert set(load_queries("postgres")) - own == set(load_queries("sqlite"))


def test_a_comment_is_no_part_of_a_query():
    assert not any(
        "--" in query
        for dialect in ("sqlite", "postgres")
        for query in load_queries(dialect).values()
    )


# name → the parameters of the plan and what it must use
HOT = {
    "item.candidates": "work_items_ready_of_handler",
    "item.candidates_of_roots": "work_items_ready_of_root",
    "item.wake_due": "work_items_wake",
    "item.next_wake": "work_items_wake",
    "item.fence": "PRIMARY KEY",
    "item.hold": "PRIMARY KEY",
    "item.finish": "work_items_by_status",
    "item.lease": "PRIMARY KEY",
    "item.claim": "PRIMARY KEY",
    "item.get": "PRIMARY KEY",
    "item.count_down": "PRIMARY KEY",
    "item.make_ready": "PRIMARY KEY|work_items_by_status",
    "item.restore_unchanged": "PRIMARY KEY|work_items_by_status",
    "item.take_back": "work_items_leased",
    "item.count_leased": "work_items_leased",
    "item.held_by_worker": "work_items_leased",
    "item.prunable": "work_items_restoring",
    "task.census": "work_items_by_status",
    "task.get": "PRIMARY KEY",
    "task.by_key": "tasks_by_key",
    "task.children": "tasks_by_parent",
    "task.wake_parent": "PRIMARY KEY",
    "task.may_finish": "PRIMARY KEY",
    "task.adopt_verification": "tasks_to_verify",
    "task.to_verify": "tasks_to_verify",
    "task.prunable": "tasks_finished",
    "queue.look": "work_items_leased",
    "queue.room": "work_items_running",
    "queue.list": "work_items_ready_of_handler",
    "signal.peek": "PRIMARY KEY",
    "signal.wake": "work_items_by_status",
    "journal.read": "PRIMARY KEY",
    "journal.landed": "PRIMARY KEY",
    "event.list": "PRIMARY KEY",
    "checkpoint.newest": "PRIMARY KEY",
    "claim.list": "claims_by_item|PRIMARY KEY",
    "claim.displace": "PRIMARY KEY",
    "worker.renew": "PRIMARY KEY",
    "cache.hit": "sqlite_autoindex_llm_cache_1",
    "blob.get": "sqlite_autoindex_blobs_1",
    "prune.journal": "PRIMARY KEY",
    "prune.tasks": "tasks_by_root",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plans")
    with open_store(f"sqlite:///{folder}/holdfast.db") as opened:
        yield opened


@pytest.mark.parametrize("name", HOT)
def test_a_hot_query_is_answered_from_an_index(store, name):
    query = load_queries("sqlite")[name]
    params = dict.fromkeys(re.findall(r":([a-z_]+)", query), 0)
    rows = store.engine._reader.execute("EXPLAIN QUERY PLAN " + query, params).fetchall()
    plan = [row[3] for row in rows]
    assert any(re.search(HOT[name], step) for step in plan), plan
    tables = {"work_items", "tasks", "journal", "checkpoints", "events", "claims", "blobs"}
    for step in plan:
        scanned = re.match(r"SCAN (\w+)(?! USING)\b", step)
        covered = "USING" in step
        assert not (scanned and scanned[1] in tables and not covered), plan


@pytest.mark.parametrize("name", ["item.candidates", "item.candidates_of_roots", "journal.read"])
def test_a_query_that_is_limited_does_not_sort_everything_first(store, name):
    query = load_queries("sqlite")[name]
    params = dict.fromkeys(re.findall(r":([a-z_]+)", query), 0)
    rows = store.engine._reader.execute("EXPLAIN QUERY PLAN " + query, params).fetchall()
    # What the candidates of each handler or root are merged from is limited already.
    merges = name.startswith("item.candidates")
    sorts = [row for row in rows if "TEMP B-TREE" in row[3] and not (merges and row[1] == 0)]
    assert not sorts


def test_the_sql_comes_with_the_package():
    folder = resources.files("holdfast.store").joinpath("sql", "sqlite")
    assert {file.name for file in folder.iterdir()} > {"items.sql", "migrations"}

"""Transactions that would wait for each other: avoided by order, and survived where they aren't."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from support.writes import new_task

from holdfast.store import open_store, verbs
from holdfast.store.payload import encode_payload
from holdfast.store.postgres_url import parse_url
from holdfast.store.rounds import drive
from holdfast.store.verb import run, verb
from holdfast.store.verbs import NewTask

TASKS = ("01a", "01b")


@pytest.fixture
def stores(postgres_url):
    url = f"{postgres_url}&listen=off"
    with open_store(url) as one, open_store(url) as two:
        for name in TASKS:
            one.commit(new_task(name)).wait()
        yield one, two


@verb()
def lock(*names):
    for name in names:
        yield from run("task.lock", task_id=name)
        yield from run("task.get", task_id=name)  # its rows are waited for, so the lock is had


class _Named:
    """What a verb under a lease sorts by."""

    def __init__(self, name):
        self.task_id, self.item_id = name, ""


@verb()
def lock_leased(lease):
    yield from lock(lease.task_id).start()


def test_batches_lock_in_one_order_whatever_order_their_operations_came_in(stores):
    refused = []
    met = threading.Barrier(2)

    def watched(engine):
        execute, refuse = engine.execute, engine._refused  # noqa: SLF001

        def executing(statement):
            rows = execute(statement)
            if statement.query == "task.get":
                time.sleep(0.3)  # the other one has its first lock by now
            return rows

        def refusing(failed):
            refused.append(str(failed))
            refuse(failed)

        engine.execute, engine._refused = executing, refusing  # noqa: SLF001

    def commit(store, order):
        with store._committer._lock:  # noqa: SLF001  both are queued before either is committed
            first = store.commit(lock_leased(_Named(order[0]))).behind()
            last = store.commit(lock_leased(_Named(order[1]))).behind()
        met.wait()
        while not last.done:
            time.sleep(0.01)
        return first.outcome(), last.outcome()

    for store in stores:
        watched(store.engine)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(commit, stores, (TASKS, TASKS[::-1])))
    assert refused == []


def test_an_operation_that_loses_a_deadlock_is_run_again(stores, postgres_url):
    one, two = stores
    two.engine.begin(wait=True)
    drive(lock(TASKS[1]).start(), two.engine.execute)
    with ThreadPoolExecutor(1) as threads:
        loses = threads.submit(one.commit(lock(*TASKS)).wait)
        _until_it_waits(postgres_url)  # for the second; it is the first whose patience ends
        drive(lock(TASKS[0]).start(), two.engine.execute)
        two.engine.commit()
        assert loses.result(20) is None
    assert one.read(verbs.get_task(TASKS[0])).status == "running"


def _until_it_waits(url):
    place = parse_url(url)
    with psycopg.connect(place.server, autocommit=True) as connection:
        ends = time.monotonic() + 20
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        while not connection.execute(query, (f"%{place.schema}.%",)).fetchone():
            assert time.monotonic() < ends
            time.sleep(0.02)


def test_a_task_is_found_by_its_key_while_somebody_changes_it(postgres_url):
    def submit(name):
        new = NewTask(name, "work", encode_payload({}), (), key="k")
        return verbs.create_task(new, 1.0)

    with open_store(f"{postgres_url}&listen=off") as store:
        store.commit(submit("01a")).wait()
        schema = parse_url(postgres_url).schema
        with psycopg.connect(parse_url(postgres_url).server) as other:  # a transaction, left open
            other.execute(f"UPDATE {schema}.tasks SET status = 'waiting'".encode())  # noqa: S608  the test's own schema
            found = store.commit(submit("01b")).wait(2.0)
            other.rollback()
    assert (found.task.task_id, found.created) == ("01a", False)

"""Servers and workers that die under load, in short; `make failover` does it at length."""

from __future__ import annotations

import threading
import time

import pytest

from holdfast import errors
from holdfast.liveness import Heartbeat
from holdfast.models import MAIN
from holdfast.store import open_store, verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import NewItem, NewTask
from holdfast.testing import PostgresServer, failover
from holdfast.testing.fleet import until
from holdfast.testing.postgres import find_binaries

DEADLINE = 2.0
NAMED = "cluster_name=pair"


@pytest.fixture(autouse=True)
def _postgres():
    try:
        find_binaries()
    except errors.StoreOpenError as reason:
        pytest.skip(f"NO POSTGRESQL: {reason}")


def _url(*servers):
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://holdfast@{hosts}/postgres"


def _submit(store, name):
    empty = encode_payload({})
    item = NewItem(MAIN, "work", empty, "default", 0, b"", 3)
    return store.commit(verbs.create_task(NewTask(name, "work", empty, (item,)), 1.0)).wait()


def _tasks(store):
    return {task.task_id for task in store.read(verbs.list_tasks(None, 10))}


# -- under load -----------------------------------------------------------------------------------


def test_a_killed_primary_costs_nothing_that_was_acknowledged(tmp_path):
    result = failover.kill(tmp_path, 1, seed=1, say=list, workers=2)
    assert result.violations == [], result.line()
    assert result.rounds == 1
    assert result.account.acknowledged > 100


def test_a_frozen_primary_stops_its_workers_in_time_and_is_not_believed_when_it_wakes(tmp_path):
    result = failover.freeze(tmp_path, 1, seed=1, say=list)
    assert result.violations == [], result.line()
    assert result.rounds == 1
    assert result.fenced


def test_killed_and_stopped_workers_repeat_nothing_and_report_every_doubt(tmp_path):
    result = failover.fleet(tmp_path, 2000, 5, seed=1)
    assert result.violations == [], result.line()
    assert result.account.sent > 1900
    assert result.account.doubts


# -- an old primary that wakes --------------------------------------------------------------------


@pytest.fixture(scope="module")
def split():
    """Return a store opened before its primary was replaced, the old primary, awake, and the new.

    The connection that the store reads on never failed: it still leads to the old one.
    """
    with (
        PostgresServer(*failover.PAIR) as old,
        PostgresServer(NAMED, primary=old) as new,
        open_store(_url(old, new), deadline=DEADLINE) as store,
    ):
        _submit(store, "01before")
        assert _tasks(store) == {"01before"}
        until(lambda: store.engine.data_version() >> 40)
        old.freeze()
        new.promote()
        with pytest.raises(errors.StoreUnavailableError):
            _submit(store, "01lost")
        old.thaw()
        yield store, old, new


def test_a_program_never_goes_back_to_a_primary_that_was_replaced(split):
    store, old, _ = split
    _submit(store, "01after")
    assert _tasks(store) == {"01before", "01after"}
    with open_store(f"{old.url}?listen=off") as stale:
        assert "01after" not in _tasks(stale)  # what anybody would read who believed it


def test_it_hears_of_what_happens_on_the_new_one(split):
    store, _, new = split
    _submit(store, "01heard")
    with open_store(f"{new.url}?listen=off") as other:
        for number in range(100):
            before = store.engine.data_version() >> 40
            _submit(other, f"02{number:03}")
            if until(lambda before=before: store.engine.data_version() >> 40 != before, 0.5):
                return
    pytest.fail("nothing was heard")


def test_a_new_program_that_meets_the_old_one_first_finds_the_new_one(split):
    _, old, new = split
    with open_store(f"{_url(old, new)}?listen=off", deadline=DEADLINE) as store:
        with pytest.raises(errors.StoreUnavailableError):
            _submit(store, "01stale")  # its standby has left it: it can't acknowledge anything
        assert _submit(store, "01found").created
        assert "01found" in _tasks(store)
        assert "01stale" not in _tasks(store)


# -- hosts that don't answer ----------------------------------------------------------------------


def test_a_worker_stops_before_its_lease_is_over_however_many_hosts_do_not_answer(split):
    lease = 3.0
    _, _, new = split
    url = f"{_url(new, new, new)}?listen=off"
    with open_store(url, deadline=lease / 3) as store:
        lost = threading.Event()
        heart = Heartbeat(store, lease=lease, on_lost=lost.set)
        heart.start()
        new.freeze()
        started = time.monotonic()
        try:
            assert lost.wait(2 * lease)
            assert time.monotonic() - started < lease
        finally:
            new.thaw()
            heart.stop()

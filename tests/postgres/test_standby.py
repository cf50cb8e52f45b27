"""A synchronous standby keeps commits waiting: what is acknowledged then, and what is shown."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import proxy as network
from support.proxy import Proxy
from support.schemas import new_schema
from support.writes import append_one, claim_one, journal_of, new_task, tasks_in

from holdfast import errors
from holdfast.store import open_store
from holdfast.testing import PostgresServer

DEADLINE = 1.5
HELD_UP = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def pair():
    try:
        with PostgresServer() as server:
            standby = server.standby()
            yield server, standby
            standby.stop()
    except errors.StoreOpenError as reason:
        pytest.skip(f"NO POSTGRESQL: {reason}")


@pytest.fixture
def url(pair):
    return new_schema(pair[0].url) + "&listen=off"


@pytest.fixture
def standby(pair):
    yield pair[1]
    pair[1].thaw()


def _until(condition, seconds=20):
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("kind", ["transaction", "append"])
def test_a_commit_whose_wait_for_the_standby_is_cut_short_is_acknowledged_when_it_is_there(
    pair, standby, url, kind
):
    server, _ = pair
    with open_store(url, deadline=20) as store, ThreadPoolExecutor(1) as thread:
        store.commit(new_task("01first")).wait()
        claimed = claim_one(store)
        write = append_one(claimed) if kind == "append" else new_task("01second")
        standby.freeze()
        written = thread.submit(store.commit(write).wait)
        ((pid,),) = _until(lambda: server.ask(HELD_UP))
        server.ask(f"SELECT pg_cancel_backend({pid})")  # as an administrator may, or a timeout
        _until(lambda: server.ask(f"{HELD_UP} AND pid <> {pid}"))  # the question waits as well
        assert not written.done()
        standby.thaw()
        written.result(20)
        if kind == "append":
            assert len(journal_of(store, claimed)) == 1
        else:
            assert tasks_in(store) == {"01first", "01second"}


def test_a_commit_that_only_the_primary_has_is_not_shown_to_others_when_its_connection_is_lost(
    pair, standby, url
):
    server, _ = pair
    proxy = Proxy(server.port)
    through = url.replace(f":{server.port}/", f":{proxy.port}/")
    try:
        with open_store(through, deadline=DEADLINE) as store, open_store(url) as other:
            store.commit(new_task("01first")).wait()
            standby.freeze()
            proxy.once(network.DELIVER, b"commit\0")
            with pytest.raises(errors.StoreUnavailableError, match="can't be found out"):
                store.commit(new_task("01second")).wait()
            assert proxy.hits
            assert tasks_in(other) == {"01first"}  # a promoted standby wouldn't have the second
            standby.thaw()
            _until(lambda: tasks_in(other) == {"01first", "01second"})
    finally:
        proxy.close()

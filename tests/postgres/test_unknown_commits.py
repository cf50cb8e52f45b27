# ruff: noqa: SLF001  a pooler is stood in for by forgetting which backend serves us
"""The connection breaks while committing: what was kept is found out, for good."""

from __future__ import annotations

import asyncio
import time

import pytest
from support import proxy as network
from support.proxy import Proxy
from support.writes import append_one, claim_one, journal_of, new_task, tasks_in

from holdfast import errors
from holdfast.ids import new_id
from holdfast.store import open_store, verbs
from holdfast.store.verbs import Append

COMMIT = (b"commit\0", b"COMMIT")


@pytest.fixture
def proxy(postgres_server):
    opened = Proxy(postgres_server.port)
    yield opened
    opened.close()


@pytest.fixture
def direct_url(postgres_server):
    """Return a new schema of our own server, to which nothing but the proxy stands between."""
    return f"{postgres_server.url}?schema=lost_{new_id(1.0)}"


@pytest.fixture
def store(proxy, direct_url, postgres_server):
    url = direct_url.replace(f":{postgres_server.port}/", f":{proxy.port}/")
    with open_store(f"{url}&listen=off", deadline=2.0) as opened:
        opened.commit(new_task("01first")).wait()
        yield opened


@pytest.fixture(params=["direct", "pooled"])
def served(request, store):
    if request.param == "pooled":
        store.engine._writer.backend = None
    return store


def _last_words(store):
    """Return what an append is committed by: in one journey, or behind a pooler in two."""
    return COMMIT if store.engine._writer.backend is None else (b"append_one",)


def test_a_transaction_whose_answer_is_lost_is_found_to_be_kept(served, proxy):
    proxy.once(network.DELIVER, *COMMIT)
    assert served.commit(new_task("01second")).wait().created
    assert proxy.hits
    assert tasks_in(served) == {"01first", "01second"}


def test_a_commit_that_never_arrives_is_found_not_to_be_kept(served, proxy):
    proxy.once(network.DROP, *COMMIT)
    with pytest.raises(errors.StoreUnavailableError):
        served.commit(new_task("01second")).wait()
    assert proxy.hits
    assert tasks_in(served) == {"01first"}
    assert served.commit(new_task("01second")).wait().created


def test_an_append_whose_answer_is_lost_is_found_to_be_kept(served, proxy):
    claimed = claim_one(served)
    proxy.once(network.DELIVER, *_last_words(served))
    assert served.commit(append_one(claimed)).wait() is None
    assert proxy.hits
    assert len(journal_of(served, claimed)) == 1


def test_an_append_that_never_arrives_is_found_not_to_be_kept(served, proxy):
    claimed = claim_one(served)
    proxy.once(network.DROP, *_last_words(served))
    with pytest.raises(errors.StoreUnavailableError):
        served.commit(append_one(claimed)).wait()
    assert proxy.hits
    assert journal_of(served, claimed) == []
    assert served.commit(append_one(claimed)).wait() is None


def test_a_bare_fence_that_went_with_an_append_whose_answer_is_lost_was_kept_with_it(store, proxy):
    claimed = claim_one(store)
    append = append_one(claimed)
    fence = verbs.append_entries(claimed.lease, Append(claimed.item.seq + 1, head=b"chain"), 2.0)
    proxy.once(network.DELIVER, b"append_one")

    async def both():
        ticket = store.commit(append).behind()
        await store.commit(fence)  # as `flush` does behind what was recorded behind
        return ticket.outcome()

    assert asyncio.run(both()) is None
    assert proxy.hits
    assert len(journal_of(store, claimed)) == 1


def test_what_was_found_not_to_be_kept_is_not_kept_later_either(store, proxy, direct_url):
    """The statement is under way all the while, and arrives after the question was answered."""
    claimed = claim_one(store)
    proxy.once(network.DELAY, b"append_one")
    with pytest.raises(errors.StoreUnavailableError):
        store.commit(append_one(claimed)).wait()
    assert proxy.hits
    proxy.release()
    time.sleep(0.5)
    with open_store(f"{direct_url}&listen=off") as other:
        assert journal_of(other, claimed) == []
    assert store.commit(append_one(claimed)).wait() is None


def test_behind_a_pooler_what_may_still_arrive_is_not_said_to_be_lost(store, proxy, direct_url):
    """The backend can't be named, and so not ended: the row that it holds locked is waited for."""
    claimed = claim_one(store)
    store.engine._writer.backend = None
    proxy.once(network.DELAY, *COMMIT)
    with pytest.raises(errors.StoreUnavailableError, match="can't be found out"):
        store.commit(append_one(claimed)).wait(30)
    assert proxy.hits
    proxy.release()
    with open_store(f"{direct_url}&listen=off") as other:
        ends = time.monotonic() + 10
        while not journal_of(other, claimed):
            assert time.monotonic() < ends
            time.sleep(0.02)


def test_a_database_that_can_not_be_asked_leaves_the_outcome_unknown(store, proxy):
    claimed = claim_one(store)
    proxy.rule = lambda data: network.SWALLOW
    with pytest.raises(errors.StoreUnavailableError, match="can't be found out"):
        store.commit(append_one(claimed)).wait(30)
    proxy.rule = lambda data: network.PASS
    assert store.commit(append_one(claimed)).wait(10) is None

# ruff: noqa: SLF001  a pooler is stood in for by forgetting which backend serves us
"""The connection breaks while committing: what was kept is found out, for good."""

from __future__ import annotations

import time

import pytest
from support import proxy as network
from support.proxy import Proxy

from holdfast import errors
from holdfast.ids import new_id
from holdfast.models import MAIN
from holdfast.store import open_store, verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import NewItem, NewTask

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
        opened.commit(_new("01first")).wait()
        yield opened


@pytest.fixture(params=["direct", "pooled"])
def served(request, store):
    if request.param == "pooled":
        store.engine._writer.backend = None
    return store


def _new(name):
    empty = encode_payload({})
    item = NewItem(MAIN, "work", empty, "default", 0, b"", 3)
    return verbs.create_task(NewTask(name, "work", empty, (item,)), 1.0)


def _tasks(store):
    return {task.task_id for task in store.read(verbs.list_tasks(None, 10))}


def _lease(store):
    from holdfast.models import WorkerRecord

    record = WorkerRecord(new_id(1.0), 1, "h", 1, "0", 30.0, 0, "alive", 1.0, 1.0)
    store.commit(verbs.register_worker(record)).wait()
    wanted = verbs.ClaimFilter(("work",), ("default",))
    (claimed,) = store.commit(verbs.claim_work_items(record.worker_id, wanted, 1, 2.0)).wait()
    return claimed


def _last_words(store):
    """Return what an append is committed by: in one journey, or behind a pooler in two."""
    return COMMIT if store.engine._writer.backend is None else (b"append_one",)


def _appending(claimed):
    from holdfast.models import Entry
    from holdfast.states import Effect, EntryKind, EntryStatus

    seq = claimed.item.seq + 1
    entry = Entry(
        seq, EntryKind.STEP, "s", "", b"i", EntryStatus.DONE, Effect.IDEMPOTENT, None,
        keyed=False, attempt=1, at=2.0, micros=1, request=None, outcome=None, usage=None,
        chain=b"chain",
    )  # fmt: skip
    append = verbs.Append(claimed.item.seq, (entry,), (), b"chain")
    return verbs.append_entries(claimed.lease, append, 2.0)


def test_a_transaction_whose_answer_is_lost_is_found_to_be_kept(served, proxy):
    proxy.once(network.DELIVER, *COMMIT)
    assert served.commit(_new("01second")).wait().created
    assert proxy.hits
    assert _tasks(served) == {"01first", "01second"}


def test_a_commit_that_never_arrives_is_found_not_to_be_kept(served, proxy):
    proxy.once(network.DROP, *COMMIT)
    with pytest.raises(errors.StoreUnavailableError):
        served.commit(_new("01second")).wait()
    assert proxy.hits
    assert _tasks(served) == {"01first"}
    assert served.commit(_new("01second")).wait().created


def test_an_append_whose_answer_is_lost_is_found_to_be_kept(served, proxy):
    claimed = _lease(served)
    proxy.once(network.DELIVER, *_last_words(served))
    assert served.commit(_appending(claimed)).wait() is None
    assert proxy.hits
    assert len(served.read(verbs.read_journal("01first", MAIN))) == 1


def test_an_append_that_never_arrives_is_found_not_to_be_kept(served, proxy):
    claimed = _lease(served)
    proxy.once(network.DROP, *_last_words(served))
    with pytest.raises(errors.StoreUnavailableError):
        served.commit(_appending(claimed)).wait()
    assert proxy.hits
    assert served.read(verbs.read_journal("01first", MAIN)) == []
    assert served.commit(_appending(claimed)).wait() is None


def test_what_was_found_not_to_be_kept_is_not_kept_later_either(store, proxy, direct_url):
    """The statement is under way all the while, and arrives after the question was answered."""
    claimed = _lease(store)
    proxy.once(network.DELAY, b"append_one")
    with pytest.raises(errors.StoreUnavailableError):
        store.commit(_appending(claimed)).wait()
    assert proxy.hits
    proxy.release()
    time.sleep(0.5)
    with open_store(f"{direct_url}&listen=off") as other:
        assert other.read(verbs.read_journal("01first", MAIN)) == []
    assert store.commit(_appending(claimed)).wait() is None


def test_a_database_that_can_not_be_asked_leaves_the_outcome_unknown(store, proxy):
    claimed = _lease(store)
    proxy.rule = lambda data: network.SWALLOW
    with pytest.raises(errors.StoreUnavailableError, match="can't be found out"):
        store.commit(_appending(claimed)).wait(30)
    proxy.rule = lambda data: network.PASS
    assert store.commit(_appending(claimed)).wait(10) is None

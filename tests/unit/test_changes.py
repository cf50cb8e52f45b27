"""Many who wait for changes of one database hear of them together, and of each in time."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.writes import new_task

from holdfast import errors
from holdfast.changes import LOOK, POLL, Changes
from holdfast.store import open_store

MANY = 200


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/holdfast.db"


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        yield opened


async def _seconds_until(change):
    started = time.monotonic()
    await asyncio.wait((change,), timeout=10)
    return time.monotonic() - started


def test_many_who_wait_cost_one_look_at_the_database(store):
    looks = []
    look = store.engine.data_version
    store.engine.data_version = lambda: looks.append(time.monotonic()) or look()
    changes = Changes(store)

    async def wait():
        await asyncio.gather(*(_seconds_until(changes.next()) for _ in range(MANY)))

    asyncio.run(wait())
    assert 1 <= len(looks) <= LOOK / POLL + 3


def test_a_commit_of_this_process_is_heard_of_at_once(store):
    changes = Changes(store)

    async def wait():
        change = changes.next()
        await store.commit(new_task("01a"))
        return await _seconds_until(change)

    assert asyncio.run(wait()) < POLL / 2


def test_a_commit_of_another_connection_is_heard_of_before_one_would_look_anyway(store, url):
    changes = Changes(store)

    async def wait(other):
        change = changes.next()
        await asyncio.to_thread(other.commit(new_task("01a")).wait)
        return await _seconds_until(change)

    with open_store(url) as other:
        assert asyncio.run(wait(other)) < LOOK - POLL


def test_a_change_that_comes_before_anyone_waits_for_it_is_not_missed(store):
    changes = Changes(store)

    async def wait():
        change = changes.next()
        await store.commit(new_task("01a"))
        await asyncio.sleep(0)
        assert change.done()
        assert changes.next() is not change

    asyncio.run(wait())


def test_a_loop_that_ended_while_something_waited_disturbs_nobody(store, caplog):
    changes = Changes(store)

    async def leave():
        changes.next()

    async def wait():
        change = changes.next()
        await store.commit(new_task("01a"))
        return await _seconds_until(change)

    asyncio.run(leave())
    store.commit(new_task("01b")).wait()
    assert asyncio.run(wait()) < POLL / 2
    assert not caplog.records


def test_whoever_waits_is_told_when_the_database_can_not_be_asked(store):
    changes = Changes(store)

    async def wait():
        change = changes.next()
        store.close()
        return await _seconds_until(change)

    assert asyncio.run(wait()) < 2 * POLL + 0.1
    with pytest.raises(errors.StoreUnavailableError):
        store.engine.data_version()

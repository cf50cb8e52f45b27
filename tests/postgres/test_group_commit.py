# ruff: noqa: SLF001  its inside is what is tested
"""Many who write at once: while the server works for some, others go on; no answer is mixed up."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support.writes import append_one, claim_many, journal_of, new_task

from holdfast import errors
from holdfast.store import open_store
from holdfast.store.committer import MANY
from holdfast.store.wire import Wire

ITEMS = 2 * MANY


@pytest.fixture
def store(postgres_url):
    with open_store(f"{postgres_url}&listen=off") as opened:
        yield opened


@pytest.fixture
def claimed(store):
    """As many items, leased to a worker."""

    async def submit():
        await asyncio.gather(*(store.commit(new_task(f"{n:03}")) for n in range(ITEMS)))

    asyncio.run(submit())
    return claim_many(store, ITEMS)


def test_who_waits_for_one_half_goes_on_while_the_server_works_on_the_other(store, claimed):
    at_once, sizes = store.engine.append_at_once, []
    went_on = threading.Event()

    def answering_late(appends, under_way):
        sizes.append(len(appends))
        if len(sizes) < 2:
            return at_once(appends, under_way)

        def then():
            under_way()
            assert went_on.wait(10)  # the answer is there only after somebody has gone on

        return at_once(appends, then)

    store.engine.append_at_once = answering_late

    async def write(each):
        await store.commit(append_one(each))
        went_on.set()

    async def main():
        async with asyncio.timeout(20):
            await asyncio.gather(*map(write, claimed))

    asyncio.run(main())
    assert sizes == [MANY, MANY]
    assert all(len(journal_of(store, each)) == 1 for each in claimed)


def test_a_few_are_one_commit(store, claimed):
    at_once, sizes = store.engine.append_at_once, []
    store.engine.append_at_once = lambda *args: sizes.append(len(args[0])) or at_once(*args)

    async def main():
        await asyncio.gather(*(store.commit(append_one(each)) for each in claimed[: MANY - 1]))

    asyncio.run(main())
    assert sizes == [MANY - 1]


def test_half_of_them_is_told_although_the_other_half_fails(store, claimed):
    at_once, calls = store.engine.append_at_once, []

    def failing(appends, under_way):
        calls.append(len(appends))
        if len(calls) == 2:
            raise errors.StoreUnavailableError("nothing was sent")
        return at_once(appends, under_way)

    store.engine.append_at_once = failing

    async def main():
        writes = (store.commit(append_one(each)) for each in claimed)
        return await asyncio.gather(*writes, return_exceptions=True)

    outcomes = asyncio.run(main())
    kept = [bool(journal_of(store, each)) for each in claimed]
    assert kept.count(True) == MANY
    assert [outcome is None for outcome in outcomes] == kept


def test_an_answer_that_nobody_waited_for_is_no_answer_to_what_comes_next(
    store, claimed, monkeypatch
):
    first, second, third, *_ = claimed
    store.commit(append_one(first)).wait()
    wait = Wire._wait

    def interrupted(*_):
        monkeypatch.setattr(Wire, "_wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(Wire, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.commit(append_one(second)).wait()
    store.commit(append_one(third)).wait()
    assert len(journal_of(store, third)) == 1
    assert len(journal_of(store, second)) <= 1

"""Who is alive: renewals, silence, sleep, and slots."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from holdfast import errors
from holdfast.liveness import Heartbeat, Observer, is_gone, is_ours
from holdfast.store import open_store, verbs
from holdfast.tool import Tool
from holdfast.under_way import watched


class Clock:
    """A clock whose machine can be suspended."""

    def __init__(self):
        self.ahead = 0.0

    def now(self):
        return time.time() + self.ahead

    def boottime(self):
        return time.monotonic() + self.ahead


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    with open_store(f"sqlite:///{tmp_path}/h.db", clock=clock) as opened:
        yield opened


def started(store, **options):
    heartbeat = Heartbeat(store, **options)
    heartbeat.start()
    return heartbeat


def hang(heartbeat):
    heartbeat._stopping.set()  # noqa: SLF001  nothing public makes it hang
    heartbeat._thread.join()  # noqa: SLF001


def look(observer, times=1):
    async def many():
        return [await observer.look() for _ in range(times)]

    return asyncio.run(many())


def workers(store):
    return [worker.worker_id for worker in store.read(verbs.list_workers())]


def test_a_worker_that_stops_renewing_is_expired_after_a_whole_lease(store, clock):
    heartbeat = started(store, lease=1.0)
    hang(heartbeat)
    observer = Observer(store, 0.1)
    look(observer)
    for _ in range(9):
        clock.ahead += 0.1
        look(observer)
    assert heartbeat.worker_id in workers(store)
    clock.ahead += 0.1
    look(observer, 2)
    assert heartbeat.worker_id not in workers(store)
    heartbeat.stop()


def test_the_more_workers_a_machine_has_the_less_often_each_looks_at_them(store):
    observer = Observer(store, 0.2)
    hearts, between = [], []
    for _ in range(4):
        hearts.append(started(store))
        look(observer)
        between.append(round(observer.interval, 3))
    assert between == [0.2, 0.4, 0.5, 0.5]
    for heart in hearts:
        heart.stop()


def test_a_suspended_machine_expires_nobody(store, clock):
    heartbeat = started(store, lease=1.0)
    observer = Observer(store, 0.1)
    look(observer)
    clock.ahead += 3600
    look(observer)
    assert heartbeat.worker_id in workers(store)
    heartbeat.check()  # it renews first, before it goes on
    heartbeat.stop()


def test_a_renewal_that_takes_its_time_does_not_block_the_event_loop(store, clock, monkeypatch):
    heartbeat = started(store, lease=30.0)
    clock.ahead += 3600
    renew, asked = heartbeat._renew, []  # noqa: SLF001  nothing public makes it slow

    def slowly() -> bool:
        asked.append(1)
        time.sleep(0.3)
        return renew()

    async def main() -> int:
        monkeypatch.setattr(heartbeat, "_renew", slowly)
        confirming, beats = asyncio.gather(*(heartbeat.confirm() for _ in range(20))), 0
        while not confirming.done():
            await asyncio.sleep(0.01)
            beats += 1
        await confirming
        return beats

    assert asyncio.run(main()) >= 5
    assert len(asked) == 1  # once for all who ask meanwhile
    heartbeat.stop()


def test_a_renewal_that_fails_fails_once_for_all(store, clock, monkeypatch):
    heartbeat = started(store, lease=30.0)
    clock.ahead += 3600
    monkeypatch.setattr(heartbeat, "_renew", lambda: False)
    with pytest.raises(errors.LeaseLostError):
        heartbeat.check()
    assert heartbeat.lost
    monkeypatch.undo()
    with pytest.raises(errors.LeaseLostError):
        heartbeat.check()
    heartbeat.stop()


def test_a_worker_that_cannot_renew_fences_itself_before_its_lease_ends(store, monkeypatch):
    lost = threading.Event()
    heartbeat = started(store, lease=0.4, on_lost=lost.set)
    begun = time.monotonic()

    def refuse(_verb):
        raise errors.StoreUnavailableError("gone")

    monkeypatch.setattr(store, "commit", refuse)
    assert lost.wait(2)
    assert time.monotonic() - begun < 0.4
    with pytest.raises(errors.LeaseLostError):
        heartbeat.check()
    monkeypatch.undo()
    heartbeat.stop()


def test_a_worker_that_was_taken_for_dead_notices(store):
    lost = threading.Event()
    heartbeat = started(store, lease=0.3, on_lost=lost.set)
    store.commit(verbs.expire_worker(heartbeat.worker_id, None, store.now())).wait()
    assert lost.wait(2)
    heartbeat.stop()


def test_a_loss_that_a_check_finds_is_told_once(store, clock):
    told = []
    heartbeat = started(store, on_lost=lambda: told.append("lost"))
    store.commit(verbs.expire_worker(heartbeat.worker_id, None, store.now())).wait()
    clock.ahead = 100
    for _ in range(2):
        with pytest.raises(errors.LeaseLostError):
            heartbeat.check()
    heartbeat.stop()
    assert told == ["lost"]


def test_a_loss_is_told_at_once_while_somebody_else_still_tries_to_renew(store, clock, monkeypatch):
    told, trying, answered = threading.Event(), threading.Event(), threading.Event()
    heartbeat = started(store, lease=30.0, on_lost=told.set)
    hang(heartbeat)
    clock.ahead += 3600

    def unanswered() -> bool:
        trying.set()
        answered.wait(20)
        return False

    monkeypatch.setattr(heartbeat, "_renew", unanswered)

    def check() -> None:
        with pytest.raises(errors.LeaseLostError):
            heartbeat.check()

    checking = threading.Thread(target=check)
    checking.start()
    assert trying.wait(10)
    finding = threading.Thread(target=heartbeat._lose)  # noqa: SLF001  as its own thread does
    finding.start()
    assert told.wait(5)
    answered.set()
    checking.join()
    finding.join()
    heartbeat.stop()


def test_a_stopped_worker_is_off_the_list_and_frees_its_slot(store):
    heartbeat = started(store)
    worker = store.read(verbs.get_worker(heartbeat.worker_id))
    assert store.engine.alive(worker)
    heartbeat.stop()
    heartbeat.stop()
    assert workers(store) == []
    assert not store.engine.alive(worker)


def test_a_stopped_worker_keeps_its_slot_while_a_call_of_it_may_still_run(store):
    heartbeat = started(store)
    worker = store.read(verbs.get_worker(heartbeat.worker_id))
    call = watched(Tool(lambda: None), "key", heartbeat.worker_id)
    heartbeat.stop()
    assert workers(store) == []
    assert store.engine.alive(worker)
    call()
    other = started(store)
    worker = store.read(verbs.get_worker(other.worker_id))
    other.stop()
    assert not store.engine.alive(worker)


def test_a_process_is_not_gone_because_one_of_its_workers_stopped(store):
    heartbeat = started(store)
    heartbeat.stop()
    assert is_ours(heartbeat.worker_id)
    assert not is_gone(store, heartbeat.worker_id)
    assert not is_gone(store, "never heard of")


def test_an_id_is_used_once(store):
    one, two = started(store, name="w"), started(store, name="w")
    assert one.worker_id == "w"
    assert two.worker_id != "w"
    one.stop()
    two.stop()


def test_a_lease_of_no_length_is_refused(store):
    with pytest.raises(errors.UsageError):
        Heartbeat(store, lease=0)

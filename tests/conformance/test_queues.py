"""Queues: how many of their items run, how many start in a while, and who comes first."""

from __future__ import annotations

import threading
import time

import pytest

from holdfast.models import MAIN, SECONDS_PER_PRIORITY
from holdfast.states import ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload
from holdfast.store.rounds import drive
from holdfast.store.verbs import ClaimFilter, NewTask, Parked

WANTED = ClaimFilter(("work",), ("default",))


def limit(world, running=None, rate=None, per=1.0, queue="default"):
    world.do(verbs.limit_queue(queue, running, rate, per))


def in_queue(world, queue, name, **fields):
    item = world.item(name, queue=queue)
    world.do(verbs.create_task(NewTask(name, "work", encode_payload({}), (item,), **fields), 1.0))


def names(claimed):
    return [each.lease.item_id for each in claimed]


# -- how many run ----------------------------------------------------------------------------------


def test_no_more_items_of_a_queue_run_than_it_allows(world):
    for _ in range(5):
        world.task()
    limit(world, running=2)
    one, two = world.worker(), world.worker()
    first = world.claim(one)
    assert len(first) == 2
    assert world.claim(two) == []
    world.finish(first[0].lease)
    assert len(world.claim(two)) == 1
    assert world.claim(one) == []


def test_an_item_that_waits_holds_no_place(world):
    first = world.task()
    world.now += 1  # of two that are ready since the same moment, either may come first
    world.task()
    limit(world, running=1)
    lease = world.claim_one().lease
    parked = Parked(ItemStatus.WAITING, '{"kind":"timer"}', wake_at=world.now + 10)
    world.do(verbs.park_work_item(lease, world.append(lease), parked, world.now))
    second = world.claim_one().lease
    world.now += 20
    assert world.claim(world.worker()) == []  # awake again, it finds no room
    assert world.status(first) is ItemStatus.READY
    world.finish(second)
    assert world.claim_one().lease.task_id == first


def test_a_worker_that_died_gives_its_places_back(world):
    world.task()
    limit(world, running=1)
    lease = world.claim_one().lease
    world.record(lease)
    assert world.claim(world.worker()) == []
    world.do(verbs.expire_worker(lease.owner, None, world.now))
    assert world.claim_one().lease.token > lease.token


def test_a_full_queue_holds_up_no_other(world):
    for number in range(3):
        in_queue(world, "full", f"full{number}")
    in_queue(world, "free", "free")
    limit(world, running=1, queue="full")
    worker = world.worker()
    queues = ("full", "free")
    claimed = names(world.claim(worker, queues=queues))
    assert sorted(name.rstrip("012") for name in claimed) == ["free", "full"]
    assert world.claim(worker, queues=queues) == []


def test_among_one_tasks_items_a_full_queue_hides_nothing_behind_it(world):
    items = tuple(world.item(f"a{n}", queue="a") for n in range(4))
    items += (world.item("b", queue="b"), world.item("c", queue="c"))
    world.do(verbs.create_task(NewTask("t", "work", encode_payload({}), items), world.now))
    limit(world, running=1, queue="a")
    limit(world, running=0, queue="c")
    claimed = names(world.claim(world.worker(), 3, roots=("t",)))
    assert len(claimed) == 2
    assert sorted(name[0] for name in claimed) == ["a", "b"]
    assert world.claim(world.worker(), 3, roots=("t",)) == []


def test_a_queue_that_allows_nothing_is_held(world):
    task = world.task()
    limit(world, running=0)
    worker = world.worker()
    assert world.claim(worker) == []
    held = world.do(verbs.claim_by_name(worker, task, MAIN, world.now))
    assert held == "the limit of queue default"
    limit(world)
    assert world.do(verbs.claim_by_name(worker, task, MAIN, world.now)).lease.task_id == task


def test_a_claim_by_name_counts_like_any_other(world):
    task, _ = world.task(), world.task()
    limit(world, running=1, rate=1, per=1000)
    world.do(verbs.claim_by_name(world.worker(), task, MAIN, time.time()))
    limit(world, rate=1, per=1000)
    world.now = time.time()
    assert world.claim(world.worker()) == []


def test_a_claim_passes_by_a_limited_queue_that_another_one_counts_in(world):
    for number in range(3):
        in_queue(world, "limited", f"limited{number}")
        in_queue(world, "free", f"free{number}")
    limit(world, running=2, queue="limited")
    one, two, other = world.worker(), world.worker(), world.other()
    wanted = ClaimFilter(("work",), ("limited", "free"))
    got: list[str] = []

    def claim():
        verb = verbs.claim_work_items(two, wanted, 5, world.now)
        got.extend(names(world.store.commit(verb).wait()))

    only = ClaimFilter(("work",), ("limited",))
    other.engine.begin(wait=True)
    held = drive(verbs.claim_work_items(one, only, 1, world.now).start(), other.engine.execute)
    thread = threading.Thread(target=claim)
    thread.start()
    thread.join(0.15)
    blocked = thread.is_alive()
    other.engine.commit()
    thread.join(20)
    limited = [name for name in (*names(held), *got) if name.startswith("limited")]
    assert len(limited) <= 2
    if world.url.startswith("postgres"):  # on SQLite one transaction is over before the next
        assert not blocked
        assert sorted(got) == ["free0", "free1", "free2"]
        assert 0 < world.read(verbs.next_wake(wanted, world.now)) < 0.1  # there is room: ask again
    assert len(world.claim(two, 5, queues=("limited",))) == 2 - len(limited)


@pytest.mark.parametrize("rate", [None, 1000])
def test_however_many_claim_at_once_the_limit_is_never_exceeded(world, rate):
    for _ in range(24):
        world.task()
    limit(world, running=3, rate=rate, per=0.01)
    stores = [world.store, world.other(), world.other(), world.other()]
    workers = [world.worker() for _ in stores]
    lock = threading.Lock()
    running, worst, done = 0, 0, []

    def work(store, worker):
        nonlocal running, worst
        while len(done) < 24:
            verb = verbs.claim_work_items(worker, WANTED, 2, time.time())
            claimed = store.commit(verb).wait()
            with lock:
                running += len(claimed)
                worst = max(worst, running)
            for each in claimed:
                time.sleep(0.01)
                verb = world.finishing(each.lease)
                with lock:
                    running -= 1
                    done.append(each.lease.task_id)
                store.commit(verb).wait()
            if not claimed:
                time.sleep(0.002)

    threads = [threading.Thread(target=work, args=p) for p in zip(stores, workers, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(done)) == len(done) == 24
    assert 1 < worst <= 3


# -- how many start --------------------------------------------------------------------------------


def test_in_no_window_do_more_items_start_than_the_rate_says(world):
    for _ in range(60):
        world.task()
    rate, per = 6, 0.4
    limit(world, rate=rate, per=per)
    stores = [world.store, world.other(), world.other()]
    workers = [world.worker() for _ in stores]
    before: list[float] = []
    after: list[float] = []
    ends = time.monotonic() + 1.2

    def work(store, worker):
        while time.monotonic() < ends:
            asked = time.monotonic()
            verb = verbs.claim_work_items(worker, WANTED, 4, time.time())
            claimed = store.commit(verb).wait()
            answered = time.monotonic()
            before.extend([asked] * len(claimed))
            after.extend([answered] * len(claimed))
            time.sleep(0.005)

    threads = [threading.Thread(target=work, args=p) for p in zip(stores, workers, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    before.sort()
    after.sort()
    # A start lies between the two moments, so that one `rate` places later is `per` later.
    spans = [after[n + rate] - before[n] for n in range(len(after) - rate)]
    assert min(spans) >= per - 0.001
    assert 2 * rate <= len(after) <= 5 * rate


def test_starts_are_counted_and_forgotten_as_they_age(world):
    world.now = time.time()
    for _ in range(7):
        world.task()
    limit(world, rate=3, per=0.3)
    worker = world.worker()
    assert len(world.claim(worker, 2)) == 2
    assert len(world.claim(worker, 5)) == 1
    assert world.claim(worker, 5) == []
    wait = world.read(verbs.next_wake(WANTED, world.now))
    assert 0 < wait <= 0.3
    time.sleep(0.31)
    world.now = time.time()
    assert len(world.claim(worker, 5)) == 3
    assert world.claim(worker, 5) == []


def test_a_handed_back_item_has_started_all_the_same(world):
    world.now = time.time()
    world.task()
    limit(world, rate=1, per=1000)
    lease = world.claim_one().lease
    world.do(verbs.abandon_lease(lease, world.now))
    assert world.claim(world.worker()) == []
    limit(world, rate=2, per=1000)
    assert len(world.claim(world.worker())) == 1


def test_a_clock_that_was_set_back_stops_no_queue_for_longer_than_a_window(world):
    ahead = 10_000
    world.now = time.time() + ahead
    world.task()
    world.task()
    limit(world, rate=1, per=0.2)
    world.claim_one()
    if world.url.startswith("postgres"):  # there it is the server's clock that counts
        world.sql("UPDATE {}.queue_starts SET started_at = started_at + %s", ahead)
    world.now -= ahead
    assert len(world.claim(world.worker())) == 1


def test_nothing_is_due_while_nothing_could_run_or_nothing_is_ready(world):
    world.now = time.time()
    limit(world, running=1, rate=5, per=60)
    assert world.read(verbs.next_wake(WANTED, world.now)) is None
    world.task()
    world.task()
    lease = world.claim_one().lease
    assert world.read(verbs.next_wake(WANTED, world.now)) is None  # its end wakes others
    world.finish(lease)
    assert world.read(verbs.next_wake(WANTED, world.now)) is not None
    assert world.read(verbs.next_wake(ClaimFilter(("other",), ("default",)), world.now)) is None
    assert world.read(verbs.next_wake(ClaimFilter(("work",), ("other",)), world.now)) is None


# -- looking ---------------------------------------------------------------------------------------


def test_queues_are_listed_with_what_they_allow_and_hold(world):
    in_queue(world, "a", "a1")
    in_queue(world, "a", "a2")
    in_queue(world, "b", "b1")
    limit(world, running=4, rate=10, per=60, queue="b")
    limit(world, running=1, queue="c")
    limit(world, running=1, queue="gone")
    limit(world, queue="gone")
    world.claim(world.worker(), 1, queues=("a",))
    a, b, c = world.read(verbs.list_queues())
    assert (a.name, a.ready, a.running, a.oldest) == ("a", 1, 1, 1.0)
    assert (a.limit_running, a.limit_rate, a.limit_per) == (None, None, None)
    assert (b.name, b.limit_running, b.limit_rate, b.limit_per) == ("b", 4, 10, 60.0)
    assert (c.name, c.ready, c.running, c.oldest) == ("c", 0, 0, None)


# -- who comes first -------------------------------------------------------------------------------


def test_an_old_item_of_low_priority_is_not_starved(world):
    """As much urgent work arrives as the worker can do: without the rule it would never run."""
    ahead, worker = 3, world.worker()
    world.task({"low": ()})
    arrived = world.now
    for number in range(40):
        item = world.item(f"urgent{number}", priority=ahead)
        new = NewTask(f"urgent{number}", "work", encode_payload({}), (item,))
        world.do(verbs.create_task(new, world.now))
        claimed = world.claim_one(worker)
        if claimed.lease.item_id == "low":
            break
        world.finish(claimed.lease)
        world.now += 10
    waited = world.now - arrived
    assert ahead * SECONDS_PER_PRIORITY <= waited <= ahead * SECONDS_PER_PRIORITY + 10

"""Claiming: who gets which item, in which order, under which token."""

from __future__ import annotations

import threading

import msgspec
import pytest

from holdfast import errors
from holdfast.models import MAIN, SECONDS_PER_PRIORITY
from holdfast.states import ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import Parked


def test_a_claim_gives_a_new_token_and_counts_an_attempt(world):
    task = world.task()
    worker = world.worker()
    first = world.claim_one(worker)
    assert (first.lease.task_id, first.lease.item_id, first.lease.owner) == (task, MAIN, worker)
    assert first.item.status is ItemStatus.RUNNING
    assert first.item.attempts == 1
    world.fail(first.lease, retry_at=world.now)
    second = world.claim_one(worker)
    assert second.lease.token > first.lease.token
    assert second.item.attempts == 2


def test_an_item_is_claimed_once_however_many_ask(world):
    for _ in range(20):
        world.task()
    stores = [world.store, world.other(), world.other(), world.other()]
    workers = [world.worker() for _ in stores]
    filter_ = verbs.ClaimFilter(("work",), ("default",))
    got: list[tuple[str, str]] = []

    def claim(store, worker):
        while found := store.commit(verbs.claim_work_items(worker, filter_, 3, world.now)).wait():
            got.extend((each.lease.task_id, worker) for each in found)

    threads = [
        threading.Thread(target=claim, args=pair) for pair in zip(stores, workers, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len({task for task, _ in got}) == 20
    for task, worker in got:
        assert world.get(task).lease_owner == worker


def test_the_longest_waiting_is_claimed_first_and_priority_is_worth_a_minute(world):
    old = world.task({"old": ()})
    world.now += 2 * SECONDS_PER_PRIORITY
    world.task({"plain": ()})
    item = world.item("urgent", priority=3)
    new = verbs.NewTask("urgent", "work", encode_payload({}), (item,))
    world.do(verbs.create_task(new, world.now))
    order = [each.lease.item_id for each in world.claim(world.worker())]
    assert order == ["urgent", "old", "plain"]
    assert world.task_status(old) == "running"


def test_the_weight_of_a_priority_is_the_same_in_every_verb(world):
    item = world.item(MAIN, priority=2)
    world.do(verbs.create_task(verbs.NewTask("t", "work", encode_payload({}), (item,)), world.now))
    expected = world.now - 2 * SECONDS_PER_PRIORITY
    assert world.get("t").claim_order == expected
    lease = world.claim_one().lease
    world.fail(lease, retry_at=world.now)
    lease = world.claim_one().lease
    assert world.get("t").claim_order == expected
    world.do(verbs.expire_worker(lease.owner, None, world.now))
    assert world.get("t").claim_order == expected


@pytest.mark.parametrize("wanted", [{"handlers": ("other",)}, {"queues": ("other",)}])
def test_only_what_the_worker_can_run_is_claimed(world, wanted):
    world.task()
    assert world.claim(world.worker(), **wanted) == []


def test_several_queues_are_merged_in_the_order_of_waiting(world):
    for number in range(6):
        item = world.item(f"i{number}", queue=f"q{number % 2}")
        new = verbs.NewTask(f"t{number}", "work", encode_payload({}), (item,))
        world.do(verbs.create_task(new, world.now))
        world.now += 1
    claimed = world.claim(world.worker(), 4, queues=("q1", "q0", "q1"))
    assert [each.lease.item_id for each in claimed] == ["i0", "i1", "i2", "i3"]


def test_a_claim_can_be_confined_to_a_task_and_its_descendants(world):
    world.task()
    mine = world.task()
    child = world.task(parent_id=mine, parent_item=MAIN, root_id=mine)
    claimed = world.claim(world.worker(), roots=(mine,))
    assert {each.lease.task_id for each in claimed} == {mine, child}


def test_a_worker_that_was_taken_for_dead_claims_nothing(world):
    task = world.task()
    worker = world.worker()
    world.do(verbs.expire_worker(worker, None, world.now))
    with pytest.raises(errors.LeaseLostError):
        world.claim(worker)
    with pytest.raises(errors.LeaseLostError):
        world.do(verbs.claim_by_name(worker, task, MAIN, world.now))
    assert world.status(task) is ItemStatus.READY


def test_a_claim_by_name_says_who_holds_the_item_or_how_it_stands(world):
    task = world.task({"a": (), "b": ("a",)})
    worker = world.worker()
    held = world.do(verbs.claim_by_name(worker, task, "a", world.now))
    assert held.lease.item_id == "a"
    assert world.do(verbs.claim_by_name(world.worker(), task, "a", world.now)) == worker
    assert world.do(verbs.claim_by_name(worker, task, "b", world.now)) == ItemStatus.PENDING


def test_a_claim_by_name_of_nothing_is_an_error(world):
    with pytest.raises(errors.TaskNotFoundError):
        world.do(verbs.claim_by_name(world.worker(), "nothing", MAIN, world.now))


def test_due_timers_are_claimed_and_others_wait(world):
    task = world.task()
    lease = world.claim_one().lease
    parked = Parked(ItemStatus.WAITING, '{"kind":"timer"}', wake_at=world.now + 10)
    world.do(verbs.park_work_item(lease, world.append(lease), parked, world.now))
    assert world.task_status(task) == "waiting"
    wanted = verbs.ClaimFilter(("work",), ("default",))
    assert world.read(verbs.next_wake(wanted, world.now)) == 10
    assert world.claim(world.worker()) == []
    world.now += 10
    assert world.claim_one().item.attempts == 1  # waiting isn't counted as an attempt
    assert world.read(verbs.next_wake(wanted, world.now)) is None


def test_held_leases_are_those_of_the_worker(world):
    world.task()
    world.task()
    worker = world.worker()
    leases = [each.lease for each in world.claim(worker)]
    assert world.read(verbs.held_leases(worker)) == dict.fromkeys(leases, False)
    assert world.read(verbs.held_leases(world.worker())) == {}


def test_a_slot_is_given_out_once(world):
    first = world.worker()
    record = next(r for r in world.read(verbs.list_workers()) if r.worker_id == first)
    assert world.read(verbs.get_worker(first)) == record
    taken = msgspec.structs.replace(record, worker_id="somebody-else")
    assert world.do(verbs.register_worker(taken)) is False
    assert world.read(verbs.next_slot()) > record.slot


def test_a_renewal_counts_and_fails_once_the_worker_is_taken_for_dead(world):
    worker = world.worker()
    assert world.do(verbs.renew_leases(worker, world.now)) is True
    assert world.read(verbs.list_workers())[0].renewals == 1
    assert world.read(verbs.get_worker(worker)).status != "gone"
    world.do(verbs.expire_worker(worker, None, world.now))
    assert world.do(verbs.renew_leases(worker, world.now)) is False
    assert world.read(verbs.get_worker(worker)).status == "gone"
    assert world.read(verbs.list_workers()) == []


def test_a_worker_that_stops_in_good_order_is_gone_unless_it_holds_a_lease(world):
    task = world.task()
    worker = world.worker()
    lease = world.claim_one(worker).lease
    world.do(verbs.drain_worker(worker, world.now))
    assert world.do(verbs.retire_worker(worker, world.now)) is False
    assert [taken.task_id for taken in world.do(verbs.expire_worker(worker, None, world.now))] == [
        task
    ]
    other = world.worker()
    assert lease.owner == worker
    assert world.do(verbs.retire_worker(other, world.now)) is True
    assert world.read(verbs.list_workers()) == []


def test_a_worker_that_is_gone_is_remembered_with_when_it_was_seen_last(world):
    worker = world.worker()
    assert world.read(verbs.get_worker("nobody")) is None
    assert world.read(verbs.get_worker(worker)).status == "alive"
    world.now += 5
    world.do(verbs.expire_worker(worker, None, world.now))
    gone = world.read(verbs.get_worker(worker))
    assert (gone.status, gone.seen_at) == ("gone", world.now)
    world.do(verbs.mark_ended(worker))
    assert world.read(verbs.lingering_workers(gone.host)) == []

"""What becomes of the items of a worker that died, and who is blamed."""

from __future__ import annotations

import pytest

from holdfast.models import MAIN
from holdfast.states import ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs.items import PATIENCE


def _crash(world, worker, seen=None):
    return {
        taken.item_id: taken for taken in world.do(verbs.expire_worker(worker, seen, world.now))
    }


def test_a_worker_that_has_renewed_since_it_was_seen_is_left_alone(world):
    task = world.task()
    worker = world.worker()
    world.claim_one(worker)
    seen = world.read(verbs.list_workers())[0].renewals
    world.do(verbs.renew_leases(worker, world.now))
    assert _crash(world, worker, seen) == {}
    assert world.status(task) is ItemStatus.RUNNING
    world.let_lease_run_out(worker)
    assert _crash(world, worker, seen + 1) != {}


def test_a_worker_is_taken_for_dead_once(world):
    world.task()
    worker = world.worker()
    world.claim_one(worker)
    assert len(_crash(world, worker)) == 1
    assert world.do(verbs.expire_worker(worker, None, world.now), world.other()) == []


def test_an_item_that_recorded_something_goes_on_at_once(world):
    task = world.task()
    worker = world.worker()
    world.record(world.claim_one(worker).lease)
    _crash(world, worker)
    item = world.get(task)
    assert (item.status, item.crashes, item.alone) == ("ready", 0, False)
    assert "taken_back" in world.events(task)


def test_an_item_that_crashed_its_process_waits_longer_each_time_and_ends_in_quarantine(world):
    task = world.task()
    pauses = []
    for crashes in (1, 2):
        worker = world.worker()
        world.claim_one(worker)
        _crash(world, worker)
        item = world.get(task)
        assert (item.status, item.crashes, item.alone) == ("waiting", crashes, True)
        pauses.append(item.wake_at - world.now)
        world.now = item.wake_at
    assert pauses == [1.0, 2.0]
    worker = world.worker()
    world.claim_one(worker)
    assert _crash(world, worker)["main"].status is ItemStatus.QUARANTINED
    item = world.get(task)
    assert (item.status, item.crashes, item.wake_at) == ("quarantined", 3, None)
    assert "3 times" in item.error
    assert world.task_status(task) == "blocked"
    world.do(verbs.retry_task(task, world.now))
    item = world.get(task)
    assert (item.status, item.crashes, item.error) == ("ready", 0, None)


def test_progress_between_two_crashes_starts_the_count_anew(world):
    task = world.task()
    for _ in range(5):
        worker = world.worker()
        world.now += 400
        world.claim_one(worker)
        _crash(world, worker)
        worker = world.worker()
        world.now += 400
        world.record(world.claim_one(worker).lease)
        _crash(world, worker)
    item = world.get(task)
    assert (item.status, item.crashes) == ("ready", 0)


def test_items_that_shared_a_crashed_process_are_not_blamed_but_run_alone(world):
    plan = {"a": (), "b": (), "c": ()}
    task = world.task(plan)
    worker = world.worker()
    leases = {each.lease.item_id: each.lease for each in world.claim(worker)}
    world.record(leases["c"])
    _crash(world, worker)
    found = {name: world.get(task, name) for name in plan}
    assert {item.status for item in found.values()} == {"ready"}
    assert {item.crashes for item in found.values()} == {0}
    assert {name for name, item in found.items() if item.alone} == {"a", "b"}

    busy = world.worker()
    world.now += PATIENCE
    assert world.claim(busy, idle=False) == []
    (suspect,) = world.claim(busy)
    assert suspect.item.alone
    assert world.claim(busy) == []  # nothing beside it, even when the caller believes to be idle
    _crash(world, busy)
    blamed = world.get(task, suspect.lease.item_id)
    assert (blamed.status, blamed.crashes) == ("waiting", 1)


def test_an_innocent_item_never_reaches_quarantine_beside_a_guilty_one(world):
    task = world.task({"guilty": (), "innocent": ()})
    for _ in range(12):
        world.now += 400
        worker = world.worker()
        claimed = world.claim(worker)
        leases = {each.lease.item_id: each.lease for each in claimed}
        if "guilty" in leases:
            _crash(world, worker)
        elif "innocent" in leases:
            world.finish(leases["innocent"])
        if world.status(task, "guilty") is ItemStatus.QUARANTINED:
            break
    assert world.status(task, "guilty") is ItemStatus.QUARANTINED
    world.now += 400
    if world.status(task, "innocent") is not ItemStatus.SUCCEEDED:
        assert world.claim_one().lease.item_id == "innocent"
    assert world.get(task, "innocent").crashes == 0


def test_a_finished_attempt_clears_the_suspicion(world):
    task = world.task()
    worker = world.worker()
    world.claim_one(worker)
    _crash(world, worker)
    world.now += 10
    world.finish(world.claim_one().lease)
    item = world.get(task)
    assert (item.crashes, item.alone) == (0, False)


@pytest.mark.parametrize("keep", [True, False])
def test_what_a_worker_gave_back_before_it_died_stays_as_it_is(world, keep):
    world.task()
    lease = world.claim_one().lease
    if keep:
        world.finish(lease)
    else:
        world.fail(lease)
    before = world.contents()
    assert _crash(world, lease.owner) == {}
    assert world.contents() == before


@pytest.mark.parametrize("rooted", [False, True])
def test_busy_workers_pass_a_suspect_by_until_no_idle_one_has_taken_it_in_time(world, rooted):
    task = world.task({"a": (), "b": ()})
    worker = world.worker()
    world.claim(worker)
    _crash(world, worker)  # both are to be run alone now
    world.now += 0.001
    plain = verbs.NewTask(
        "plain", "work", encode_payload({}), (world.item(MAIN),), root_id=task if rooted else None
    )
    world.do(verbs.create_task(plain, world.now))
    busy, root = world.worker(), {"roots": (task,)} if rooted else {}
    (passed,) = world.claim(busy, idle=False, **root)
    assert passed.lease.task_id == "plain"
    world.fail(passed.lease, retry_at=world.now)
    world.now += PATIENCE
    assert world.claim(busy, idle=False, **root) == []  # soon it is idle
    assert world.claim(busy, **root)[0].item.alone

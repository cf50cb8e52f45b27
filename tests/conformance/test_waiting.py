"""Waiting for signals, children and people, and the races around it."""

from __future__ import annotations

import json
import os

import pytest

from holdfast import errors
from holdfast.models import MAIN
from holdfast.states import ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload, load_payload
from holdfast.store.verbs import NewTask, Parked

VALUE = encode_payload({"approved": True})


def _send(world, task, name="go", signal="s1", store=None):
    world.do(verbs.send_signal(task, signal, name, VALUE, world.now), store)


def _park_for(world, lease, *signals, wake_at=None, kind="signal"):
    wait = json.dumps({"kind": kind, "signals": signals})
    parked = Parked(ItemStatus.WAITING, wait, wake_at, signals=signals)
    world.do(verbs.park_work_item(lease, world.append(lease), parked, world.now))


def test_a_signal_wakes_whoever_waits_for_it(world):
    task = world.task()
    _park_for(world, world.claim_one().lease, "stop", "go")
    assert world.task_status(task) == "waiting"
    _send(world, task, "other")
    assert world.status(task) is ItemStatus.WAITING
    _send(world, task, "go", "s2")
    assert (world.status(task), world.task_status(task)) == ("ready", "running")


def test_a_signal_that_arrives_between_the_check_and_the_park_is_not_missed(world):
    task = world.task()
    lease = world.claim_one().lease
    assert world.read(verbs.peek_signal(task, "go")) is None
    _send(world, task, store=world.other())
    _park_for(world, lease, "go")
    assert world.status(task) is ItemStatus.READY
    assert world.get(task).wait is None


def test_the_oldest_signal_is_taken_first_and_each_once(world):
    task = world.task()
    lease = world.claim_one().lease
    _send(world, task, signal="s2")
    _send(world, task, signal="s1")
    _send(world, task, signal="s1")  # sent twice, kept once
    for expected in ("s1", "s2"):
        signal, column = world.read(verbs.peek_signal(task, "go"))
        assert (signal, column) == (expected, VALUE.column)
        world.do(verbs.take_signal(lease, world.append(lease, {}), signal, world.now))
    assert world.read(verbs.peek_signal(task, "go")) is None


def test_two_items_can_not_take_the_same_signal(world):
    task = world.task({"a": (), "b": ()})
    first, second = (each.lease for each in world.claim(world.worker()))
    _send(world, task)
    world.do(verbs.take_signal(first, world.append(first, {}), "s1", world.now))
    with pytest.raises(errors.JournalError):
        world.do(verbs.take_signal(second, world.append(second, {}), "s1", world.now))
    assert world.read(verbs.read_journal(task, second.item_id)) == []


@pytest.mark.parametrize("kind", ["approval", "budget"])
def test_waiting_for_a_person_blocks_the_task_unless_a_timer_is_set(world, kind):
    task = world.task()
    lease = world.claim_one().lease
    _park_for(world, lease, "go", kind=kind)
    assert world.task_status(task) == "blocked"
    _send(world, task)
    assert world.task_status(task) == "running"
    world.do(verbs.take_signal(lease := world.claim_one().lease, world.append(lease, {}), "s1", 0))
    _park_for(world, lease, "go", wake_at=world.now + 1, kind=kind)
    assert world.task_status(task) == "waiting"


@pytest.mark.parametrize(
    ("status", "task_status"),
    [
        (ItemStatus.IN_DOUBT, "blocked"),
        (ItemStatus.QUARANTINED, "blocked"),
        (ItemStatus.READY, "running"),
    ],
)
def test_parking_ends_the_attempt_without_counting_it(world, status, task_status):
    task = world.task()
    lease = world.claim_one().lease
    parked = Parked(status, error="because")
    world.do(verbs.park_work_item(lease, world.append(lease, {}), parked, world.now))
    item = world.get(task)
    assert (item.status, item.lease_owner, item.attempts) == (status, None, 0)
    assert world.task_status(task) == task_status


# -- children --------------------------------------------------------------------------------------


def _child(world, lease, name="child"):
    new = NewTask(
        name, "work", encode_payload({}), (world.item(MAIN, queue="children"),),
        parent_id=lease.task_id, parent_item=lease.item_id, root_id=lease.task_id,
    )  # fmt: skip
    return world.do(verbs.append_child(lease, world.append(lease, {}), new, world.now))


def _wait_for(world, lease, *children):
    wait = json.dumps({"kind": "child", "children": children})
    parked = Parked(ItemStatus.WAITING, wait, children=children)
    world.do(verbs.park_work_item(lease, world.append(lease), parked, world.now))


def _end_child(world, child, how):
    worker = world.worker()
    if how == "canceled":
        world.do(verbs.cancel_task(child, "why", world.now))
        return
    lease = world.claim_one(worker, queues=("children",)).lease
    if how == "failed":
        world.fail(lease)
    else:
        world.finish(lease)


@pytest.mark.parametrize("how", ["succeeded", "failed", "canceled"])
def test_a_child_that_ends_wakes_its_parent(world, how):
    task = world.task()
    lease = world.claim_one().lease
    assert _child(world, lease).created
    _wait_for(world, lease, "child")
    assert world.task_status(task) == "waiting"
    _end_child(world, "child", how)
    assert world.task_status("child") == how
    assert (world.status(task), world.task_status(task)) == ("ready", "running")


def test_a_child_that_ends_before_its_parent_parks_is_not_missed(world):
    task = world.task()
    lease = world.claim_one().lease
    _child(world, lease)
    _end_child(world, "child", "succeeded")
    _wait_for(world, lease, "child")
    assert world.status(task) is ItemStatus.READY


def test_a_child_that_ends_does_not_cut_another_wait_short(world):
    task = world.task()
    lease = world.claim_one().lease
    _child(world, lease)
    world.fail(lease, retry_at=world.now + 60)
    _end_child(world, "child", "succeeded")
    assert world.status(task) is ItemStatus.WAITING


# -- in doubt --------------------------------------------------------------------------------------


def _doubtful(world, plan=None):
    task = world.task(plan)
    lease = world.claim_one().lease
    world.record(
        lease,
        {"status": "started", "effect": "once"},
        {"status": "doubt", "effect": "once", "ref": 1},
    )
    parked = Parked(ItemStatus.IN_DOUBT, error="unknown")
    world.do(verbs.park_work_item(lease, world.append(lease), parked, world.now))
    return task, lease


def test_a_resolution_lets_the_item_go_on_and_keeps_its_blob(world):
    task, lease = _doubtful(world)
    assert world.task_status(task) == "blocked"
    large = encode_payload(os.urandom(5000))
    append = world.append(lease, {"status": "done", "ref": 1, "outcome": large.column})
    append = verbs.Append(append.before, append.entries, (large,), append.head)
    assert world.do(verbs.append_resolution(task, MAIN, 1, append, "done", world.now))
    assert (world.status(task), world.task_status(task)) == ("ready", "running")
    assert load_payload(world.store, task, large.column)


def test_a_resolution_is_refused_when_the_journal_moved_on_or_the_item_runs(world):
    task, lease = _doubtful(world)
    append = world.append(lease, {"status": "done", "ref": 1})
    assert world.do(verbs.append_resolution(task, MAIN, 1, append, "done", world.now))
    assert not world.do(verbs.append_resolution(task, MAIN, 1, append, "done", world.now))
    lease = world.claim_one().lease
    running = world.append(lease, {"status": "done", "ref": 1})
    assert not world.do(verbs.append_resolution(task, MAIN, 1, running, "done", world.now))


def test_an_item_with_another_entry_in_doubt_stays_in_doubt(world):
    task, lease = _doubtful(world)
    more = world.append(lease, {"status": "started"}, {"status": "doubt", "ref": 3})
    assert world.do(verbs.extend_idle(task, MAIN, more))
    append = world.append(lease, {"status": "done", "ref": 1})
    assert world.do(verbs.append_resolution(task, MAIN, 1, append, "done", world.now))
    assert world.status(task) is ItemStatus.IN_DOUBT
    append = world.append(lease, {"status": "released", "ref": 3})
    assert world.do(verbs.append_resolution(task, MAIN, 3, append, "not done", world.now))
    assert world.status(task) is ItemStatus.READY

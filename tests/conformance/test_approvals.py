"""Approvals: decided once, used once, and no decision is missed by whoever waits for it."""

from __future__ import annotations

import json
import threading

import pytest

from holdfast import errors
from holdfast.models import MAIN
from holdfast.states import ItemStatus
from holdfast.store import verbs
from holdfast.store.verbs import Asked, Decision, Parked

REQUEST = {"kind": "approval", "status": "started"}
USED = {"kind": "approval", "status": "done", "ref": 1}
YES, NO = Decision("approved", "alice", "fine"), Decision("rejected", "bob")


def _ask(world, lease, name="send", **fields):
    append = world.append(lease, REQUEST)
    asked = Asked(name, "", b"digest", "a text", **fields)
    world.do(verbs.request_approval(lease, append, asked, world.now))
    return append.after


def _decide(world, lease, decision=YES, seq=1, store=None):
    verb = verbs.decide_approval(lease.task_id, lease.item_id, seq, decision, world.now)
    world.do(verb, store)


def _use(world, lease, seq=1):
    append = world.append(lease, USED, {"status": "started", "effect": "once"})
    world.do(verbs.use_approval(lease, append, seq, world.now))


def _parking(world, lease, *seqs, wake_at=None):
    wait = json.dumps({"kind": "approval", "approvals": seqs})
    parked = Parked(ItemStatus.WAITING, wait, wake_at, approvals=seqs)
    return verbs.park_work_item(lease, world.append(lease), parked, world.now)


def _park(world, lease, *seqs, **fields):
    world.do(_parking(world, lease, *seqs, **fields))


def _row(world, lease, seq=1):
    return world.read(verbs.get_approval(lease.task_id, lease.item_id, seq))


def test_a_request_is_kept_with_its_entry_and_the_answer_with_the_request(world):
    task = world.task()
    lease = world.claim_one().lease
    seq = _ask(world, lease, expires_at=world.now + 9)
    found = _row(world, lease)
    assert (found.status, found.name, found.text, found.digest) == (
        "waiting", "send", "a text", b"digest",
    )  # fmt: skip
    assert (found.entry, found.expires_at) == (f"{task}:{MAIN}:{seq}", world.now + 9)
    _decide(world, lease)
    found = _row(world, lease)
    assert (found.status, found.decided_by, found.reason, found.decided_at) == (
        "approved", "alice", "fine", world.now,
    )  # fmt: skip
    assert {"approval_requested", "approval_approved"} <= set(world.events(task))


@pytest.mark.parametrize("decision", [YES, NO])
def test_an_answer_wakes_whoever_waits_for_it(world, decision):
    task = world.task()
    lease = world.claim_one().lease
    _ask(world, lease)
    other = _ask(world, lease)
    _park(world, lease, 1)
    assert (world.status(task), world.task_status(task)) == ("waiting", "blocked")
    _decide(world, lease, decision, other)
    assert world.status(task) == "waiting"
    _decide(world, lease, decision)
    assert (world.status(task), world.task_status(task)) == ("ready", "running")


def test_an_answer_that_comes_between_the_look_and_the_park_is_not_missed(world):
    task = world.task()
    lease = world.claim_one().lease
    _ask(world, lease)
    assert _row(world, lease).status == "waiting"
    _decide(world, lease, store=world.other())
    _park(world, lease, 1)
    assert world.status(task) == "ready"


def test_answering_and_parking_at_the_same_time_leaves_nobody_waiting(world):
    other = world.other()
    for _ in range(10):
        task = world.task()
        lease = world.claim_one().lease
        _ask(world, lease)
        writes = (
            (world.store, verbs.decide_approval(task, MAIN, 1, YES, world.now)),
            (other, _parking(world, lease, 1)),
        )
        threads = [threading.Thread(target=store.commit(verb).wait) for store, verb in writes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert world.status(task) == "ready"
        world.do(verbs.cancel_task(task, "over", world.now))


def test_of_two_people_who_answer_at_the_same_time_one_is_refused(world):
    task = world.task()
    lease = world.claim_one().lease
    _ask(world, lease)
    refused: list[Exception] = []

    def decide(store, decision) -> None:
        try:
            store.commit(verbs.decide_approval(task, MAIN, 1, decision, world.now)).wait()
        except errors.UsageError as error:
            refused.append(error)

    threads = [
        threading.Thread(target=decide, args=given)
        for given in ((world.store, YES), (world.other(), NO))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (error,) = refused
    assert f"was {_row(world, lease).status} already" in str(error)


def test_an_approval_is_used_once_and_only_when_it_was_given(world):
    world.task()
    lease = world.claim_one().lease
    _ask(world, lease)
    with pytest.raises(errors.JournalError):
        _use(world, lease)
    assert len(world.read(verbs.read_journal(lease.task_id, MAIN))) == 1
    _decide(world, lease)
    _use(world, lease)
    assert _row(world, lease).status == "used"
    with pytest.raises(errors.JournalError):
        _use(world, lease)
    assert len(world.read(verbs.read_journal(lease.task_id, MAIN))) == 3
    with pytest.raises(errors.UsageError, match="used already by alice"):
        _decide(world, lease)


def test_an_answer_after_the_time_is_over_is_refused_and_one_before_it_stays_usable(world):
    world.task()
    lease = world.claim_one().lease
    for _ in range(2):
        _ask(world, lease, expires_at=world.now + 9)
    _decide(world, lease, seq=1)
    world.now += 9
    with pytest.raises(errors.UsageError, match="has expired"):
        _decide(world, lease, seq=2)
    append = world.append(lease, USED)
    with pytest.raises(errors.JournalError):  # it was given in time: it doesn't expire
        world.do(verbs.expire_approval(lease, append, 1, world.now))
    world.do(verbs.expire_approval(lease, append, 2, world.now))
    assert [_row(world, lease, seq).status for seq in (1, 2)] == ["approved", "expired"]
    _use(world, lease)


def test_an_item_whose_request_expires_is_woken(world):
    task = world.task()
    lease = world.claim_one().lease
    _ask(world, lease, expires_at=world.now + 9)
    _park(world, lease, 1, wake_at=world.now + 9)
    assert world.task_status(task) == "waiting"
    world.now += 9
    assert world.claim_one().lease.task_id == task


@pytest.mark.parametrize("running", [True, False])
def test_what_was_canceled_can_not_be_approved_any_more(world, running):
    task = world.task()
    lease = world.claim_one().lease
    _ask(world, lease)
    if not running:
        _park(world, lease, 1)
    world.do(verbs.cancel_task(task, "over", world.now))
    with pytest.raises(errors.UsageError, match="cancel"):
        _decide(world, lease)
    assert _row(world, lease).status == "waiting"
    assert [each.task_id for each in world.read(verbs.waiting_approvals())] == [task] * running


def test_a_newer_request_takes_the_place_of_those_before_it(world):
    world.task()
    lease = world.claim_one().lease
    for seq in range(1, 4):
        _ask(world, lease, "plan", supersedes=True)
        if seq == 1:
            _decide(world, lease)
    assert [_row(world, lease, seq).status for seq in range(1, 4)] == [
        "expired", "expired", "waiting",
    ]  # fmt: skip


def test_a_plan_is_pinned_only_with_its_approval(world):
    task = world.planned_task()
    lease = world.claim_one().lease
    _ask(world, lease, "plan")
    append = world.append(lease, USED)
    pin = verbs.commit_plan(lease, append, [world.item("a")], ("a",), world.now, 1)
    with pytest.raises(errors.JournalError):
        world.do(pin)
    assert [item.item_id for item in world.read(verbs.list_items(task))] == ["plan", MAIN]
    _decide(world, lease)
    world.do(pin)
    assert [item.item_id for item in world.read(verbs.list_items(task))] == ["plan", "a", MAIN]
    assert _row(world, lease).status == "used"


def test_requests_are_listed_by_task_with_what_is_below_it_oldest_first(world):
    tasks = [world.task(), world.task()]
    leases = [claimed.lease for claimed in world.claim(world.worker())]
    for lease in leases:
        world.now += 1
        _ask(world, lease)
    listed = world.read(verbs.waiting_approvals())
    assert [each.task_id for each in listed] == [lease.task_id for lease in leases]
    for task in tasks:
        assert [each.task_id for each in world.read(verbs.waiting_approvals(task))] == [task]
    world.do(verbs.decide_approval(tasks[0], MAIN, 1, YES, world.now))
    assert len(world.read(verbs.waiting_approvals())) == 1
    with pytest.raises(errors.TaskNotFoundError):
        world.read(verbs.waiting_approvals("nobody"))


def test_a_fork_copies_no_request_and_a_pruned_task_takes_its_own_with_it(world):
    task = world.task()
    lease = world.claim_one().lease
    _ask(world, lease)
    world.commit_checkpoint(lease, 1)
    world.do(verbs.fork_task(verbs.Fork("fork", task, MAIN, 1, ()), world.now))
    assert world.read(verbs.get_approval("fork", MAIN, 1)) is None
    world.do(verbs.cancel_task(task, "over", world.now))
    world.do(verbs.end_canceled(lease, world.append(lease), world.now))
    assert world.do(verbs.prune_task(task))
    assert _row(world, lease) is None

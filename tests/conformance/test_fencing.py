"""Every write under a lease names its token; a stale one is refused and nothing of it is kept."""

from __future__ import annotations

import inspect
import os

import pytest

from holdfast import errors
from holdfast.ids import new_id
from holdfast.models import MAIN, Budget, Lease
from holdfast.states import ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload, load_payload, read_blob
from holdfast.store.verbs import Asked, Charge, Decision, Finish, NewTask, Parked

SIGNAL = "signal-1"
RESERVED, APPROVED, ASKED = 2, 3, 4
"""The entries that have reserved something of the budget, and asked for approvals."""


def _finish(world, lease, append):
    payload = encode_payload("stale")
    return verbs.finish_work_item(
        lease, append, Finish(payload, b"h", changed=True, proven=False), world.now
    )


def _checkpoint(world, lease, append):
    checkpoint = world.checkpoint(lease, 9)
    claims = [world.claim_about(lease, 9, "file:a")]
    return verbs.commit_checkpoint(
        lease, append, checkpoint, claims, encode_payload("stale"), world.now
    )


def _child(world, lease, append):
    child = NewTask(
        new_id(world.now), "work", encode_payload({}), (world.item(MAIN),),
        parent_id=lease.task_id, parent_item=lease.item_id,
    )  # fmt: skip
    return verbs.append_child(lease, append, child, world.now)


LEASED = {
    "append_entries": lambda w, lease, app: verbs.append_entries(lease, app, w.now),
    "append_child": _child,
    "take_signal": lambda w, lease, app: verbs.take_signal(lease, app, SIGNAL, w.now),
    "report_progress": lambda w, lease, app: verbs.report_progress(
        lease, app, "half", 1.0, 2.0, w.now
    ),
    "commit_checkpoint": _checkpoint,
    "finish_work_item": _finish,
    "park_work_item": lambda w, lease, app: verbs.park_work_item(
        lease, app, Parked(ItemStatus.WAITING), w.now
    ),
    "fail_attempt": lambda w, lease, app: verbs.fail_attempt(lease, app, "broke", None, w.now),
    "end_canceled": lambda w, lease, app: verbs.end_canceled(lease, app, w.now),
    "commit_plan": lambda w, lease, app: verbs.commit_plan(
        lease, app, [w.item("extra")], ["extra"], w.now
    ),
    "reserve_budget": lambda w, lease, app: verbs.reserve_budget(
        lease, app, Charge(lease.task_id, 5, 0), w.now
    ),
    "settle_budget": lambda w, lease, app: verbs.settle_budget(
        lease, app, lease.task_id, RESERVED, 5, 0, w.now
    ),
    "request_approval": lambda w, lease, app: verbs.request_approval(
        lease, app, Asked("again", "", b"d", supersedes=True), w.now
    ),
    "use_approval": lambda w, lease, app: verbs.use_approval(lease, app, APPROVED, w.now),
    "expire_approval": lambda w, lease, app: verbs.expire_approval(lease, app, ASKED, w.now),
    "abandon_lease": lambda w, lease, _: verbs.abandon_lease(lease, w.now),
}


def test_every_verb_that_takes_a_lease_is_in_this_suite():
    taking = {
        name
        for name in verbs.__all__
        if callable(getattr(verbs, name))
        and next(iter(inspect.signature(getattr(verbs, name)).parameters), "") == "lease"
        and not isinstance(getattr(verbs, name), type)
    }
    assert taking == set(LEASED)


@pytest.fixture
def held(world):
    """A claimed item with something in its journal, its budget and its mailbox."""
    task = world.task(budget=Budget(tokens=100))
    lease = world.claim_one().lease
    world.record(lease, {})
    intent = world.append(lease, {"status": "started"})
    assert world.do(verbs.reserve_budget(lease, intent, Charge(task, 50, 0), world.now))
    for asked in ("one", "again"):
        request = world.append(lease, {"kind": "approval", "status": "started"})
        world.do(verbs.request_approval(lease, request, Asked(asked, "", b"d"), world.now))
    world.do(verbs.decide_approval(task, MAIN, APPROVED, Decision("approved", "me"), world.now))
    world.do(verbs.send_signal(task, SIGNAL, "go", encode_payload(1), world.now))
    return lease


def _taken_over(world, lease) -> Lease:
    """Let another worker take the item over, as after a stall."""
    world.do(verbs.expire_worker(lease.owner, None, world.now))
    return world.claim_one().lease


@pytest.mark.parametrize("name", LEASED)
def test_a_stale_token_is_refused_and_changes_nothing(world, held, name):
    newer = _taken_over(world, held)
    append = world.append(held, {}, {})
    before = world.contents()

    with pytest.raises(errors.LeaseLostError) as refused:
        world.do(LEASED[name](world, held, append))

    assert world.contents() == before
    assert refused.value.token == held.token < newer.token
    assert "write_refused" in world.events(held.task_id)


@pytest.mark.parametrize("name", LEASED)
def test_a_lease_that_was_taken_back_is_refused_before_anybody_claims_again(world, held, name):
    world.do(verbs.expire_worker(held.owner, None, world.now))
    before = world.contents()
    with pytest.raises(errors.LeaseLostError):
        world.do(LEASED[name](world, held, world.append(held)))
    assert world.contents() == before


@pytest.mark.parametrize("name", sorted(set(LEASED) - {"abandon_lease"}))
def test_a_position_that_does_not_follow_is_no_lost_lease(world, held, name):
    behind = world.append(held, {})
    world.record(held)
    before = world.contents()
    with pytest.raises(errors.StoreUnavailableError, match="earlier write"):
        world.do(LEASED[name](world, held, behind))
    assert world.contents() == before
    assert "write_refused" not in world.events(held.task_id)


def test_two_appends_of_one_lease_at_the_same_position_keep_one(world, held):
    other = world.other()
    first, second = world.append(held, {}), world.append(held, {}, {})
    world.do(verbs.append_entries(held, first, world.now))
    with pytest.raises(errors.StoreUnavailableError):
        world.do(verbs.append_entries(held, second, world.now), other)
    found = world.read(verbs.read_journal(held.task_id, MAIN, ASKED))
    assert [entry.seq for entry in found] == [ASKED + 1]


def test_a_refused_write_for_a_pruned_task_leaves_nothing_behind(world, held):
    world.finish(held)
    assert world.do(verbs.prune_task(held.task_id))
    with pytest.raises(errors.LeaseLostError):
        world.do(verbs.append_entries(held, verbs.Append(ASKED), world.now))
    assert world.events(held.task_id) == []


def test_an_append_moves_the_head_and_a_bare_fence_leaves_it(world, held):
    append = world.append(held, {})
    world.do(verbs.append_entries(held, append, world.now))
    world.do(verbs.append_entries(held, world.append(held), world.now))
    item = world.get(held.task_id)
    assert (item.seq, item.chain_head) == (append.after, append.head)


def test_entries_come_back_as_they_were_written_with_their_blobs(world, held):
    large = encode_payload(bytes(range(256)) * 64 + os.urandom(5000))
    append = world.append(held, {"outcome": large.column, "usage": b"u", "ref": 1, "keyed": True})
    append = verbs.Append(append.before, append.entries, (large,), append.head)
    world.do(verbs.append_entries(held, append, world.now))
    (entry,) = world.read(verbs.read_journal(held.task_id, MAIN, ASKED))
    assert entry == append.entries[0]
    assert world.read(read_blob(held.task_id, large.digest)) == large.data
    assert load_payload(world.store, held.task_id, entry.outcome)

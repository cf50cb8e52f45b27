"""Checkpoints, claims about the world, and taking work back when they no longer hold."""

from __future__ import annotations

import os

import msgspec
import pytest

from holdfast import errors
from holdfast.models import MAIN
from holdfast.states import CheckpointType, EntryKind, ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload, load_payload, read_blob
from holdfast.store.verbs import Finish, Parked, Reopening


def test_a_checkpoint_is_there_with_its_entry_its_claims_and_its_state(world):
    task = world.task()
    lease = world.claim_one().lease
    large = encode_payload(os.urandom(5000))
    world.commit_checkpoint(lease, 1, "file:a", "file:b", state=large)
    world.commit_checkpoint(lease, 2, "file:b")
    assert [c.number for c in world.read(verbs.list_checkpoints(task))] == [1, 2]
    assert [c.number for c in world.read(verbs.newest_checkpoints(task, MAIN, 2, 10))] == [1]
    found = world.read(verbs.get_checkpoint(task, MAIN, 1))
    assert load_payload(world.store, task, found.state)
    assert found.anchor == world.read(verbs.read_journal(task, MAIN))[0].chain
    assert world.read(verbs.get_checkpoint(task, MAIN, 3)) is None


def test_the_newest_claim_about_a_subject_supersedes_the_earlier_one(world):
    task = world.task({"a": (), "b": ("a",)})
    worker = world.worker()
    lease = world.claim_one(worker).lease
    world.commit_checkpoint(lease, 1, "file:x", "file:y")
    world.finish(lease)
    lease = world.claim_one(worker).lease
    world.commit_checkpoint(lease, 1, "file:x")
    claims = {claim.subject: claim.item_id for claim in world.read(verbs.list_claims(task))}
    assert claims == {"file:x": "b", "file:y": "a"}
    assert [c.subject for c in world.read(verbs.list_claims(task, ["a"]))] == ["file:y"]
    assert world.read(verbs.list_claims(task, [])) == []


def test_a_verdict_of_a_superseded_claim_is_dropped(world):
    task = world.task()
    lease = world.claim_one().lease
    world.commit_checkpoint(lease, 1, "file:x")
    (old,) = world.read(verbs.list_claims(task))
    world.commit_checkpoint(lease, 2, "file:x")
    stale = msgspec.structs.replace(old, verdict=b"changed")
    world.do(verbs.record_verdicts(task, [stale]))
    (new,) = world.read(verbs.list_claims(task))
    assert (new.number, new.verdict) == (2, b"verified")
    world.do(verbs.record_verdicts(task, [msgspec.structs.replace(new, verdict=b"changed")]))
    assert world.read(verbs.list_claims(task))[0].verdict == b"changed"


def test_a_refuted_checkpoint_says_so_and_keeps_the_time_it_was_last_verified(world):
    task = world.task()
    lease = world.claim_one().lease
    world.commit_checkpoint(lease, 1)
    verified = world.now
    world.now += 5
    world.do(verbs.set_checkpoint_status(task, MAIN, 1, "refuted", "gone", world.now))
    found = world.read(verbs.get_checkpoint(task, MAIN, 1))
    assert (found.status, found.verified_at) == ("refuted", verified)
    assert "checkpoint_refuted" in world.events(task)
    world.do(verbs.set_checkpoint_status(task, MAIN, 1, "verified", "", world.now))
    assert world.read(verbs.get_checkpoint(task, MAIN, 1)).verified_at == world.now


def test_finishing_with_a_checkpoint_keeps_both_or_neither(world):
    task = world.task()
    lease = world.claim_one().lease
    large = encode_payload(os.urandom(5000))
    checkpoint = world.checkpoint(lease, 1, state=large.column)
    claims = (world.claim_about(lease, 1, "file:x"),)
    finish = Finish(
        encode_payload(1), b"h", changed=True, proven=True, checkpoint=checkpoint, claims=claims
    )
    append = world.append(lease, {"kind": EntryKind.CHECKPOINT})
    append = verbs.Append(append.before, append.entries, (large,), append.head)
    world.do(verbs.finish_work_item(lease, append, finish, world.now))
    assert world.get(task).proven
    assert load_payload(world.store, task, world.read(verbs.list_checkpoints(task))[0].state)
    assert len(world.read(verbs.list_claims(task))) == 1


# -- reopening -------------------------------------------------------------------------------------


def _reopening(world, task, item, *, root):
    record = world.get(task, item)
    from_here = world.append_to(record, {"kind": EntryKind.MARKER, "name": "redo"})
    return Reopening(record, from_here.entries[0], root)


def _reopen(world, task, *roots, limit=2):
    dependents = world.read(verbs.dependents_of(task, sorted(roots)))
    chosen = [_reopening(world, task, name, root=True) for name in roots]
    chosen += [
        _reopening(world, task, item.item_id, root=False)
        for item in dependents
        if item.status not in {ItemStatus.PENDING, ItemStatus.SKIPPED}
    ]
    return world.do(verbs.reopen_items(task, chosen, "drifted", limit, world.now))


def _run_all(world, task, **finish):
    worker = world.worker()
    order = []
    while claimed := world.claim(worker, 1):
        order.append(claimed[0].lease.item_id)
        world.finish(claimed[0].lease, **finish)
    return order


def test_a_reopened_item_whose_result_is_unchanged_restores_what_depends_on_it(world):
    task = world.task({"a": (), "b": ("a",), "c": ("b",)})
    _run_all(world, task)
    assert world.task_status(task) == "succeeded"
    assert _reopen(world, task, "a")
    assert [world.status(task, name) for name in "abc"] == ["ready", "pending", "pending"]
    assert world.task_status(task) == "running"
    assert world.read(verbs.read_journal(task, "b"))[-1].name == "redo"
    assert _run_all(world, task, changed=False) == ["a"]
    assert [world.status(task, name) for name in "abc"] == ["succeeded"] * 3
    assert world.events(task).count("item_unchanged") == 2
    assert world.task_status(task) == "succeeded"


def test_a_reopened_item_whose_result_changed_runs_what_depends_on_it(world):
    task = world.task({"a": (), "b": ("a",), "c": ("b",)})
    _run_all(world, task)
    _reopen(world, task, "a")
    worker = world.worker()
    assert world.run_one(worker, changed=True) == "a"
    assert world.run_one(worker, changed=False) == "b"
    assert world.status(task, "c") is ItemStatus.SUCCEEDED  # b came out as before: c stands


def test_one_changed_input_of_several_is_enough(world):
    task = world.task({"a": (), "b": (), "c": ("a", "b")})
    _run_all(world, task)
    _reopen(world, task, "a", "b")
    worker = world.worker()
    changed = {"a": True, "b": False}
    for _ in range(2):
        lease = world.claim_one(worker).lease
        world.finish(lease, changed=changed[lease.item_id])
    assert world.status(task, "c") is ItemStatus.READY


def test_a_dependent_whose_file_the_redone_item_wrote_over_runs_again(world):
    """Item a writes x and y, b edits x; y drifts. Redoing a undoes what b did to x."""
    task = world.task({"a": (), "b": ("a",)})
    worker = world.worker()
    for number, subjects in enumerate((("file:x", "file:y"), ("file:x",)), 1):
        lease = world.claim_one(worker).lease
        world.commit_checkpoint(lease, number, *subjects)
        world.finish(lease)
    _reopen(world, task, "a")
    lease = world.claim_one(worker).lease
    world.commit_checkpoint(lease, 2, "file:x", "file:y")
    world.finish(lease, changed=False)
    assert world.status(task, "b") is ItemStatus.READY


def test_reopening_revokes_leases(world):
    task = world.task({"a": (), "b": ("a",)})
    worker = world.worker()
    world.run_one(worker)
    lease = world.claim_one(worker).lease
    _reopen(world, task, "a")
    assert world.get(task, "b").attempts == 0
    with pytest.raises(errors.LeaseLostError):
        world.finish(lease)
    assert [world.run_one(worker), world.run_one(worker)] == ["a", "b"]


def test_nothing_is_reopened_when_an_item_has_moved_on(world):
    task = world.task({"a": (), "b": ("a",)})
    worker = world.worker()
    world.run_one(worker)
    lease = world.claim_one(worker).lease
    stale = [
        _reopening(world, task, "a", root=True),
        _reopening(world, task, "b", root=False),
    ]
    world.record(lease)
    before = world.contents()
    assert not world.do(verbs.reopen_items(task, stale, "drifted", 2, world.now))
    assert world.contents() == before


def test_after_two_reopenings_a_person_is_asked_and_a_retry_respects_the_plan(world):
    task = world.task({"a": (), "b": ("a",)})
    for _ in range(2):
        _run_all(world, task)
        assert _reopen(world, task, "b")
        assert world.status(task, "b") is ItemStatus.READY
    _run_all(world, task)
    _reopen(world, task, "a", "b")
    assert [world.status(task, name) for name in "ab"] == ["ready", "quarantined"]
    world.do(verbs.retry_task(task, world.now))
    assert [world.status(task, name) for name in "ab"] == ["ready", "pending"]
    assert _run_all(world, task) == ["a", "b"]


def test_an_item_resolved_while_what_is_before_it_is_redone_waits_for_it(world):
    task = world.task({"a": (), "b": ("a",)})
    worker = world.worker()
    world.run_one(worker)
    lease = world.claim_one(worker).lease
    world.record(lease, {"status": "started"}, {"status": "doubt", "ref": 1})
    parked = Parked(ItemStatus.IN_DOUBT)
    world.do(verbs.park_work_item(lease, world.append(lease), parked, world.now))
    only_a = [_reopening(world, task, "a", root=True)]
    world.do(verbs.reopen_items(task, only_a, "drifted", 2, world.now))
    append = world.append(lease, {"status": "done", "ref": 1})
    assert world.do(verbs.append_resolution(task, "b", 1, append, "done", world.now))
    assert world.status(task, "b") is ItemStatus.PENDING
    assert [world.run_one(worker), world.run_one(worker)] == ["a", "b"]


# -- pruning ---------------------------------------------------------------------------------------


def _long_item(world):
    task = world.task()
    lease = world.claim_one().lease
    for number in range(1, 6):
        world.record(lease, {}, {"effect": "once"}, {"keyed": True}, {"kind": EntryKind.MARKER})
        world.commit_checkpoint(lease, number)
    return task, lease


def test_pruning_keeps_the_newest_checkpoints_and_what_must_not_be_repeated(world):
    task, lease = _long_item(world)
    assert world.do(verbs.prune_journal(task, MAIN, 2)) == 8  # a step and a checkpoint, 4 times
    assert [c.number for c in world.read(verbs.list_checkpoints(task))] == [4, 5]
    oldest = world.read(verbs.list_checkpoints(task))[0]
    assert world.get(task).pruned_seq == oldest.journal_seq
    entries = world.read(verbs.read_journal(task, MAIN))
    kept = [entry for entry in entries if entry.seq <= oldest.journal_seq]
    assert len(kept) == 12
    assert {(e.effect, e.keyed, e.kind) for e in kept} == {
        ("once", False, "step"), ("idempotent", True, "step"), ("idempotent", False, "marker"),
    }  # fmt: skip
    assert len(world.read(verbs.read_journal(task, MAIN, oldest.journal_seq))) == 5
    world.record(lease)
    assert world.do(verbs.prune_journal(task, MAIN, 2)) == 0


def test_pruning_never_removes_the_newest_checkpoint_that_may_be_resumed_from(world):
    task, lease = _long_item(world)
    for number in (6, 7, 8):
        world.commit_checkpoint(lease, number, type=CheckpointType.ERROR_BOUNDARY)
    world.do(verbs.set_checkpoint_status(task, MAIN, 5, "refuted", "gone", world.now))
    world.do(verbs.prune_journal(task, MAIN, 1))
    numbers = [c.number for c in world.read(verbs.list_checkpoints(task))]
    assert 4 in numbers
    assert 1 not in numbers
    position = world.read(verbs.get_checkpoint(task, MAIN, 4)).journal_seq
    assert world.get(task).pruned_seq <= position


def test_nothing_is_pruned_where_no_checkpoint_may_be_resumed_from(world):
    task = world.task()
    lease = world.claim_one().lease
    world.record(lease, {}, {})
    world.commit_checkpoint(lease, 1, type=CheckpointType.ERROR_BOUNDARY)
    assert world.do(verbs.prune_journal(task, MAIN, 1)) == 0
    assert len(world.read(verbs.read_journal(task, MAIN))) == 3


def test_only_items_that_restore_and_have_something_to_prune_are_named(world):
    task = world.task()
    lease = world.claim_one().lease
    world.record(lease, *({} for _ in range(150)))
    world.do(verbs.set_restores(task, MAIN))
    assert world.read(verbs.prunable_items(10)) == []
    world.commit_checkpoint(lease, 1)
    assert world.read(verbs.prunable_items(10)) == [(task, MAIN)]
    world.do(verbs.prune_journal(task, MAIN, 1))
    assert world.read(verbs.prunable_items(10)) == []


def test_pruning_removes_blobs_nobody_refers_to_and_no_others(world):
    shared, dead = encode_payload(os.urandom(4000)), encode_payload(os.urandom(4000))
    tasks = []
    for _ in range(2):
        task = world.task()
        lease = world.claim_one().lease
        for payload in (dead, shared):
            append = world.append(lease, {"outcome": payload.column})
            append = verbs.Append(append.before, append.entries, (payload,), append.head)
            world.do(verbs.append_entries(lease, append, world.now))
        world.commit_checkpoint(lease, 1, state=shared)
        tasks.append(task)
    world.do(verbs.prune_journal(tasks[0], MAIN, 1))
    assert world.read(read_blob(tasks[0], dead.digest)) is None
    assert world.read(read_blob(tasks[0], shared.digest)) == shared.data
    assert world.read(read_blob(tasks[1], dead.digest)) == dead.data

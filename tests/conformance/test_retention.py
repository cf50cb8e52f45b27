"""Removing what nobody needs, the shared cache, counters, and the timeline."""

from __future__ import annotations

import os

from holdfast.models import MAIN
from holdfast.states import ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload, read_blob
from holdfast.store.verbs import CacheEntry, CacheHit, CacheMiss, NewTask


def _ended(world, payload=None, **fields):
    payload = payload or encode_payload(1)
    item = world.item(MAIN, input=payload)
    name = verbs.create_task(
        NewTask(f"t{world.now:.0f}", "work", payload, (item,), **fields), world.now
    )
    task = world.do(name).task.task_id
    world.now += 1
    worker = world.worker()
    lease = world.claim_one(worker).lease
    world.commit_checkpoint(lease, 1, "file:x")
    world.do(verbs.send_signal(task, f"s-{task}", "go", payload, world.now))
    world.finish(lease)
    assert world.do(verbs.finish_task(task, worker, world.now))
    return task


def test_pruning_a_task_removes_it_with_its_descendants_and_nothing_of_others(world):
    large = encode_payload(os.urandom(5000))
    kept = _ended(world, large)
    gone = _ended(world, large)
    child = _ended(world, large, parent_id=gone, parent_item=MAIN, root_id=gone)
    others = world.contents()[kept]
    assert world.do(verbs.prune_task(gone)) is True
    assert [task.task_id for task in world.read(verbs.list_tasks(None, 10))] == [kept]
    assert world.contents() == {kept: others}
    assert world.read(read_blob(kept, large.digest)) == large.data
    for task in (gone, child):
        assert world.read(read_blob(task, large.digest)) is None
        assert world.events(task) == []


def test_a_task_is_prunable_when_it_and_all_its_descendants_ended_long_ago(world):
    task = _ended(world)
    child = world.task(parent_id=task, parent_item=MAIN, root_id=task)
    world.now += 100
    assert world.read(verbs.prunable_tasks(world.now - 50, 10)) == []
    world.do(verbs.cancel_task(child, "why", world.now))
    assert world.read(verbs.prunable_tasks(world.now - 50, 10)) == []
    assert world.read(verbs.prunable_tasks(world.now + 1, 10)) == [task]


def test_a_task_that_was_taken_up_again_is_not_pruned(world):
    task = world.task()
    world.fail(world.claim_one().lease)
    assert world.read(verbs.prunable_tasks(world.now + 1, 10)) == [task]
    world.do(verbs.retry_task(task, world.now))
    assert world.do(verbs.prune_task(task)) is False
    assert world.status(task) is ItemStatus.READY


def test_workers_that_are_gone_are_forgotten_and_no_slot_is_used_twice(world):
    workers = [world.worker() for _ in range(3)]
    world.task()
    world.claim_one(workers[0])
    for worker in workers[1:]:
        world.do(verbs.expire_worker(worker, None, world.now))
    slot = world.read(verbs.next_slot())
    assert world.do(verbs.prune_workers(world.now)) == 0
    assert world.do(verbs.prune_workers(world.now + 1)) == 1
    assert world.read(verbs.next_slot()) == slot
    assert [w.worker_id for w in world.read(verbs.list_workers())] == workers[:1]


def test_a_writer_whose_mark_was_pruned_goes_on(world):
    world.task()
    world.do(verbs.prune_workers(world.store.now() + 1e6))
    task = world.task()
    assert world.status(task) is ItemStatus.READY


def test_rows_are_counted_by_what_they_are(world):
    _ended(world)
    counts = world.read(verbs.count_rows())
    assert counts["tasks.succeeded"] == 1
    assert counts["journal"] == 1


# -- the cache -------------------------------------------------------------------------------------

KEY = b"k" * 32


def _look_up(world, holder, store=None):
    return world.do(verbs.look_up("ns", KEY, "model", holder, world.now), store)


def _fill(world, holder, **fields):
    entry = CacheEntry(b"output", **fields)
    return world.do(verbs.fill("ns", KEY, holder, entry, world.now))


def test_one_caller_generates_and_the_others_wait(world):
    other = world.other()
    assert _look_up(world, "a") == CacheMiss(mine=True)
    assert _look_up(world, "b", other) == CacheMiss(mine=False, holder="a")
    assert _fill(world, "b") is False
    assert _fill(world, "a", input_tokens=3, output_tokens=5, cost=0.5) is True
    hit = _look_up(world, "b", other)
    assert hit == CacheHit(b"output", "model", 3, 5, 0.5, world.now)
    assert world.read(verbs.read_counters()) == {
        "llm_cache.misses": 1.0,
        "llm_cache.hits": 1.0,
        "llm_cache.input_tokens_saved": 3.0,
        "llm_cache.output_tokens_saved": 5.0,
        "llm_cache.cost_saved": 0.5,
    }


def test_a_reservation_given_up_goes_to_the_next(world):
    _look_up(world, "a")
    world.do(verbs.give_up("ns", KEY, "b"))  # not its own
    assert _look_up(world, "b") == CacheMiss(mine=False, holder="a")
    world.do(verbs.give_up("ns", KEY, "a"))
    assert _look_up(world, "b") == CacheMiss(mine=True)


def test_an_expired_output_is_generated_anew_and_a_late_one_is_not_kept(world):
    _look_up(world, "a")
    _fill(world, "a", ttl=10)
    world.now += 9
    assert isinstance(_look_up(world, "b"), CacheHit)
    world.now += 1
    assert _look_up(world, "b") == CacheMiss(mine=True)
    assert _fill(world, "a") is False
    assert _fill(world, "b") is True


def test_invalidating_forgets_outputs_and_what_is_being_generated(world):
    _look_up(world, "a")
    _fill(world, "a")
    assert world.do(verbs.invalidate("other", None, None)) == 0
    assert world.do(verbs.invalidate("ns", None, "other")) == 0
    assert world.do(verbs.invalidate("ns", KEY, None)) == 1
    assert _look_up(world, "a") == CacheMiss(mine=True)
    assert world.do(verbs.invalidate("ns", None, "model")) == 0
    assert _fill(world, "a") is False


def test_expired_outputs_and_old_reservations_are_pruned(world):
    _look_up(world, "a")
    _fill(world, "a", ttl=10)
    world.do(verbs.look_up("ns", b"other", "model", "a", world.now))
    assert world.do(verbs.prune_cache(world.now, world.now)) == 0
    world.now += 20
    assert world.do(verbs.prune_cache(world.now, world.now)) == 2


def test_counters_add_up_over_writers(world):
    for writer, amount in (("a", 1.0), ("b", 2.5), ("a", 1.0)):
        world.do(verbs.add_counts(writer, {"n": amount, "zero": 0.0}))
    assert world.read(verbs.read_counters()) == {"n": 4.5}


# -- the timeline ----------------------------------------------------------------------------------


def test_events_are_listed_in_order_from_any_point_on(world):
    task = world.task()
    for number in range(5):
        world.do(verbs.add_event(task, None, f"e{number}", {"n": number}, world.now))
    events = world.read(verbs.list_events(task))
    assert [event.type for event in events][1:] == [f"e{n}" for n in range(5)]
    assert world.read(verbs.list_events(task, events[2].event_id)) == events[3:]


def test_progress_is_on_the_timeline_after_what_was_recorded_before(world):
    task = world.task()
    lease = world.claim_one().lease
    append = world.append(lease, {})
    world.do(verbs.report_progress(lease, append, "half", 1.0, 2.0, world.now))
    assert world.events(task)[-1] == "progress"
    assert world.get(task).seq == 1

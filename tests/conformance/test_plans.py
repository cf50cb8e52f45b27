"""Items of a plan: released, skipped, and what their task's status follows from."""

from __future__ import annotations

import pytest

from holdfast import errors
from holdfast.models import MAIN, PLAN
from holdfast.states import EntryKind, ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import NewTask, Parked

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


def test_dependents_are_released_when_all_before_them_have_succeeded(world):
    task = world.task(DIAMOND)
    worker = world.worker()
    seen = []
    while claimed := world.claim(worker, 1):
        seen.append(claimed[0].lease.item_id)
        assert world.read(verbs.list_predecessors(task, seen[-1])) == [
            item for item in world.read(verbs.list_items(task))
            if (seen[-1], item.item_id) in world.read(verbs.list_edges(task))
        ]  # fmt: skip
        world.finish(claimed[0].lease)
    assert seen in (["a", "b", "c", "d"], ["a", "c", "b", "d"])
    assert world.task_status(task) == "succeeded"


def test_a_dependency_named_twice_counts_once(world):
    task = world.task({"a": (), "b": ("a", "a")})
    world.run_one(world.worker())
    assert world.status(task, "b") is ItemStatus.READY


def test_finishing_stores_the_result_and_gives_the_lease_back(world):
    task = world.task()
    lease = world.claim_one().lease
    world.finish(lease, {"answer": 42})
    item = world.get(task)
    assert item.result == encode_payload({"answer": 42}).column
    assert (item.status, item.lease_owner, item.finished_at) == ("succeeded", None, world.now)
    with pytest.raises(errors.LeaseLostError):
        world.finish(lease)


def test_everything_after_a_failed_item_is_skipped_and_the_rest_still_runs(world):
    task = world.task(DIAMOND | {"x": (), "y": ("x",)})
    worker = world.worker()
    leases = {each.lease.item_id: each.lease for each in world.claim(worker)}
    world.fail(leases["a"])
    assert {name: world.status(task, name) for name in "bcd"} == dict.fromkeys("bcd", "skipped")
    assert world.task_status(task) == "running"
    world.finish(leases["x"])
    world.run_one(worker)
    assert world.task_status(task) == "failed"
    assert world.read(verbs.get_task(task)).error == "a: it broke"


def test_a_failed_attempt_is_tried_again_when_its_pause_is_over(world):
    task = world.task()
    world.fail(world.claim_one().lease, retry_at=world.now + 5)
    assert (world.status(task), world.task_status(task)) == ("waiting", "waiting")
    assert world.get(task).failures == 1
    world.now += 5
    assert world.claim_one().item.attempts == 2
    assert world.task_status(task) == "running"


def test_a_task_is_known_by_name_and_key(world):
    def new(name):
        return NewTask(name, "work", encode_payload({}), (world.item(MAIN),), key="k")

    first = world.do(verbs.create_task(new("t1"), world.now))
    again = world.do(verbs.create_task(new("t2"), world.now), world.other())
    assert (first.created, again.created) == (True, False)
    assert again.task.task_id == "t1"


def test_a_task_that_is_not_there_is_an_error(world):
    with pytest.raises(errors.TaskNotFoundError):
        world.read(verbs.get_task("nothing"))
    with pytest.raises(errors.TaskNotFoundError):
        world.do(verbs.send_signal("nothing", "s", "go", encode_payload(1), world.now))
    with pytest.raises(errors.TaskNotFoundError):
        world.do(verbs.cancel_task("nothing", "why", world.now))


def test_tasks_are_found_by_the_start_or_the_end_of_their_id(world):
    task = world.task()
    world.task()
    assert world.read(verbs.find_tasks(task[-8:])) == [task]
    assert task in world.read(verbs.find_tasks(task[:4]))


def test_the_newest_tasks_are_listed_first(world):
    old = world.task()
    world.now += 1
    new = world.task()
    assert [task.task_id for task in world.read(verbs.list_tasks(None, 10))] == [new, old]
    assert world.read(verbs.list_tasks("failed", 10)) == []


# -- planning --------------------------------------------------------------------------------------


def _plan(world, lease, *, after=("p1", "p2")):
    items = [world.item("p1"), world.item("p2", after=("p1",))]
    return verbs.commit_plan(lease, world.append(lease, {}), items, after, world.now)


def test_a_plan_is_pinned_in_one_step(world):
    task = world.planned_task()
    assert world.task_status(task) == "planning"
    worker = world.worker()
    lease = world.claim_one(worker).lease
    assert lease.item_id == PLAN
    world.do(_plan(world, lease))
    assert world.task_status(task) == "running"
    assert [item.item_id for item in world.read(verbs.list_items(task))] == [
        PLAN, "p1", "p2", MAIN,
    ]  # fmt: skip
    assert [world.run_one(worker) for _ in range(3)] == ["p1", "p2", MAIN]


def test_an_empty_plan_releases_the_task_function(world):
    task = world.planned_task()
    lease = world.claim_one().lease
    world.do(verbs.commit_plan(lease, world.append(lease, {}), [], (), world.now))
    assert world.status(task) is ItemStatus.READY


def test_a_planner_that_fails_fails_its_task_and_a_retry_plans_again(world):
    task = world.planned_task()
    world.fail(world.claim_one().lease)
    assert (world.status(task), world.task_status(task)) == ("skipped", "failed")
    assert world.do(verbs.retry_task(task, world.now)) == 1
    assert world.task_status(task) == "planning"
    assert world.claim_one().lease.item_id == PLAN
    assert world.status(task) is ItemStatus.PENDING


def test_a_plan_committed_after_a_cancellation_plans_nothing(world):
    task = world.planned_task()
    lease = world.claim_one().lease
    world.do(verbs.cancel_task(task, "why", world.now))
    world.do(_plan(world, lease))
    assert [item.status for item in world.read(verbs.list_items(task))] == ["canceled"] * 2
    assert world.task_status(task) == "canceled"


# -- cancel and retry ------------------------------------------------------------------------------


def test_canceling_ends_what_is_idle_and_tells_what_runs_to_stop(world):
    task = world.task({"a": (), "b": (), "c": ("a", "b")})
    worker = world.worker()
    lease = world.claim_one(worker).lease
    assert world.do(verbs.cancel_task(task, "enough", world.now)) == [task]
    statuses = {item.item_id: item.status for item in world.read(verbs.list_items(task))}
    assert statuses.pop(lease.item_id) is ItemStatus.RUNNING
    assert set(statuses.values()) == {ItemStatus.CANCELED}
    assert world.read(verbs.held_leases(worker)) == {lease: True}
    assert world.task_status(task) == "running"
    world.do(verbs.end_canceled(lease, world.append(lease), world.now))
    assert world.task_status(task) == "canceled"
    assert world.do(verbs.cancel_task(task, "again", world.now)) == []


def test_canceling_reaches_every_descendant(world):
    root = world.task()
    lease = world.claim_one().lease
    child = world.task(parent_id=root, parent_item=MAIN, root_id=root)
    grandchild = world.task(parent_id=child, parent_item=MAIN, root_id=root)
    wait = f'{{"kind":"child","children":["{child}"]}}'
    parked = Parked(ItemStatus.WAITING, wait, children=(child,))
    world.do(verbs.park_work_item(lease, world.append(lease), parked, world.now))
    assert set(world.do(verbs.cancel_task(root, "why", world.now))) == {root, child, grandchild}
    assert {world.task_status(task) for task in (root, child, grandchild)} == {"canceled"}
    assert world.read(verbs.list_children(root))[0].task_id == child


@pytest.mark.parametrize("end", ["park", "retry", "hand back", "abandon", "crash"])
def test_an_attempt_told_to_stop_never_waits_again_however_it_ends(world, end):
    task = world.task()
    lease = world.claim_one().lease
    world.do(verbs.cancel_task(task, "why", world.now))
    append = world.append(lease)
    status = ItemStatus.READY if end == "hand back" else ItemStatus.WAITING
    parked = Parked(status, '{"kind":"signal","signals":["go"]}', signals=("go",))
    world.do(
        {
            "park": verbs.park_work_item(lease, append, parked, world.now),
            "hand back": verbs.park_work_item(lease, append, parked, world.now),
            "retry": verbs.fail_attempt(lease, append, "broke", world.now + 1, world.now),
            "abandon": verbs.abandon_lease(lease, world.now),
            "crash": verbs.expire_worker(lease.owner, None, world.now),
        }[end]
    )
    assert (world.status(task), world.task_status(task)) == ("canceled", "canceled")


def test_a_canceled_task_stays_canceled(world):
    task = world.task()
    world.do(verbs.cancel_task(task, "why", world.now))
    with pytest.raises(errors.UsageError):
        world.do(verbs.retry_task(task, world.now))
    world.do(verbs.reopen_items(task, [], "drifted", 2, world.now))
    assert world.task_status(task) == "canceled"


def test_a_task_that_failed_while_it_was_told_to_stop_can_be_retried(world):
    task = world.task()
    lease = world.claim_one().lease
    world.do(verbs.cancel_task(task, "why", world.now))
    world.fail(lease)
    assert world.task_status(task) == "failed"
    world.do(verbs.retry_task(task, world.now))
    assert not world.claim_one().item.cancel


def test_a_child_that_a_canceled_parent_still_submits_is_canceled_with_it(world):
    task = world.task()
    lease = world.claim_one().lease
    world.do(verbs.cancel_task(task, "why", world.now))
    new = NewTask(
        "child", "work", encode_payload({}), (world.item(MAIN),), parent_id=task, parent_item=MAIN
    )
    append = world.append(lease, {"kind": EntryKind.CHILD, "status": "started"})
    world.do(verbs.append_child(lease, append, new, world.now))
    assert world.task_status("child") == "canceled"


def test_a_retry_runs_what_failed_and_what_was_skipped_and_nothing_else(world):
    task = world.task({"ok": (), "bad": ("ok",), "after": ("bad",)})
    worker = world.worker()
    world.run_one(worker)
    world.fail(world.claim_one(worker).lease)
    assert world.task_status(task) == "failed"
    assert world.do(verbs.retry_task(task, world.now)) == 1
    item = world.get(task, "bad")
    assert (item.status, item.failures, item.error) == ("ready", 0, None)
    assert world.task_status(task) == "running"
    assert [world.run_one(worker), world.run_one(worker)] == ["bad", "after"]
    assert world.task_status(task) == "succeeded"


def test_a_retry_of_a_task_in_which_nothing_failed_changes_nothing(world):
    task = world.task({"a": (), "b": ("a",)})
    before = world.contents()
    assert world.do(verbs.retry_task(task, world.now)) == 0
    assert world.contents() == before


# -- the last check --------------------------------------------------------------------------------


def _all_done(world):
    task = world.task()
    worker = world.worker()
    lease = world.claim_one(worker).lease
    world.commit_checkpoint(lease, 1, "file:x")
    world.finish(lease, "first")
    return task, worker


def test_a_task_that_claims_nothing_succeeds_with_its_last_item(world):
    task = world.task({"a": (), MAIN: ("a",)})
    worker = world.worker()
    world.run_one(worker)
    assert world.task_status(task) == "running"
    world.run_one(worker, result="what main returned")
    found = world.read(verbs.get_task(task))
    assert (found.status, found.finished_at, found.verifying) == ("succeeded", world.now, None)
    assert found.result == encode_payload("what main returned").column
    assert world.events(task)[-2:] == ["item_succeeded", "task_succeeded"]
    assert world.read(verbs.tasks_to_verify(worker, None)) == []


def test_a_task_that_claims_something_runs_until_that_was_checked_once_more(world):
    task, worker = _all_done(world)
    found = world.read(verbs.get_task(task))
    assert (found.status, found.finished_at, found.verifying) == ("running", None, worker)
    assert world.do(verbs.finish_task(task, worker, world.now))
    assert world.read(verbs.get_task(task)).finished_at == world.now


def test_only_the_worker_that_verifies_may_call_a_task_succeeded(world):
    task, worker = _all_done(world)
    other = world.worker()
    assert world.do(verbs.finish_task(task, other, world.now)) is False
    assert world.do(verbs.adopt_verification(other, world.now)) == []
    world.do(verbs.expire_worker(worker, None, world.now))
    assert world.do(verbs.finish_task(task, worker, world.now)) is False
    assert world.do(verbs.adopt_verification(other, world.now)) == [task]
    assert world.read(verbs.tasks_to_verify(other, None)) == [(task, True)]
    assert world.do(verbs.finish_task(task, other, world.now)) is True


def test_a_task_is_called_succeeded_once(world):
    task, worker = _all_done(world)
    assert world.do(verbs.finish_task(task, worker, world.now))
    assert world.do(verbs.finish_task(task, worker, world.now)) is False
    assert world.read(verbs.get_task(task)).result == encode_payload("first").column
    assert world.events(task).count("task_succeeded") == 1

"""Many operations in one transaction: what comes out is as if each had been run by itself."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager

import pytest

from holdfast import errors
from holdfast.ids import new_id
from holdfast.models import MAIN
from holdfast.states import EntryKind, ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import NewTask, Parked
from holdfast.testing.crash import CrashPlan, open_with_plan

MANY = 30
EMPTY = encode_payload({})


def together(store, *operations):
    """Commit operations in one batch and return what came of each."""

    async def commit(operation):
        return await store.commit(operation)

    async def commit_all():
        return await asyncio.gather(*map(commit, operations), return_exceptions=True)

    return asyncio.run(commit_all())


@pytest.fixture
def leases(world):
    """Return the leases of the items of as many tasks."""
    tasks = [world.task() for _ in range(MANY)]
    claimed = world.claim(world.worker(), MANY)
    assert sorted(each.lease.task_id for each in claimed) == sorted(tasks)
    return [each.lease for each in claimed]


def test_items_of_many_tasks_that_end_at_once_have_all_ended(world, leases):
    results = [f"result of {lease.task_id}" for lease in leases]
    finishing = [world.finishing(*pair) for pair in zip(leases, results, strict=True)]
    assert together(world.store, *finishing) == [None] * MANY
    for lease, result in zip(leases, results, strict=True):
        found = world.read(verbs.get_task(lease.task_id))
        assert (found.status, found.result) == ("succeeded", encode_payload(result).column)
        assert world.events(lease.task_id)[-2:] == ["item_succeeded", "task_succeeded"]


@contextmanager
def counting(world, at_most):
    """Give a store that may make so many journeys to a server."""
    store, engine = open_with_plan(world.url, CrashPlan())
    journeys = []
    for name in ("execute", "execute_all"):
        run = getattr(engine, name, None)
        if run is None:
            continue
        setattr(engine, name, lambda asked, run=run: journeys.append(asked) or run(asked))
    try:
        yield store
    finally:
        store.close()
    if world.url.startswith("postgres"):
        assert 1 <= len(journeys) <= at_most


def test_a_hundred_items_that_end_cost_a_dozen_journeys(world, leases):
    with counting(world, at_most=12) as store:
        assert together(store, *map(world.finishing, leases)) == [None] * MANY
    assert {world.task_status(lease.task_id) for lease in leases} == {"succeeded"}


def test_a_stale_write_among_others_is_refused_alone(world, leases):
    stale, *held = leases
    world.do(verbs.abandon_lease(stale, world.now))
    first, *others = together(world.store, *map(world.finishing, leases))
    assert isinstance(first, errors.LeaseLostError)
    assert others == [None] * len(held)
    assert world.status(stale.task_id) is ItemStatus.READY
    assert world.events(stale.task_id)[-1] == "write_refused"
    assert {world.task_status(lease.task_id) for lease in held} == {"succeeded"}


def test_an_operation_that_fails_among_others_fails_alone(world, leases):
    failing, *held = leases
    append = world.append(failing, {"kind": EntryKind.SIGNAL})
    taking = verbs.take_signal(failing, append, "nobody sent it", world.now)
    first, *others = together(world.store, taking, *map(world.finishing, held))
    assert isinstance(first, errors.JournalError)
    assert others == [None] * len(held)
    assert world.get(failing.task_id).seq == 0
    assert {world.task_status(lease.task_id) for lease in held} == {"succeeded"}


def test_operations_about_one_task_keep_their_order(world, leases):
    first, *others = leases
    append = world.append(first, {}, {})
    told = [verbs.add_event(first.task_id, None, f"told_{n}", {}, world.now) for n in range(3)]
    behind = verbs.Append(append.after, head=append.head)
    last = verbs.park_work_item(first, behind, Parked(ItemStatus.READY), world.now)
    outcomes = together(
        world.store, told[0], verbs.append_entries(first, append, world.now),
        *map(world.finishing, others), told[1], last, told[2],
    )  # fmt: skip
    assert outcomes == [None] * len(outcomes)
    assert world.get(first.task_id).seq == append.after
    told_and_parked = [kind for kind in world.events(first.task_id) if kind != "claimed"]
    assert sorted(told_and_parked[-4:]) == ["handed_back", "told_0", "told_1", "told_2"]
    assert [kind for kind in told_and_parked if kind.startswith("told")] == [
        "told_0", "told_1", "told_2",
    ]  # fmt: skip


def test_children_that_end_at_once_wake_their_parent(world):
    names = ("left", "right", "both")
    task = world.task(dict.fromkeys(names, ()) | {MAIN: names})
    waiting = {each.lease.item_id: each.lease for each in world.claim(world.worker(), 3)}
    for child, item in (("child1", "left"), ("child2", "right")):
        new = NewTask(
            child, "work", encode_payload({}), (world.item(MAIN, queue="children"),),
            parent_id=task, parent_item=item, root_id=task,
        )  # fmt: skip
        world.do(verbs.append_child(waiting[item], world.append(waiting[item], {}), new, world.now))
    for item, children in (("left", ("child1",)), ("right", ("child2",))):
        wait = json.dumps({"kind": "child", "children": children})
        parked = Parked(ItemStatus.WAITING, wait, children=children)
        append = world.append(waiting[item])
        world.do(verbs.park_work_item(waiting[item], append, parked, world.now))
    world.finish(waiting["both"])
    assert world.task_status(task) == "waiting"
    before = world.events(task)
    ending = [each.lease for each in world.claim(world.worker(), 2, queues=("children",))]
    assert together(world.store, *map(world.finishing, ending)) == [None, None]
    assert {world.task_status(child) for child in ("child1", "child2")} == {"succeeded"}
    assert [world.status(task, name) for name in ("left", "right")] == [ItemStatus.READY] * 2
    assert world.task_status(task) == "running"
    assert world.events(task)[len(before) :] == ["task_running"]


def test_a_child_that_ends_while_its_parent_begins_to_wait_for_it_is_not_missed(world):
    task = world.task()
    parent = world.claim_one().lease
    new = NewTask(
        "child", "work", encode_payload({}), (world.item(MAIN, queue="children"),),
        parent_id=task, parent_item=MAIN, root_id=task,
    )  # fmt: skip
    world.do(verbs.append_child(parent, world.append(parent, {}), new, world.now))
    child = world.claim_one(queues=("children",)).lease
    parked = Parked(
        ItemStatus.WAITING, '{"kind":"child","children":["child"]}', children=("child",)
    )
    parking = verbs.park_work_item(parent, world.append(parent), parked, world.now)
    assert together(world.store, parking, world.finishing(child)) == [None, None]
    assert world.status(task) is ItemStatus.READY
    assert world.task_status(task) == "running"


def test_a_task_that_is_canceled_while_its_child_ends_takes_nothing_back(world, leases):
    parent, *others = leases
    new = NewTask(
        "child", "work", encode_payload({}), (world.item(MAIN, queue="children"),),
        parent_id=parent.task_id, parent_item=MAIN, root_id=parent.task_id,
    )  # fmt: skip
    world.do(verbs.append_child(parent, world.append(parent, {}), new, world.now))
    child = world.claim_one(queues=("children",)).lease
    together(
        world.store, verbs.cancel_task(parent.task_id, "why", world.now), world.finishing(child),
        *map(world.finishing, others),
    )  # fmt: skip
    assert world.status("child") is ItemStatus.SUCCEEDED
    assert world.get(parent.task_id).cancel
    assert {world.task_status(lease.task_id) for lease in others} == {"succeeded"}


def test_one_key_submitted_often_at_once_gives_one_task(world):
    new = [
        NewTask(f"t{number}", "work", encode_payload({}), (world.item(MAIN),), key="k")
        for number in range(MANY)
    ]
    found = together(world.store, *(verbs.create_task(each, world.now) for each in new))
    assert len({each.task.task_id for each in found}) == 1
    assert sum(each.created for each in found) == 1
    assert len(world.read(verbs.list_tasks(None, 100))) == 1


def test_tasks_submitted_at_once_under_different_keys_cost_a_dozen_journeys(world):
    def submit(number):
        key = f"k{number}"
        new = NewTask(new_id(world.now), "work", EMPTY, (world.item(MAIN),), key=key)
        return verbs.create_task(new, world.now)

    with counting(world, at_most=12) as store:
        made = together(store, *map(submit, range(MANY)))
        again = together(store, *map(submit, range(MANY)))
    assert [each.created for each in made + again] == [True] * MANY + [False] * MANY
    assert [each.task for each in made] == [each.task for each in again]


ODD = ("", "NULL", '"quoted"', "{a,b}", "back\\slash", "two\nlines", "é\u2400🜨", "'; --", " x ")
"""Texts that mean something else in an array, in SQL, or to people."""


def test_rows_that_go_out_together_come_back_as_they_were(world):
    given = [
        world.item(f"{number} {text}", handler=text, policy=text.encode(), owes=owes)
        for number, (text, owes) in enumerate(
            (text, owes) for text in ODD for owes in (None, b"", b"\0\\\xff")
        )
    ]
    new = NewTask(new_id(world.now), "work", EMPTY, tuple(given))
    world.do(verbs.create_task(new, world.now))
    found = world.read(verbs.list_items(new.task_id))
    assert [(each.item_id, each.handler, each.policy, each.owes) for each in found] == [
        (each.item_id, each.handler, each.policy, each.owes) for each in given
    ]


def test_a_row_too_large_to_wait_for_others_keeps_its_place(world):
    task = world.task()
    texts = ["first", "large " * 10_000, *(f"small {number}" for number in range(300))]
    told = [verbs.add_event(task, None, "told", {"text": text}, world.now) for text in texts]
    assert together(world.store, *told) == [None] * len(told)
    events = [each for each in world.read(verbs.list_events(task)) if each.type == "told"]
    assert [json.loads(each.data)["text"] for each in events] == texts


def test_a_text_that_can_not_be_kept_is_refused_alone_among_others(world):
    names = ["fine", "a zero \0 character", "fine as well"]
    submitted = [
        verbs.create_task(
            NewTask(new_id(world.now), "work", EMPTY, (world.item(MAIN, handler=name),)), world.now
        )
        for name in names
    ]
    first, refused, last = together(world.store, *submitted)
    assert first.created
    assert last.created
    if world.url.startswith("postgres"):
        assert isinstance(refused, errors.InputError)
    assert len(world.read(verbs.list_tasks(None, 10))) == 3 - isinstance(refused, Exception)

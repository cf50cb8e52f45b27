"""Two connections whose transactions overlap: one is held open while the other tries its own."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from holdfast import errors
from holdfast.models import MAIN, PLAN
from holdfast.states import EntryStatus, ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload
from holdfast.store.rounds import drive
from holdfast.store.verbs import NewTask, Parked

BLOCKED = 0.15
"""Seconds in which a transaction that nothing holds up is long done."""


@contextmanager
def held(store, *held_verbs):
    """Run verbs in a transaction that is committed when the block ends."""
    store.engine.begin(wait=True)
    results = [drive(verb.start(), store.engine.execute) for verb in held_verbs]
    yield results
    store.engine.commit()


class Meanwhile:
    """A verb that another connection runs while a transaction is held."""

    def __init__(self, store, verb):
        self.result = self.error = None
        self._thread = threading.Thread(target=self._run, args=(store, verb))
        self._thread.start()
        self._thread.join(BLOCKED)
        self.had_to_wait = self._thread.is_alive()

    def _run(self, store, verb):
        try:
            self.result = store.commit(verb).wait()
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.error = error

    def outcome(self):
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def test_a_stale_write_that_waits_while_its_item_is_taken_over_is_refused(world):
    task = world.task()
    stale = world.claim_one().lease
    other, heir = world.other(), world.worker()
    take = verbs.expire_worker(stale.owner, None, world.now)
    claim = verbs.claim_by_name(heir, task, MAIN, world.now + 10)
    late = verbs.append_entries(stale, world.append(stale, {}), world.now)
    with held(other, take, claim) as (taken, claimed):
        assert [each.item_id for each in taken] == [MAIN]
        assert claimed.lease.token == stale.token + 1
        assert drive(verbs.read_journal(task, MAIN).start(), other.engine.execute) == []
        meanwhile = Meanwhile(world.store, late)
        assert meanwhile.had_to_wait
    with pytest.raises(errors.LeaseLostError):
        meanwhile.outcome()
    assert world.read(verbs.read_journal(task, MAIN)) == []
    assert "write_refused" in world.events(task)


def test_many_stale_writes_that_wait_are_refused_each(world):
    tasks = [world.task() for _ in range(6)]
    worker = world.worker()
    leases = [claimed.lease for claimed in world.claim(worker)]
    assert len(leases) == len(tasks)
    other = world.other()
    pending = [
        world.store.commit(verbs.append_entries(lease, world.append(lease, {}), world.now))
        for lease in leases
    ]
    with held(other, verbs.expire_worker(worker, None, world.now)):
        tickets = [each.behind() for each in pending]
        last = verbs.append_entries(leases[0], world.append(leases[0], {}), world.now)
        meanwhile = Meanwhile(world.store, last)
    with pytest.raises(errors.LeaseLostError):
        meanwhile.outcome()
    for ticket in tickets:
        while not ticket.done:
            threading.Event().wait(0.01)
        with pytest.raises(errors.LeaseLostError):
            ticket.outcome()
    assert all(world.read(verbs.read_journal(task, MAIN)) == [] for task in tasks)


def test_of_the_last_two_items_to_end_one_sees_that_all_are_done(world):
    task = world.task({"a": (), "b": (), MAIN: ("a", "b")})
    a, b = (claimed.lease for claimed in world.claim(world.worker(), 2))
    other = world.other()
    with held(other, world.finishing(a)):
        meanwhile = Meanwhile(world.store, world.finishing(b))
    meanwhile.outcome()
    assert world.status(task, MAIN) is ItemStatus.READY
    assert world.get(task, MAIN).remaining == 0


def test_of_the_last_two_independent_items_one_leaves_the_task_to_be_verified(world):
    task = world.task({"a": (), MAIN: ()})
    worker = world.worker()
    a, b = (claimed.lease for claimed in world.claim(worker, 2))
    world.commit_checkpoint(a, 1, "file:x")
    with held(world.other(), world.finishing(a)):
        meanwhile = Meanwhile(world.store, world.finishing(b))
    meanwhile.outcome()
    assert world.read(verbs.tasks_to_verify(worker, None)) == [(task, True)]


def test_of_the_last_two_independent_items_one_ends_the_task(world):
    task = world.task({"a": (), MAIN: ()})
    a, b = (claimed.lease for claimed in world.claim(world.worker(), 2))
    with held(world.other(), world.finishing(a)):
        meanwhile = Meanwhile(world.store, world.finishing(b))
    meanwhile.outcome()
    assert world.task_status(task) == "succeeded"
    assert world.events(task).count("task_succeeded") == 1


@pytest.mark.parametrize("first", ["signal", "park"])
def test_a_signal_and_the_item_that_begins_to_wait_for_it_do_not_miss_each_other(world, first):
    task = world.task()
    lease = world.claim_one().lease
    signal = verbs.send_signal(task, "s1", "go", encode_payload(1), world.now)
    parked = Parked(ItemStatus.WAITING, '{"kind":"signal","signals":["go"]}', signals=("go",))
    park = verbs.park_work_item(lease, world.append(lease), parked, world.now)
    both = {"signal": (signal, park), "park": (park, signal)}[first]
    with held(world.other(), both[0]):
        meanwhile = Meanwhile(world.store, both[1])
    meanwhile.outcome()
    assert world.status(task) is ItemStatus.READY


@pytest.mark.parametrize("first", ["child", "park"])
def test_a_child_and_the_item_that_begins_to_wait_for_it_do_not_miss_each_other(world, first):
    task = world.task()
    lease = world.claim_one().lease
    child = world.task(parent_id=task, parent_item=MAIN, root_id=task)
    below = world.claim_one().lease
    assert below.task_id == child
    fail = verbs.fail_attempt(below, world.append(below), "no", None, world.now)
    wait = f'{{"kind":"child","children":["{child}"]}}'
    parked = Parked(ItemStatus.WAITING, wait, children=(child,))
    park = verbs.park_work_item(lease, world.append(lease), parked, world.now)
    both = {"child": (fail, park), "park": (park, fail)}[first]
    with held(world.other(), both[0]):
        meanwhile = Meanwhile(world.store, both[1])
    meanwhile.outcome()
    assert world.status(task) is ItemStatus.READY


@pytest.mark.parametrize("first", ["cancel", "plan"])
def test_a_plan_that_is_committed_while_its_task_is_canceled_is_canceled_whole(world, first):
    task = world.planned_task()
    lease = world.claim_one(handlers=("work",)).lease
    assert lease.item_id == PLAN
    items = (world.item("a"), world.item("b", after=("a",)))
    plan = verbs.commit_plan(lease, world.append(lease), items, ("b",), world.now)
    cancel = verbs.cancel_task(task, "enough", world.now)
    both = {"cancel": (cancel, plan), "plan": (plan, cancel)}[first]
    with held(world.other(), both[0]):
        meanwhile = Meanwhile(world.store, both[1])
    meanwhile.outcome()
    statuses = {item.status for item in world.read(verbs.list_items(task))}
    assert statuses <= {ItemStatus.CANCELED, ItemStatus.SUCCEEDED}
    assert world.task_status(task) == "canceled"


def test_two_submissions_with_one_key_give_one_task(world):
    def new(name):
        return verbs.create_task(NewTask(name, "job", empty, (item,), key="k"), world.now)

    empty, item = encode_payload({}), world.item(MAIN)
    with held(world.other(), new("01a")) as (first,):
        meanwhile = Meanwhile(world.store, new("01b"))
    second = meanwhile.outcome()
    assert first.created
    assert not second.created
    assert second.task.task_id == "01a"
    # What stood behind the statement that failed was skipped; it can be run all the same.
    assert world.do(verbs.create_task(NewTask("01c", "job", empty, (item,)), world.now)).created


def test_two_workers_that_claim_at_once_get_different_items(world):
    for _ in range(3):
        world.task()
    one, two, other = world.worker(), world.worker(), world.other()
    wanted = verbs.ClaimFilter(("work",), ("default",))
    with held(other, verbs.claim_work_items(one, wanted, 2, world.now)) as (first,):
        verb = verbs.claim_work_items(two, wanted, 2, world.now)
        meanwhile = Meanwhile(world.store, verb)
    second = meanwhile.outcome()
    tasks = [claimed.lease.task_id for claimed in (*first, *second)]
    assert len(tasks) == len(set(tasks)) == 3


def test_of_two_claims_of_one_item_by_name_one_is_told_who_holds_it(world):
    task = world.task()
    one, two = world.worker(), world.worker()
    with held(world.other(), verbs.claim_by_name(one, task, MAIN, world.now)):
        meanwhile = Meanwhile(world.store, verbs.claim_by_name(two, task, MAIN, world.now))
    assert meanwhile.outcome() == one


def test_a_large_payload_that_is_recorded_again_while_it_is_pruned_stays(world):
    task = world.task()
    lease = world.claim_one().lease
    payload = encode_payload("x" * 100_000 + "".join(map(chr, range(1000, 9000))))
    assert payload.digest is not None
    column = {"outcome": payload.column, "status": EntryStatus.DONE}
    append = world.append(lease, column)
    append = verbs.Append(append.before, append.entries, (payload,), append.head)
    world.do(verbs.append_entries(lease, append, world.now))
    again = world.append(lease, column)
    again = verbs.Append(again.before, again.entries, (payload,), again.head)
    other = world.other()
    other.engine.begin(wait=True)
    drive(verbs.append_entries(lease, again, world.now).start(), other.engine.execute)
    drive(verbs.read_journal(task, MAIN).start(), other.engine.execute)  # all of it has been sent
    prune = Meanwhile(world.store, _pruning(task))
    other.engine.commit()
    prune.outcome()
    assert world.read(_blob(task, payload.digest)) is not None


def _pruning(task):
    from holdfast.store.verb import run, verb

    @verb()
    def forget_first_entry():
        yield from run("prune.lock_blobs", task_id=task)
        yield from run("prune.journal_before", task_id=task, item_id=MAIN, until=1)
        yield from run("prune.unreferenced_blobs", task_id=task)

    return forget_first_entry()


def _blob(task, digest):
    from holdfast.store.payload import read_blob

    return read_blob(task, digest)


def test_two_batches_in_opposite_order_are_both_committed(world):
    """Whoever locks rows in another order than its neighbour waits for it, and it for them."""
    for _ in range(8):
        world.task()
    leases = [claimed.lease for claimed in world.claim(world.worker())]
    stores = (world.store, world.other())
    rounds = 5
    errors_seen = []

    def run(store, order):
        try:
            for number in range(rounds):
                tickets = [
                    store.commit(
                        verbs.add_event(lease.task_id, MAIN, "x", {"n": number}, world.now)
                    )
                    for lease in order
                ]
                done = [ticket.behind() for ticket in tickets]
                store.commit(verbs.set_restores(order[0].task_id, MAIN)).wait()
                for lease in order:
                    store.commit(verbs.retry_task(lease.task_id, world.now)).behind()
                store.commit(verbs.set_restores(order[-1].task_id, MAIN)).wait()
                errors_seen.extend(t.error for t in done if t.error)
        except Exception as error:  # noqa: BLE001  the test looks at it
            errors_seen.append(error)

    orders = (leases, leases[::-1])
    threads = [threading.Thread(target=run, args=pair) for pair in zip(stores, orders, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors_seen == []

"""Budgets: reserving and settling under a lease, and nobody who waits for one is forgotten."""

from __future__ import annotations

import json
import threading

import pytest

from holdfast import errors
from holdfast.models import MAIN, Budget
from holdfast.states import ItemStatus
from holdfast.store import verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import Charge, NewTask, Parked

INTENT = {"kind": "llm", "effect": "llm", "status": "started"}
OUTCOME = {"kind": "llm", "effect": "llm", "status": "done", "ref": 1}


def _task(world, tokens=100, cost=None, plan=None, **fields):
    return world.task(plan, budget=Budget(tokens=tokens, cost=cost), **fields)


def _reserve(world, lease, root, tokens, nanos=0, *, append=None):
    append = append or world.append(lease, INTENT)
    charge = Charge(root, tokens, nanos)
    return world.do(verbs.reserve_budget(lease, append, charge, world.now))


def _settle(world, lease, root, tokens, nanos=0, *, store=None):
    append = world.append(lease, OUTCOME)
    verb = verbs.settle_budget(lease, append, root, 1, tokens, nanos, world.now)
    return world.do(verb, store)


def _park(world, lease, root, tokens):
    wait = json.dumps({"kind": "budget", "budget": root})
    parked = Parked(ItemStatus.WAITING, wait, charges=(Charge(root, tokens, 0),))
    world.do(verbs.park_work_item(lease, world.append(lease), parked, world.now))


def _spent(world, root):
    found = world.read(verbs.get_budget(root))
    return found.tokens, found.nanos, found.reserved_tokens, found.reserved_nanos


def test_what_is_reserved_is_spent_and_what_it_took_takes_its_place(world):
    root = _task(world, cost=1.0)
    lease = world.claim_one().lease
    assert _reserve(world, lease, root, 60, 500) is True
    assert _spent(world, root) == (60, 500, 60, 500)
    _settle(world, lease, root, 70, 300)  # more than was reserved
    assert _spent(world, root) == (70, 300, 0, 0)
    _settle(world, lease, root, 1, 1)  # settled once only
    assert _spent(world, root) == (70, 300, 0, 0)


@pytest.mark.parametrize(("tokens", "nanos"), [(101, 0), (1, 1_000_000_001)])
def test_a_call_that_would_pass_a_limit_reserves_nothing(world, tokens, nanos):
    root = _task(world, cost=1.0)
    lease = world.claim_one().lease
    assert _reserve(world, lease, root, tokens, nanos) is False
    assert _spent(world, root) == (0, 0, 0, 0)
    assert [e.status for e in world.read(verbs.read_journal(root, MAIN))] == ["started"]
    _settle(world, lease, root, None, None)
    assert _spent(world, root) == (0, 0, 0, 0)


def test_what_is_not_known_of_an_outcome_stays_spent(world):
    root = _task(world, cost=1.0)
    lease = world.claim_one().lease
    _reserve(world, lease, root, 60, 500)
    _settle(world, lease, root, None, None)
    assert _spent(world, root) == (60, 500, 0, 0)


def test_a_stale_lease_neither_reserves_nor_settles(world):
    root = _task(world)
    worker = world.worker()
    lease = world.claim_one(worker).lease
    _reserve(world, lease, root, 60)
    world.do(verbs.abandon_lease(lease, world.now))
    world.claim_one()
    for write in (
        lambda: _reserve(world, lease, root, 10, append=world.append(lease, INTENT)),
        lambda: _settle(world, lease, root, 1),
    ):
        with pytest.raises(errors.LeaseLostError):
            write()
    assert _spent(world, root) == (60, 0, 60, 0)


def test_children_share_the_budget_of_their_root_and_get_none_of_their_own(world):
    root = _task(world)
    lease = world.claim_one().lease
    new = NewTask(
        "child", "work", encode_payload({}), (world.item(MAIN, queue="children"),),
        parent_id=root, parent_item=MAIN, root_id=root, budget=Budget(tokens=7),
    )  # fmt: skip
    world.do(verbs.append_child(lease, world.append(lease, {}), new, world.now))
    assert world.read(verbs.get_task("child")).budget is not None
    assert world.read(verbs.get_budget("child")) is None
    child = world.claim_one(queues=("children",)).lease
    assert _reserve(world, child, root, 100) is True
    assert _reserve(world, lease, root, 1) is False


def test_what_waits_for_a_budget_blocks_its_task_until_more_is_added(world):
    root = _task(world)
    lease = world.claim_one().lease
    _park(world, lease, root, 101)
    assert (world.status(root), world.task_status(root)) == ("waiting", "blocked")
    world.do(verbs.add_to_budget(root, 1, 0, world.now))
    assert (world.status(root), world.task_status(root)) == ("ready", "running")
    assert world.read(verbs.get_budget(root)).token_limit == 101
    assert "budget_added" in world.events(root)


def test_a_limit_that_is_not_there_is_not_raised(world):
    root, plain = _task(world), world.task()
    for task, tokens, nanos in ((root, 1, 1), (plain, 1, 0)):
        with pytest.raises(errors.UsageError):
            world.do(verbs.add_to_budget(task, tokens, nanos, world.now))
    assert world.read(verbs.get_budget(root)).token_limit == 100


def test_what_a_call_left_over_wakes_whoever_waits_for_it_in_any_task_of_the_root(world):
    root = _task(world, plan={"a": (), "b": ()})
    first, second = (each.lease for each in world.claim(world.worker()))
    _reserve(world, first, root, 80)
    _park(world, second, root, 30)
    assert world.status(root, second.item_id) == "waiting"
    _settle(world, first, root, 10)
    assert world.status(root, second.item_id) == "ready"


@pytest.mark.parametrize("by", ["settling", "adding"])
def test_what_becomes_free_between_the_look_and_the_park_is_not_missed(world, by):
    root = _task(world, plan={"a": (), "b": ()})
    first, second = (each.lease for each in world.claim(world.worker()))
    _reserve(world, first, root, 80)
    assert not world.read(verbs.get_budget(root)).has(30, 0)
    other = world.other()
    if by == "settling":
        _settle(world, first, root, 10, store=other)
    else:
        world.do(verbs.add_to_budget(root, 50, 0, world.now), other)
    _park(world, second, root, 30)
    assert world.status(root, second.item_id) == "ready"


def test_two_connections_never_reserve_more_than_there_is(world):
    count = 8
    root = _task(world, 55, plan={f"i{n}": () for n in range(count)})
    leases = [each.lease for each in world.claim(world.worker(), count)]
    stores = [world.store, world.other()]
    appends = {lease: world.append(lease, INTENT) for lease in leases}
    allowed: list[bool] = []

    def reserve(lease, store) -> None:
        charge = Charge(root, 10, 0)
        verb = verbs.reserve_budget(lease, appends[lease], charge, world.now)
        allowed.append(store.commit(verb).wait())

    threads = [
        threading.Thread(target=reserve, args=(lease, stores[n % 2]))
        for n, lease in enumerate(leases)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(allowed) == [False] * 3 + [True] * 5
    assert _spent(world, root) == (50, 0, 50, 0)


def test_settling_and_parking_at_the_same_time_leave_nobody_waiting_for_what_is_there(world):
    """Whichever comes first, the one that waits is ready afterwards."""
    other = world.other()
    for _ in range(10):
        root = _task(world, plan={"a": (), "b": ()})
        first, second = (each.lease for each in world.claim(world.worker()))
        _reserve(world, first, root, 80)
        settled = world.append(first, OUTCOME)
        parked = world.append(second)
        wait = json.dumps({"kind": "budget", "budget": root})
        park = Parked(ItemStatus.WAITING, wait, charges=(Charge(root, 30, 0),))
        settle = verbs.settle_budget(first, settled, root, 1, 10, 0, world.now)
        threads = [
            threading.Thread(target=store.commit(verb).wait)
            for store, verb in (
                (world.store, settle),
                (other, verbs.park_work_item(second, parked, park, world.now)),
            )
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert world.status(root, second.item_id) == "ready"
        world.do(verbs.cancel_task(root, "over", world.now))
        world.do(verbs.end_canceled(first, world.append(first), world.now))


def test_a_budget_goes_with_its_task_and_a_fork_has_its_own_or_none(world):
    root = _task(world)
    lease = world.claim_one().lease
    _reserve(world, lease, root, 60)
    world.commit_checkpoint(lease, 1)
    for budget in (None, Budget(tokens=5)):
        fork = verbs.Fork(f"fork{budget is None}", root, MAIN, 1, (), budget=budget)
        world.do(verbs.fork_task(fork, world.now))
        found = world.read(verbs.get_budget(fork.task_id))
        assert (found and (found.token_limit, found.tokens)) == (budget and (5, 0))
        assert (world.read(verbs.get_task(fork.task_id)).budget is None) == (budget is None)
    world.do(verbs.cancel_task(root, "over", world.now))
    world.do(verbs.end_canceled(lease, world.append(lease), world.now))
    assert world.do(verbs.prune_task(root))
    assert world.read(verbs.get_budget(root)) is None

"""Checking a plan before it is pinned to its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec

from holdfast import codec, errors, packing
from holdfast.evidence import EvidencePack
from holdfast.handlers import Handler, Handlers, encode_arguments
from holdfast.models import MAIN, PLAN, Task, WorkItem
from holdfast.store.payload import MAX_PAYLOAD
from holdfast.store.verbs import NewItem


def plan_items(
    handlers: Handlers, task: Task, plan: Sequence[WorkItem]
) -> tuple[tuple[NewItem, ...], tuple[str, ...]]:
    """Check a plan and return its items, and those that `main` comes after.

    Raises:
        PlanError: an unknown handler, a cycle, a missing or doubled item, or two items that may
            run at the same time and claim the same subject.
        ArgumentsError, EncodingError: an item's input doesn't fit its handler.
    """
    by_id = _by_id(plan)
    order = _order(by_id)
    found = {name: _handler(handlers, by_id[name]) for name in order}
    owed = {name: _owed(by_id[name], found[name]) for name in order}
    _check_subjects(by_id, order, owed)
    items = tuple(_new_item(task, by_id[name], found[name], owed[name]) for name in order)
    before = {after for item in plan for after in item.after}
    return items, tuple(name for name in order if name not in before)


def describe_plan(items: Sequence[NewItem]) -> list[dict[str, Any]]:
    """Return a plan as data: all that decides what it does, for people to approve."""
    return [
        {
            "item": item.item_id,
            "handler": item.handler,
            "input": codec.decode(
                packing.unpack(item.input.data or item.input.column, MAX_PAYLOAD)
            ),
            "after": sorted(item.after),
            "evidence": None if item.owes is None else msgspec.msgpack.decode(item.owes),
            "queue": item.queue,
            "priority": item.priority,
            "policy": msgspec.msgpack.decode(item.policy),
        }
        for item in items
    ]


def _by_id(plan: Sequence[WorkItem]) -> dict[str, WorkItem]:
    by_id: dict[str, WorkItem] = {}
    for item in plan:
        if not isinstance(item, WorkItem):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise errors.PlanError(f"A planner returns WorkItems; it returned {item!r:.80}.")
        _check_id(item.item_id)
        if item.item_id in by_id:
            raise errors.PlanError(f"Two items of the plan are named {item.item_id!r}.")
        if isinstance(item.after, str):
            message = f"{item.item_id!r} comes after {item.after!r}: give a list of item ids."
            raise errors.PlanError(message)
        by_id[item.item_id] = item
    for item in plan:
        for after in item.after:
            if after not in by_id:
                message = f"{item.item_id!r} comes after {after!r}, which isn't there."
                raise errors.PlanError(message)
    return by_id


def _check_id(name: str) -> None:
    if not name or name in {MAIN, PLAN} or any(c.isspace() or c == "," for c in name):
        message = (
            f"{name!r} is no item id: use letters, digits and -_.:/, and not 'main' or 'plan'."
        )
        raise errors.PlanError(message)


def _order(by_id: Mapping[str, WorkItem]) -> list[str]:
    """Return the items so that each comes after its predecessors."""
    try:
        return list(
            TopologicalSorter({name: item.after for name, item in by_id.items()}).static_order()
        )
    except CycleError as cycle:
        path = " → ".join(cycle.args[1])
        raise errors.PlanError(f"The plan has a cycle: {path}.") from cycle


def _handler(handlers: Handlers, item: WorkItem) -> Handler[..., object]:
    try:
        return handlers.get(item.handler)
    except errors.UnknownHandlerError as error:
        raise errors.PlanError(f"Item {item.item_id!r}: {error}") from error


def _owed(item: WorkItem, handler: Handler[..., object]) -> EvidencePack:
    pack = EvidencePack.of(item.evidence)
    return pack if pack.items else handler.evidence


def _check_subjects(
    by_id: Mapping[str, WorkItem], order: Sequence[str], owed: Mapping[str, EvidencePack]
) -> None:
    """Refuse two items that claim one subject unless one comes after the other."""
    newest: dict[str, str] = {}
    for name in order:
        for subject in {claim.subject for claim in owed[name].items}:
            other = newest.get(subject)
            if other is not None and not _comes_after(by_id, name, other):
                message = (
                    f"{other!r} and {name!r} both claim {subject}, and neither comes after the "
                    f"other. Order them, or let one claim it."
                )
                raise errors.PlanError(message)
            newest[subject] = name


def _comes_after(by_id: Mapping[str, WorkItem], name: str, other: str) -> bool:
    seen: set[str] = set()
    left = [name]
    while left:
        for after in by_id[left.pop()].after:
            if after == other:
                return True
            if after not in seen:
                seen.add(after)
                left.append(after)
    return False


def _new_item(
    task: Task, item: WorkItem, handler: Handler[..., object], owes: EvidencePack
) -> NewItem:
    arguments = handler.bind((), item.input)
    policy = item.policy or handler.policy
    return NewItem(
        item.item_id,
        handler.name,
        encode_arguments(handler, arguments),
        item.queue or task.queue,
        task.priority + item.priority,
        msgspec.msgpack.encode(policy),
        policy.max_crashes,
        msgspec.msgpack.encode(owes) if owes.items else None,
        tuple(dict.fromkeys(item.after)),
    )

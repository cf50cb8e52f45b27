"""A verb of the store: one transaction, written once for every engine.

A verb is a generator that yields statements and receives their rows. It does no I/O of its own, so
the same code runs on SQLite, on PostgreSQL, and a second time when its batch had to be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

import msgspec

P = ParamSpec("P")
T = TypeVar("T")

Row = tuple[Any, ...]
Rows = list[Row]


class Statement(NamedTuple):
    """One named query of the dialect's SQL files, with its parameters."""

    query: str
    params: dict[str, Any]


Steps = Generator[Statement, Rows, T]


class Refused(msgspec.Struct, frozen=True):
    """The outcome of a write under a lease that is no longer held. Nothing of it was kept."""

    task_id: str
    item_id: str
    token: int
    what: str


Question = Callable[[], Statement]
"""Builds a statement that gives a row exactly when some call was committed."""


class _Kind(NamedTuple):
    """What every call of one verb has in common."""

    name: str
    steps: Callable[..., Steps[Any]]
    wakes: bool
    witness: Callable[..., Question | None] | None
    appends: bool
    keeps: bool


class Verb(Generic[T]):
    """A call of a verb, not yet run. It can be run again, since it holds only its arguments."""

    __slots__ = ("_args", "_kind", "_kwargs", "appending", "wakes")

    def __init__(self, kind: _Kind, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._kind = kind
        self._args = args
        self._kwargs = kwargs
        self.wakes = kind.wakes
        self.appending: tuple[Any, Any] | None = (args[0], args[1]) if kind.appends else None
        """The lease and the entries, when all it does is to add them to an item's journal."""

    @property
    def name(self) -> str:
        """The verb's name, for people."""
        return self._kind.name

    def start(self) -> Steps[T]:
        """Return the steps, from the first."""
        return self._kind.steps(*self._args, **self._kwargs)

    @property
    def leased(self) -> tuple[str, str]:
        """The task and item whose lease it comes under; empty names when it comes under none."""
        lease = self._args[0] if self._args else None
        return getattr(lease, "task_id", ""), getattr(lease, "item_id", "")

    @property
    def keeps_to(self) -> str | None:
        """The task whose rows it keeps to, where it does: its first argument is it, or names it."""
        if not self._kind.keeps:
            return None
        first = self._args[0]
        return first if isinstance(first, str) else first.task_id

    def witness(self) -> Question | None:
        """Return the question whether this call was committed, if it can be asked.

        It spares the transaction a mark of its own, by which a lost commit is settled.
        """
        ask = self._kind.witness
        return None if ask is None else ask(*self._args, **self._kwargs)


def run(query: str, **params: Any) -> Steps[Rows]:
    """Run one named query inside a verb (`yield from` it) and return its rows."""
    return (yield Statement(query, params))


def verb(
    *,
    wakes: bool = False,
    witness: Callable[..., Question | None] | None = None,
    appends: bool = False,
    keeps: bool = False,
) -> Callable[[Callable[P, Steps[T]]], Callable[P, Verb[T]]]:
    """Turn a generator function into a verb.

    Args:
        wakes: whether something may have become ready, so that idle workers look at once.
        witness: given the verb's arguments, the question whether it was committed.
        appends: whether all it does is to add to a journal: its first two arguments, by position,
            are the lease and the entries.
        keeps: whether it keeps to the rows of one task, until it names another: its first argument,
            by position, is or has the task's id. Such verbs are run side by side.
    """

    def decorate(function: Callable[P, Steps[T]]) -> Callable[P, Verb[T]]:
        kind = _Kind(function.__name__, function, wakes, witness, appends, keeps)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Verb[T]:
            return Verb(kind, args, kwargs)

        return cast("Callable[P, Verb[T]]", call)

    return decorate

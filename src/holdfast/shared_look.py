"""Shared looks: what many in this process ask the database for at once is looked up together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from holdfast.store import Store
from holdfast.store.verb import Verb

T = TypeVar("T")


class _Asked(threading.local, Generic[T]):
    """What this thread's event loop is about to look up, and who waits for it."""

    answer: asyncio.Future[dict[str, T]] | None = None
    names: frozenset[str] = frozenset()
    looking: asyncio.Task[None] | None = None


class SharedLook(Generic[T]):
    """Looks up things by name. Whoever asks in the same turn of a loop shares one look.

    A hundred who wait for a task each are woken by whatever happens to any of them.

    Args:
        store: the database.
        find: returns the verb that reads all of some names; without those that aren't there.
    """

    def __init__(self, store: Store, find: Callable[[Sequence[str]], Verb[dict[str, T]]]) -> None:
        self._store = store
        self._find = find
        self._asked: _Asked[T] = _Asked()

    async def of(self, name: str) -> T | None:
        """Return what there is now; None when there is no such thing."""
        asked, loop = self._asked, asyncio.get_running_loop()
        if asked.answer is None or asked.answer.get_loop() is not loop:
            asked.answer, asked.names = loop.create_future(), frozenset()
            loop.call_soon(self._look)
        asked.names |= {name}
        return (await asyncio.shield(asked.answer)).get(name)

    def _look(self) -> None:
        asked, answer = self._asked, self._asked.answer
        asked.answer = None
        if answer is not None and not answer.done():
            asked.looking = asyncio.ensure_future(self._tell(answer, sorted(asked.names)))

    async def _tell(self, answer: asyncio.Future[dict[str, T]], names: list[str]) -> None:
        store = self._store
        try:
            found = await store.beside(lambda: store.read(self._find(names)))
        except Exception as error:  # noqa: BLE001  it is the answer to all who asked
            answer.set_exception(error)
        else:
            answer.set_result(found)

"""Tickets: operations in the queue of the committer."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from holdfast import errors
from holdfast.store.verb import Refused, Verb

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Ticket(Generic[T]):
    """One operation in the queue, and whoever waits for it."""

    __slots__ = ("done", "error", "future", "loop", "result", "verb")

    def __init__(self, verb: Verb[T]) -> None:
        self.verb = verb
        self.done = False
        self.result: T | Refused | None = None
        self.error: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[None] | Future[None] | None = None

    def outcome(self) -> T:
        """Return the result, or raise what went wrong."""
        if self.error is not None:
            raise self.error
        if isinstance(self.result, Refused):
            raise lease_lost(self.result)
        return cast("T", self.result)

    def wake(self) -> None:
        """Tell whoever waits. Called on the loop's thread when there is a loop."""
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


def lease_lost(refused: Refused) -> errors.LeaseLostError:
    """Return the error for a write that a newer lease refused."""
    message = (
        f"The lease on {refused.task_id}/{refused.item_id} was lost: {refused.what} under token "
        f"{refused.token} was refused and nothing of it was kept. Stop this attempt; whoever "
        f"holds the lease now goes on."
    )
    return errors.LeaseLostError(
        message, task_id=refused.task_id, item_id=refused.item_id, token=refused.token
    )

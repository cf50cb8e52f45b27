"""The branches of one attempt, and what they wait for.

A wait (a timer, a signal, a child, a person) blocks its branch only. When no branch can go on, the
attempt ends and its slot is free; the item goes on, perhaps elsewhere, when something it waits for
has come. A branch whose wait is over while others still run simply goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol, Self, TypeVar

import msgspec

from holdfast import codec, errors

T = TypeVar("T")
S = TypeVar("S")

POLL = 0.05
"""Seconds between looks at a wait that nobody in this process will announce."""

GRACE = 0.02
"""Seconds without any activity before an attempt ends: what comes at once needn't end it, and the
branches of a plain `asyncio.gather` can't be seen between two calls."""


class TimerNeed(msgspec.Struct, frozen=True):
    """Until a moment. `wake_at` is wall time in seconds."""

    wake_at: float


class SignalNeed(msgspec.Struct, frozen=True):
    """Until a signal arrives, or `wake_at` has come."""

    name: str
    wake_at: float | None = None


class ChildNeed(msgspec.Struct, frozen=True):
    """Until a child task has ended."""

    task_id: str


class DoubtNeed(msgspec.Struct, frozen=True):
    """Until a person resolves an entry. `entry` is `task:item:seq`; `text` says what happened."""

    entry: str
    text: str


class QuotaNeed(msgspec.Struct, frozen=True):
    """Until a provider takes calls again. `wake_at` is wall time in seconds."""

    wake_at: float
    text: str


class BudgetNeed(msgspec.Struct, frozen=True):
    """Until the budget of a root task allows a call. `text` says what is left.

    A call takes so many tokens, and so many billionths of a US dollar (`nanos`).
    """

    root_id: str
    tokens: int
    nanos: int
    text: str


class ApprovalNeed(msgspec.Struct, frozen=True):
    """Until a person approves or rejects, or `wake_at` has come.

    `entry` is `task:item:seq`; `text` says what is asked.
    """

    entry: str
    seq: int
    text: str
    wake_at: float | None = None


class DivergenceNeed(msgspec.Struct, frozen=True):
    """Until every recorded `once` call of a tool was asked for, or no other branch can do so."""

    tool: str


Need = (
    TimerNeed
    | SignalNeed
    | ChildNeed
    | DoubtNeed
    | QuotaNeed
    | BudgetNeed
    | ApprovalNeed
    | DivergenceNeed
)


class Waits(Protocol):
    """What a manager does when a call can't go on."""

    async def until(self, need: Need, met: Callable[[], bool]) -> bool:
        """Wait until `met()`; False when it never will be met in this attempt.

        The attempt may end while this waits: then it raises `asyncio.CancelledError`.
        """
        ...


class AloneWaits:
    """Waits of a manager used on its own: there is no other branch, and nobody to hand over to."""

    async def until(self, need: Need, met: Callable[[], bool]) -> bool:
        """Wait for a moment to come; anything a person must do is answered False at once."""
        if isinstance(need, DoubtNeed | BudgetNeed | ApprovalNeed | DivergenceNeed):
            return met()
        while not met():  # noqa: ASYNC110  another process sets no event of ours
            await asyncio.sleep(POLL)
        return True


current_scope: ContextVar[str] = ContextVar("holdfast_scope", default="")
"""The branch the running code belongs to."""


class _Blocked:
    """A branch that waits."""

    def __init__(self, need: Need) -> None:
        self.need = need
        self.changed = asyncio.Event()
        self.hopeless = False


class Branches:
    """Counts what can still go on in one attempt, and ends it when nothing can.

    Args:
        watch: registers a listener that is called, from any thread, when something may have come;
            returns how to take it off.
    """

    def __init__(self, watch: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        self.suspended: asyncio.Event = asyncio.Event()
        """Set when the attempt is to end because every branch waits."""
        self._watch = watch
        self._free = 1  # branches that aren't blocked
        self._forks = 0  # branches beyond the first
        self._calls = 0  # calls under way in branches that aren't blocked
        self._blocked: list[_Blocked] = []
        self._check: asyncio.TimerHandle | None = None
        self._ended = False
        self._waited_for: list[Need] = []

    @property
    def needs(self) -> list[Need]:
        """What the blocked branches wait for, or waited for when the attempt was ended."""
        return self._waited_for or [blocked.need for blocked in self._blocked]

    @property
    def alone(self) -> bool:
        """Whether no sibling branch runs or waits."""
        return self._forks == 0 and self._calls <= 1 and not self._blocked

    def end(self) -> None:
        """Refuse every further call: the handler has returned or raised."""
        self._ended = True
        self._quiet_over()

    def call(self) -> Self:
        """Count a call as under way, in a `with` block; enter it as often as there are calls.

        Raises:
            CancelledError: (entering) the attempt ends because every branch waits.
            UsageError: (entering) it has ended; the call comes from a task the handler didn't wait
                for.
        """
        return self

    def __enter__(self) -> None:
        if self.suspended.is_set():
            raise asyncio.CancelledError
        if self._ended:
            message = (
                "The handler has returned, so nothing is called or recorded any more. Await what "
                "it starts in the background before it returns."
            )
            raise errors.UsageError(message)
        self._calls += 1
        self._quiet_over()

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        self._look()

    async def fork(self, branches: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Run branches side by side and return their results in order.

        The first failure cancels the others, and is raised when they have ended.
        """
        if not branches:
            return []
        self._forks += len(branches)
        self._free += len(branches) - 1  # the one that forks waits for them
        tasks = [asyncio.ensure_future(branch) for branch in branches]
        for task in tasks:
            task.add_done_callback(self._branch_ended)
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        finally:
            self._forks -= len(branches)
            self._free += 1

    def _branch_ended(self, _: object) -> None:
        self._free -= 1
        self._look()

    # -- waiting ---------------------------------------------------------------------------------

    async def until(self, need: Need, met: Callable[[], bool]) -> bool:
        """Block this branch until `met()`; see `Waits`."""
        if met():
            return True
        loop, blocked = asyncio.get_running_loop(), _Blocked(need)

        def something_came() -> None:
            loop.call_soon_threadsafe(blocked.changed.set)

        unwatch = self._watch(something_came)
        self._block(blocked)
        try:
            while not met():
                if blocked.hopeless:
                    return False
                blocked.changed.clear()
                # Another process can't set an event of ours, so it is looked again anyway.
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await blocked.changed.wait()
            return True
        finally:
            unwatch()
            self._unblock(blocked)

    def _block(self, blocked: _Blocked) -> None:
        self._blocked.append(blocked)
        self._free -= 1
        self._calls -= 1
        self._look()

    def _unblock(self, blocked: _Blocked) -> None:
        self._blocked.remove(blocked)
        self._free += 1
        self._calls += 1
        self._quiet_over()

    # -- ending ----------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._blocked and not self._can_go_on() and self._check is None:
            self._check = asyncio.get_running_loop().call_later(GRACE, self._nothing_goes_on)

    def _can_go_on(self) -> bool:
        return self._free > 0 or self._calls > 0 or self._ended

    def _quiet_over(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _nothing_goes_on(self) -> None:
        self._check = None
        if self._can_go_on() or not self._blocked:
            return
        if all(isinstance(blocked.need, DivergenceNeed) for blocked in self._blocked):
            for blocked in self._blocked:
                blocked.hopeless = True
                blocked.changed.set()
        else:
            self._waited_for = self.needs
            self.suspended.set()


# -- scopes ---------------------------------------------------------------------------------------


@contextmanager
def scoped(name: str) -> Generator[None]:
    """Give the calls of a block a scope below the present one."""
    token = current_scope.set(f"{current_scope.get()}/{name}")
    try:
        yield
    finally:
        current_scope.reset(token)


def zip_scopes(function: Callable[..., Any], items: Sequence[S]) -> list[tuple[str, S]]:
    """Name the branches of a map by their items; equal ones are counted."""
    name = getattr(function, "__name__", "map")
    seen: dict[str, int] = {}
    scopes: list[tuple[str, S]] = []
    for item in items:
        mark = codec.digest(item).hex()[:12]
        count = seen[mark] = seen.get(mark, -1) + 1
        scopes.append((f"{name}[{mark}{f'.{count}' if count else ''}]", item))
    return scopes

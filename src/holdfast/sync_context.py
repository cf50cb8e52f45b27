"""SyncContext: the same context for sync handlers, which run in a thread of their own.

Every method hands over to the async one and waits: no decision is made twice.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
)
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload
from uuid import UUID

from holdfast.answer import Answer, AnyModel
from holdfast.approvals import Approval
from holdfast.branches import scoped
from holdfast.budgets import Reserve
from holdfast.context import Context
from holdfast.evidence import Evidence, EvidencePack
from holdfast.handlers import Handler
from holdfast.llm_cache import Reuse
from holdfast.model_calls import ModelStream
from holdfast.models import Checkpoint, Task
from holdfast.states import CheckpointType, Effect
from holdfast.threads import start_thread
from holdfast.usage import Usage

if TYPE_CHECKING:  # see `holdfast.context`
    from holdfast.providers.asking import Asked

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")

LINGER = 5.0
"""Seconds that a thread which was told to stop has for its `finally` blocks."""


class SyncContext:
    """What a sync handler is given: `Context` without `await`. See there for what is promised."""

    def __init__(self, context: Context, portal: Portal) -> None:
        self._context = context
        self._portal = portal

    @property
    def task(self) -> Task:
        """See `Context.task`."""
        return self._context.task

    @property
    def item_id(self) -> str:
        """See `Context.item_id`."""
        return self._context.item_id

    @property
    def attempt(self) -> int:
        """See `Context.attempt`."""
        return self._context.attempt

    @property
    def results(self) -> dict[str, Any]:
        """See `Context.results`."""
        return self._context.results

    @property
    def workspace(self) -> Path:
        """See `Context.workspace`."""
        return self._context.workspace

    @property
    def idempotency_key(self) -> str:
        """See `Context.idempotency_key`."""
        return self._context.idempotency_key

    def options(
        self,
        *,
        key: str | None = None,
        name: str | None = None,
        timeout: float | None = None,
        effect: Effect | str | None = None,
        approve: bool | float = False,
        model: str | None = None,
        reuse: Reuse | float | bool | None = None,
        usage: Callable[[Any], Usage | None] | None = None,
        reserve: Reserve | None = None,
        quota_wait: float | None = None,
        queue: str | None = None,
        priority: int = 0,
    ) -> SyncContext:
        """See `Context.options`."""
        options = self._context.options(
            key=key,
            name=name,
            timeout=timeout,
            effect=effect,
            approve=approve,
            model=model,
            reuse=reuse,
            usage=usage,
            reserve=reserve,
            quota_wait=quota_wait,
            queue=queue,
            priority=priority,
        )
        return SyncContext(options, self._portal)

    @overload
    def llm(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    def llm(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def llm(self, function: Asked, /) -> Answer: ...
    @overload
    def llm(
        self,
        function: str | AnyModel,
        messages: str | Iterable[Any],
        /,
        *,
        tools: Iterable[Any] = (),
        settings: Mapping[str, Any] | None = None,
        base_url: str | None = None,
    ) -> Answer: ...
    @overload
    def llm(
        self,
        function: str | AnyModel,
        messages: str | Iterable[Any],
        /,
        *,
        output: type[T],
        tools: Iterable[Any] = (),
        settings: Mapping[str, Any] | None = None,
        base_url: str | None = None,
    ) -> T: ...
    def llm(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See `Context.llm`."""
        return self._portal.wait(self._context.llm(function, *args, **kwargs))

    def stream(
        self,
        model: str | AnyModel | Asked,
        messages: str | Iterable[Any] = (),
        *,
        tools: Iterable[Any] = (),
        settings: Mapping[str, Any] | None = None,
        base_url: str | None = None,
    ) -> SyncModelStream:
        """See `Context.stream`; this one is read with `for`."""
        stream = self._context.stream(
            model, messages, tools=tools, settings=settings, base_url=base_url
        )
        return SyncModelStream(stream, self._portal)

    @overload
    def tool(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    def tool(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def tool(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See `Context.tool`."""
        return self._portal.wait(self._context.tool(function, *args, **kwargs))

    @overload
    def step(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def step(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See `Context.step`."""
        return self._portal.wait(self._context.step(function, *args, **kwargs))

    def checkpoint(
        self,
        state: object = None,
        *,
        evidence: Evidence | Iterable[Evidence] | EvidencePack | None = None,
        type: CheckpointType | str = CheckpointType.MANUAL,  # noqa: A002
    ) -> Checkpoint:
        """See `Context.checkpoint`."""
        return self._portal.wait(self._context.checkpoint(state, evidence=evidence, type=type))

    def restore(self, default: T) -> T:
        """See `Context.restore`."""
        return self._portal.wait(self._context.restore(default))

    def sleep(self, name: str, seconds: float) -> None:
        """See `Context.sleep`."""
        self._portal.wait(self._context.sleep(name, seconds))

    def signal(self, name: str, *, timeout: float | None = None) -> Any:  # noqa: ANN401  any data
        """See `Context.signal`."""
        return self._portal.wait(self._context.signal(name, timeout=timeout))

    def approval(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        text: str | None = None,
        timeout: float | None = None,
    ) -> Approval:
        """See `Context.approval`."""
        return self._portal.wait(
            self._context.approval(name, arguments, text=text, timeout=timeout)
        )

    def child(self, function: Handler[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Context.child`."""
        return self._portal.wait(self._context.child(function, *args, **kwargs))

    def gather(self, *branches: Callable[[], T]) -> list[T]:
        """Run functions side by side, each in a thread and a scope; see `Context.gather`.

        Unlike the async one it takes functions, since a call would run before it is passed.
        """
        return self._portal.wait(
            self._context.gather(*(self._portal.run(branch) for branch in branches))
        )

    def map(
        self, function: Callable[[S], T], items: Iterable[S], *, limit: int | None = None
    ) -> list[T]:
        """Run `function(item)` for each item side by side, in threads; see `Context.map`."""

        async def one(item: S) -> T:
            return await self._portal.run(partial(function, item))

        one.__name__ = getattr(function, "__name__", "map")
        return self._portal.wait(self._context.map(one, items, limit=limit))

    @contextmanager
    def scope(self, name: str) -> Generator[None]:
        """See `Context.scope`."""
        with scoped(name):
            yield

    def now(self, name: str) -> datetime:
        """See `Context.now`."""
        return self._portal.wait(self._context.now(name))

    def uuid(self, name: str) -> UUID:
        """See `Context.uuid`."""
        return self._portal.wait(self._context.uuid(name))

    def random(self, name: str) -> float:
        """See `Context.random`."""
        return self._portal.wait(self._context.random(name))

    def progress(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """See `Context.progress`."""
        self._portal.wait(self._context.progress(text, done, total))


class SyncModelStream:
    """An answer that arrives piece by piece; see `SyncContext.stream`. Iterate it once."""

    def __init__(self, stream: ModelStream, portal: Portal) -> None:
        self._stream = stream
        self._portal = portal

    @property
    def response(self) -> Answer:
        """See `ModelStream.response`."""
        return self._stream.response

    def __iter__(self) -> Generator[str]:
        """Yield the text of the answer, piece by piece."""
        return self._each(self._stream.__aiter__())

    def events(self) -> Generator[Any]:
        """See `ModelStream.events`."""
        return self._each(self._stream.events())

    def _each(self, pieces: AsyncGenerator[T]) -> Generator[T]:
        async def following() -> list[T]:
            async for piece in pieces:
                return [piece]
            return []

        async def close() -> None:
            await pieces.aclose()

        try:
            while piece := self._portal.wait(following()):
                yield piece[0]
        finally:
            self._portal.wait(close())


class _Thread:
    """A thread that runs a sync handler or one of its branches, and the calls it waits for."""

    def __init__(self) -> None:
        self.calls: set[concurrent.futures.Future[Any]] = set()
        self.stopped = False

    def stop(self) -> None:
        """End every call under way, and refuse those that come."""
        self.stopped = True
        for call in tuple(self.calls):
            call.cancel()


_current: ContextVar[_Thread | None] = ContextVar("holdfast_thread", default=None)


class Portal:
    """Where the threads of a sync handler hand their calls to the event loop.

    Args:
        loop: the event loop of the attempt.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stray = _Thread()  # threads that the handler has started itself

    async def run(self, call: Callable[[], T], *, handler: bool = False) -> T:
        """Run a sync handler, or a branch of one, in a thread of its own.

        A thread can't be interrupted: when this is canceled its calls are, and it has `LINGER`
        seconds for its `finally` blocks. What it still does through its context is refused.
        """
        thread, context = _Thread(), contextvars.copy_context()
        context.run(_current.set, thread)
        running = start_thread(partial(context.run, call))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            thread.stop()
            if handler:
                self._stray.stop()
            running.add_done_callback(_retrieve)
            await asyncio.wait((running,), timeout=LINGER)
            raise

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        """Make a call in the event loop, and wait for it in this thread.

        Raises:
            CancelledError: the attempt, or this branch, was told to stop.
        """
        thread = _current.get() or self._stray
        if thread.stopped:
            call.close()
            raise asyncio.CancelledError
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        thread.calls.add(future)
        if thread.stopped:  # meanwhile
            future.cancel()
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            # A handler's `except Exception` must not catch the end of its attempt.
            raise asyncio.CancelledError from None
        finally:
            thread.calls.discard(future)


def _retrieve(running: asyncio.Future[Any]) -> None:
    if not running.cancelled():
        running.exception()  # the attempt, or the branch, had ended before it was raised

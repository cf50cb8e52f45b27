"""Calling a handler: in the event loop or in a thread, within its time limit, until it ends."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, cast

import msgspec

from holdfast import errors
from holdfast.attempt import Attempt
from holdfast.context import Context
from holdfast.handlers import Handler
from holdfast.models import ItemPolicy
from holdfast.outcomes import Outcome, Raised, Returned, Stopped, Suspended
from holdfast.store.payload import decode_payload
from holdfast.sync_context import Portal, SyncContext
from holdfast.threads import start_thread
from holdfast.tool import is_async

LINGER = 10.0
"""Seconds a handler that was told to stop has for its `finally` blocks."""

log = logging.getLogger("holdfast")

inside_handler: ContextVar[bool] = ContextVar("inside_handler", default=False)
"""Whether the code that asks is part of a handler, or was started by one."""


class Invocation:
    """One call of the handler of a work item.

    Args:
        attempt: what its context works with.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._stop = asyncio.Event()
        self._why = ""

    def stop(self, why: str) -> None:
        """Stop it: `canceled`, `drained` (handed back) or `lost`. The first call counts."""
        if not self._stop.is_set():
            self._why = why
            self._stop.set()

    async def run(self) -> Outcome:
        """Call the handler and return how that ended.

        One that is to end sooner than it would is canceled: its `finally` blocks run, and what it
        still does through its context is refused.
        """
        if self._stop.is_set():  # while what it builds on was being checked
            return Stopped(self._why)
        policy = msgspec.msgpack.decode(self._attempt.item.policy, type=ItemPolicy)
        branches = self._attempt.branches
        running = asyncio.ensure_future(self._call())
        suspended = asyncio.ensure_future(branches.suspended.wait())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            done, _ = await asyncio.wait(
                {running, suspended, stopped},
                timeout=policy.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if running in done:
                return _outcome(running)
            needs = tuple(branches.needs)
            branches.suspended.set()
            await self._interrupt(running)
        finally:
            branches.end()
            running.cancel()
            suspended.cancel()
            stopped.cancel()
            await self._attempt.close()
        if stopped in done:
            return Stopped(self._why)
        if suspended in done:
            return Suspended(needs)
        return Raised(_timed_out(policy.timeout or 0.0))

    async def _interrupt(self, running: asyncio.Future[Any]) -> None:
        running.cancel()
        await asyncio.wait((running,), timeout=LINGER)
        if not running.done():
            item = self._attempt.item
            log.warning(
                "The handler of %s/%s didn't stop within %g s; what it still does through its "
                "context is refused.", item.task_id, item.item_id, LINGER,
            )  # fmt: skip
        elif not running.cancelled():
            running.exception()  # retrieved: the attempt had ended before it was raised

    async def _call(self) -> object:
        inside_handler.set(True)  # in this task of the loop only, and what it starts
        item, handlers = self._attempt.item, self._attempt.handlers
        planned = handlers.planner_of(item.handler)
        if planned is not None:
            return await self._plan(planned)
        handler = handlers.get(item.handler)
        given = decode_payload(self._attempt.store, item.task_id, item.input)
        args, kwargs = handler.call_arguments(cast("Mapping[str, Any]", given))
        return await self._with_context(handler.function, args, kwargs)

    async def _with_context(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> object:
        context = Context(self._attempt)
        if is_async(function):
            value = await function(context, *args, **kwargs)
        else:
            portal = Portal(self._attempt.loop)
            sync_context = SyncContext(context, portal)
            call = functools.partial(function, sync_context, *args, **kwargs)
            value = await portal.run(call, handler=True)
        await self._attempt.ledger.settle_left()
        return value

    async def _plan(self, planned: Handler[..., Any]) -> object:
        planner = cast("Callable[..., Any] | None", planned.planner)
        if planner is None:
            message = f"{planned.name} has no planner in this program; register it again."
            raise errors.UnknownHandlerError(message, name=planned.name)
        task = self._attempt.task
        if planned.planner_takes_context:
            return await self._with_context(planner, (task,), {})
        if is_async(planner):
            return await planner(task)
        return await start_thread(functools.partial(planner, task))


def _outcome(running: asyncio.Future[object]) -> Outcome:
    if running.cancelled():
        return Raised(RuntimeError("the handler canceled itself"))
    error = running.exception()
    return Returned(running.result()) if error is None else Raised(error)


def _timed_out(seconds: float) -> errors.CallTimeoutError:
    message = f"The attempt took longer than its {seconds:g} s and was stopped."
    return errors.CallTimeoutError(message, seconds=seconds)

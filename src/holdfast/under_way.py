"""The `once` calls that this process may still be inside."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from holdfast.tool import Tool, is_async

_may_run: dict[str, str] = {}
"""Idempotency keys of calls that may yet have their effect, and the worker of each."""

os.register_at_fork(after_in_child=_may_run.clear)


def watched(tool: Tool[..., Any], key: str, worker_id: str) -> Callable[..., Any]:
    """Return a tool's function so that `may_run(key)` is true until it has returned or raised.

    An async one that is canceled may have left a thread behind. Unless its tool says that it
    doesn't, it counts until the process ends.
    """
    _may_run[key] = worker_id
    over = (Exception, asyncio.CancelledError) if tool.stops_when_canceled else Exception

    async def call_async(*args: Any, **kwargs: Any) -> object:
        try:
            result = await tool.function(*args, **kwargs)
        except over:
            _may_run.pop(key, None)
            raise
        _may_run.pop(key, None)
        return result

    def call(*args: Any, **kwargs: Any) -> object:
        try:
            return tool.function(*args, **kwargs)
        finally:
            _may_run.pop(key, None)

    return call_async if is_async(tool.function) else call


def may_run(key: str) -> bool:
    """Say whether this process may still be inside the `once` call with that idempotency key."""
    return key in _may_run


def any_may_run(worker_id: str) -> bool:
    """Say whether this process may still be inside any `once` call of one of its workers."""
    return worker_id in list(_may_run.values())  # a copy: calls end in threads

"""The call that is being made: what its function sees, and whether it may still be running."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import Token
from typing import Any

from holdfast.branches import current_scope
from holdfast.entries import inside
from holdfast.tool import CurrentCall, current_call, is_async

_may_run: set[str] = set()
"""Idempotency keys of `once` calls of this process that may still be about to have their effect."""

os.register_at_fork(after_in_child=_may_run.clear)


class Making:
    """Make a function run inside a call, in a `with` block; gives what the function may use.

    Calls that it makes itself get a scope of their own: where the outer one replays, they are not
    asked for.
    """

    __slots__ = ("_call_token", "_scope", "_scope_token", "call")

    def __init__(self, idempotency_key: str, scope: str, name: str, identity: bytes) -> None:
        self.call = CurrentCall(idempotency_key)
        self._scope = inside(scope, name, identity)
        self._call_token: Token[CurrentCall | None] | None = None
        self._scope_token: Token[str] | None = None

    def __enter__(self) -> CurrentCall:
        self._call_token = current_call.set(self.call)
        self._scope_token = current_scope.set(self._scope)
        return self.call

    def __exit__(self, *_: object) -> None:
        if self._call_token is not None and self._scope_token is not None:
            current_call.reset(self._call_token)
            current_scope.reset(self._scope_token)


def watched(function: Callable[..., Any], key: str) -> Callable[..., Any]:
    """Return the function so that `may_run(key)` is true until it has returned or raised.

    An async function that is canceled may have left a thread behind, so it counts until the process
    ends.
    """
    _may_run.add(key)

    async def call_async(*args: Any, **kwargs: Any) -> object:
        try:
            result = await function(*args, **kwargs)
        except Exception:
            _may_run.discard(key)
            raise
        _may_run.discard(key)
        return result

    def call(*args: Any, **kwargs: Any) -> object:
        try:
            return function(*args, **kwargs)
        finally:
            _may_run.discard(key)

    return call_async if is_async(function) else call


def may_run(key: str) -> bool:
    """Say whether this process may still be inside the `once` call with that idempotency key."""
    return key in _may_run

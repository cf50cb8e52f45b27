"""The call that is being made: what its function sees."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token

from holdfast.branches import current_scope
from holdfast.entries import inside
from holdfast.tool import CurrentCall, current_call


class Making:
    """Make a function run inside a call, in a `with` block; gives what the function may use.

    Calls that it makes itself get a scope of their own: where the outer one replays, they are not
    asked for.
    """

    __slots__ = ("_call_token", "_scope", "_scope_token", "call")

    def __init__(
        self, idempotency_key: Callable[[], str], scope: str, name: str, identity: bytes
    ) -> None:
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

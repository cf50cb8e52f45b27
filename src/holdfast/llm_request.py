"""One request to a model: what is asked, how it is called, and what is recorded about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdfast.calls import Making
from holdfast.entries import Draft
from holdfast.models import Entry
from holdfast.redaction import redact
from holdfast.states import Effect, EntryKind, EntryStatus
from holdfast.store.payload import Payload, encode_payload
from holdfast.tool import Tool, invoke
from holdfast.usage import Usage

log = logging.getLogger("holdfast")


class Request(msgspec.Struct):
    """One request on its way through the cache."""

    tool: Tool[..., Any]
    name: str
    model: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: dict[str, Any]
    scope: str
    key: str | None
    identity: bytes
    measure: Callable[[Any], Usage | None]
    timeout: float | None
    idempotency_key: Callable[[], str]
    kept: Payload | None
    started: int = 0
    intent: Entry | None = None
    """Its entry that was durable before it was sent; only under a budget."""

    def start(self) -> None:
        """Begin to count its time."""
        self.started = time.perf_counter_ns()
        self.intent = None

    async def send(self) -> object:
        """Call the model."""
        with Making(self.idempotency_key, self.scope, self.name, self.identity):
            return await invoke(self.tool.function, self.args, self.kwargs, self.timeout, self.name)

    def used(self, answer: object) -> Usage:
        """Return what an answer used; one that was paid for isn't lost if that can't be read."""
        try:
            return self.measure(answer) or Usage()
        except Exception as error:  # noqa: BLE001  a client's answers, or a program's function
            log.warning("The usage of %s can't be read: %s", self.name, redact(repr(error)))
            return Usage()

    def answer(self, value: object, usage: Usage) -> Draft:
        """Return the entry that records an answer."""
        draft = self.draft(EntryStatus.DONE, encode_payload(value))
        draft.usage = usage.encode()
        return draft

    def draft(self, status: EntryStatus, outcome: Payload | None = None) -> Draft:
        """Return an entry about this request."""
        return Draft(
            EntryKind.LLM,
            self.name,
            self.identity,
            status,
            scope=self.scope,
            effect=Effect.LLM,
            micros=0 if outcome is None else (time.perf_counter_ns() - self.started) // 1000,
            request=self.kept,
            outcome=outcome,
        )


def model_named(arguments: Mapping[str, Any]) -> str | None:
    """Return the model's name where it is an argument called `model`."""
    model = arguments.get("model")
    return model if isinstance(model, str) else None

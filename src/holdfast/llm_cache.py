"""LLMOutputCache: a recorded model output is never paid for again.

Within a run an output is durable before the caller sees it and is replayed after a crash; a crash
while the model answers loses that one answer. Across runs outputs are shared only where that was
asked for (`Reuse`), keyed by the whole request. Failures are never shared.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, Self, TypeVar, overload

import msgspec

from holdfast import codec, errors, packing
from holdfast.branches import POLL, current_scope
from holdfast.calls import Making
from holdfast.entries import Draft, Recorded, check_key_reuse, identity_of, request_payload
from holdfast.failures import as_recorded, decode_failure, encode_failure, raise_from, tag
from holdfast.journal import Journal
from holdfast.liveness import Heartbeat, is_gone, is_ours
from holdfast.redaction import redact
from holdfast.states import Effect, EntryKind, EntryStatus
from holdfast.store import Store, open_store, verbs
from holdfast.store.payload import MAX_PAYLOAD, Payload, encode_payload, make_payload
from holdfast.store.verbs import CacheEntry, CacheHit, Reservation
from holdfast.tool import FinishedAnyway, Tool, argument_digest, invoke, tool_of
from holdfast.usage import Usage, usage_of

log = logging.getLogger("holdfast")

P = ParamSpec("P")
T = TypeVar("T")

RESERVATION = 600.0
"""Seconds after which somebody else may generate an output whose holder can't be watched."""


class Reuse(msgspec.Struct, frozen=True):
    """Opt in to sharing an output between runs.

    Args:
        ttl: seconds an output may be used; None until it is invalidated.
        namespace: outputs are shared only within one, such as one tenant.

    The object that a method is bound to is not part of a request: give the calls of clients that
    answer differently a `name` or a namespace each.
    """

    ttl: float | None = None
    namespace: str = "default"


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
    reuse: Reuse | None
    measure: Callable[[Any], Usage | None]
    timeout: float | None
    idempotency_key: str
    kept: Payload | None


class LLMOutputCache:
    """The model outputs of one work item, or (opened on a store) of all runs that share it.

    Args:
        where: a journal, for replay within a run; or a store or its URL, for reuse across runs.
    """

    def __init__(self, where: Journal | Store | str) -> None:
        self._journal = where if isinstance(where, Journal) else None
        self._store = where.store if isinstance(where, Journal) else open_store(where)
        self._owns_store = isinstance(where, str)
        self._heartbeat: Heartbeat | None = None

    @overload
    async def get_or_generate(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def get_or_generate(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    async def get_or_generate(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the recorded output for this function and these arguments, or generate it.

        Opened on a journal it replays within the run; opened on a store it shares across runs,
        without a time limit. Durable before it returns.

        Raises:
            Exception: whatever the function raised; nothing is shared then.
        """
        reuse = None if self._journal is not None else Reuse()
        return await self.call(function, args, kwargs, reuse=reuse)

    async def call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        name: str | None = None,
        key: str | None = None,
        model: str | None = None,
        reuse: Reuse | None = None,
        measure: Callable[[Any], Usage | None] = usage_of,
        timeout: float | None = None,  # noqa: ASYNC109  an option of the call
    ) -> Any:  # noqa: ANN401  what the function returns
        """Call a model with options; see `get_or_generate`."""
        tool = tool_of(function, Effect.LLM)
        arguments = tool.bind(args, kwargs)
        name = name or tool.name
        scope = current_scope.get()
        identity = identity_of(scope, EntryKind.LLM, name, argument_digest(arguments), key)
        model = model or _model_named(arguments) or name
        request = Request(
            tool=tool,
            name=name,
            model=model,
            args=args,
            kwargs=dict(kwargs),
            arguments=arguments,
            scope=scope,
            key=key,
            identity=identity,
            reuse=reuse,
            measure=measure,
            timeout=tool.timeout if timeout is None else timeout,
            idempotency_key=self._idempotency_key(identity, key),
            kept=request_payload(arguments, whole=key is not None),
        )
        if self._journal is None:
            return (await self._shared(request, reuse or Reuse()))[0]
        recorded = self._journal.find(identity, keyed=key is not None)
        if recorded is not None:
            check_key_reuse(recorded, identity, key)
            return await self._replay(self._journal, recorded)
        return await self._generate_and_record(self._journal, request)

    def _idempotency_key(self, identity: bytes, key: str | None) -> str:
        if self._journal is None:
            return identity.hex()
        return self._journal.next_idempotency_key(identity, keyed=key is not None)

    # -- within a run ----------------------------------------------------------------------------

    async def _replay(self, journal: Journal, recorded: Recorded) -> object:
        entry = recorded.last
        value = journal.decode(entry.outcome)
        journal.replayed += 1
        if entry.status is EntryStatus.FAILED:
            raise tag(decode_failure(value), entry.seq)
        usage = Usage.decode(entry.usage)
        journal.savings.update(
            {
                "llm_replay.hits": 1,
                "llm_replay.input_tokens_saved": usage.input_tokens,
                "llm_replay.output_tokens_saved": usage.output_tokens,
                "llm_replay.cost_saved": usage.cost or 0,
            }
        )
        return value

    async def _generate_and_record(self, journal: Journal, request: Request) -> object:
        await journal.flush()
        await journal.check_lease()  # others may have paid for this output already
        started = time.perf_counter_ns()
        try:
            if request.reuse is not None:
                value, usage, reused = await self._shared(request, request.reuse)
            else:
                value, usage, reused = *await _generate(request), False
        except (errors.LeaseError, errors.StoreError):
            raise  # failures of ours, not of the model: they end the attempt
        except FinishedAnyway as finished:
            usage = _measured(request, finished.result)
            await journal.record(_answer(request, finished.result, usage, started))
            raise asyncio.CancelledError from None
        except Exception as error:  # noqa: BLE001  raised as it will be replayed
            shown = as_recorded(error)
            draft = _draft(request, EntryStatus.FAILED, encode_failure(shown), started)
            raise_from(tag(shown, (await journal.record(draft)).seq), error)
        usage = msgspec.structs.replace(usage, reused=reused)
        await journal.record(_answer(request, value, usage, started))
        journal.executed += 1
        return value

    # -- across runs -----------------------------------------------------------------------------

    async def _shared(self, request: Request, reuse: Reuse) -> tuple[object, Usage, bool]:
        """Return an output other runs may have made: (value, usage, whether it was there)."""
        key = codec.digest([request.name, request.model, request.arguments])
        holder = self._holder()
        while True:
            found = await self._store.commit(
                verbs.look_up(reuse.namespace, key, request.model, holder, self._store.now())
            )
            if isinstance(found, CacheHit):
                value = codec.decode(packing.unpack(found.payload, MAX_PAYLOAD))
                usage = Usage(found.input_tokens, found.output_tokens, found.cost)
                return value, usage, True
            if found.mine:
                return *await self._fill(request, reuse, key, holder), False
            await self._await_holder(reuse.namespace, key)

    async def _fill(
        self, request: Request, reuse: Reuse, key: bytes, holder: str
    ) -> tuple[object, Usage]:
        try:
            value, usage = await _generate(request)
            data = codec.encode(value)
            make_payload(data)  # refuses what is too large
            entry = CacheEntry(
                packing.pack(data), usage.input_tokens, usage.output_tokens, usage.cost, reuse.ttl
            )
            now = self._store.now()
            await self._store.commit(verbs.fill(reuse.namespace, key, holder, entry, now))
        except BaseException:
            # Left behind: whoever is being canceled can't wait, and others would wait for it.
            self._store.commit(verbs.give_up(reuse.namespace, key, holder)).behind()
            raise
        return value, usage

    async def _await_holder(self, namespace: str, key: bytes) -> None:
        """Wait while somebody generates the output; take over from the dead."""
        while (reserved := self._store.read(verbs.reservation(namespace, key))) is not None:
            if self._is_dead(reserved):
                await self._store.commit(verbs.give_up(namespace, key, reserved.holder))
                return
            await asyncio.sleep(POLL)

    def _is_dead(self, reserved: Reservation) -> bool:
        if is_ours(reserved.holder):
            return False
        return (
            is_gone(self._store, reserved.holder)
            or self._store.read(verbs.is_taken_for_dead(reserved.holder))
            or self._store.now() >= reserved.since + RESERVATION
        )

    def _holder(self) -> str:
        """Return under whose name outputs are generated: a worker, whose death others can see."""
        if self._journal is not None:
            return self._journal.lease.owner
        if self._heartbeat is None:
            self._heartbeat = Heartbeat(self._store)
            self._heartbeat.start()
        return self._heartbeat.worker_id

    def close(self) -> None:
        """Close what this has opened. Only a cache opened on a store or a URL needs it."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def invalidate(self, namespace: str = "default", *, model: str | None = None) -> int:
        """Forget shared outputs of a namespace, or only those of one model. Returns how many.

        What a run recorded for itself stays: a task in progress keeps its answers.
        """
        return await self._store.commit(verbs.invalidate(namespace, None, model))

    def stats(self) -> dict[str, float]:
        """Return the durable counters: hits, misses, tokens and US dollars saved, since ever."""
        counters = self._store.read(verbs.read_counters())
        return {name: value for name, value in counters.items() if name.startswith("llm_")}


def _model_named(arguments: Mapping[str, Any]) -> str | None:
    model = arguments.get("model")
    return model if isinstance(model, str) else None


async def _generate(request: Request) -> tuple[object, Usage]:
    with Making(request.idempotency_key, request.scope, request.name, request.identity):
        value = await invoke(
            request.tool.function, request.args, request.kwargs, request.timeout, request.name
        )
    return value, _measured(request, value)


def _measured(request: Request, value: object) -> Usage:
    """Return what an answer used; one that was paid for isn't lost because that can't be read."""
    try:
        return request.measure(value) or Usage()
    except Exception as error:  # noqa: BLE001  a client's answers, or a function of the program's
        log.warning("The usage of %s can't be read: %s", request.name, redact(repr(error)))
        return Usage()


def _answer(request: Request, value: object, usage: Usage, started: int) -> Draft:
    draft = _draft(request, EntryStatus.DONE, encode_payload(value), started)
    draft.usage = usage.encode()
    return draft


def _draft(request: Request, status: EntryStatus, outcome: Payload, started: int) -> Draft:
    return Draft(
        EntryKind.LLM,
        request.name,
        request.identity,
        status,
        scope=request.scope,
        effect=Effect.LLM,
        micros=(time.perf_counter_ns() - started) // 1000,
        request=request.kept,
        outcome=outcome,
    )

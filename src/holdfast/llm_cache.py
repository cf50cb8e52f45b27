"""LLMOutputCache: a recorded model output is never paid for again.

Within a run an output is durable before the caller sees it and is replayed after a crash; a crash
while the model answers loses that one answer. Across runs outputs are shared only where that was
asked for (`Reuse`), keyed by the whole request. Failures are never shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, Self, TypeVar, overload

import msgspec

from holdfast import codec, errors, packing
from holdfast.branches import POLL, AloneWaits, QuotaNeed, Waits, current_scope
from holdfast.budgets import BudgetGate, Reserve, TooLittleError, estimate
from holdfast.entries import Draft, Recorded, check_key_reuse, identity_of, request_payload
from holdfast.failures import as_recorded, decode_failure, encode_failure, raise_from, tag
from holdfast.journal import Journal
from holdfast.liveness import Heartbeat, is_ours
from holdfast.llm_request import Request, model_named
from holdfast.quota import Refusals
from holdfast.states import Effect, EntryKind, EntryStatus
from holdfast.store import Store, open_store, verbs
from holdfast.store.payload import MAX_PAYLOAD, encode_payload, make_payload
from holdfast.store.verbs import CacheEntry, CacheHit, Reservation
from holdfast.tool import FinishedAnyway, tool_of
from holdfast.usage import Usage, usage_of

P = ParamSpec("P")
T = TypeVar("T")

Generate = Callable[[], Awaitable[tuple[Any, Usage]]]
"""Calls the model; returns the answer and what it used."""

_OURS = (
    errors.LeaseError,
    errors.StoreError,
    errors.UnknownPriceError,
    errors.RateLimitedError,
    TooLittleError,
)
"""What is no outcome of the call: it ends the attempt, was raised before the call, or is waited
for."""

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


class LLMOutputCache:
    """The model outputs of one work item, or (opened on a store) of all runs that share it.

    Args:
        where: a journal, for replay within a run; or a store or its URL, for reuse across runs.
        waits: what to do when a call can't go on; on its own, quotas are waited for in place.
    """

    def __init__(self, where: Journal | Store | str, waits: Waits | None = None) -> None:
        self._journal = where if isinstance(where, Journal) else None
        self._store = where.store if isinstance(where, Journal) else open_store(where)
        self._owns_store = isinstance(where, str)
        self._heartbeat: Heartbeat | None = None
        self._waits = waits or AloneWaits()
        self._gate: BudgetGate | None = None
        self._under_way: list[bytes] = []  # the identities of calls that are being made

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
        reserve: Reserve | None = None,
        quota_wait: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  an option of the call
    ) -> Any:  # noqa: ANN401  what the function returns
        """Call a model with options; see `get_or_generate`.

        Args:
            function: what calls the model.
            args: its positional arguments.
            kwargs: its keyword arguments.
            name: what the journal calls it; the function's name when None.
            key: names the call within its item, instead of its arguments.
            model: the model's name, where it isn't an argument called `model`.
            reuse: share the output between runs.
            measure: reads what the call used off the answer.
            reserve: what the call may take at most of its task's budget, or a function of the
                arguments by name that says so; an estimate without a price when None.
            quota_wait: seconds the call may wait in all for a provider that refuses it; a day when
                None, and 0 raises `RateLimitedError` at once.
            timeout: seconds the call may take.
        """
        tool = tool_of(function, Effect.LLM)
        arguments = tool.bind(args, kwargs)
        name = name or tool.name
        scope = current_scope.get()
        data, digest = codec.encode_with_digest(arguments)
        identity = identity_of(scope, EntryKind.LLM, name, digest, key)
        model = model or model_named(arguments) or name
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
            measure=measure,
            timeout=tool.timeout if timeout is None else timeout,
            idempotency_key=self._idempotency_key(identity, key),
            kept=request_payload(data, whole=key is not None),
        )
        if self._journal is None:
            return await self._share(request, reuse or Reuse())
        refusals = Refusals(quota_wait)
        return await self._replay_or_generate(self._journal, request, reuse, reserve, refusals)

    def _idempotency_key(self, identity: bytes, key: str | None) -> Callable[[], str]:
        if self._journal is None:
            return identity.hex
        return self._journal.next_idempotency_key(identity, keyed=key is not None)

    # -- within a run ----------------------------------------------------------------------------

    async def _replay_or_generate(
        self,
        journal: Journal,
        request: Request,
        reuse: Reuse | None,
        reserve: Reserve | None,
        refusals: Refusals,
    ) -> object:
        recorded = await self._recorded(journal, request, refusals)
        if recorded is not None:
            return self._replay(journal, recorded)
        while True:
            await self._until_taken(request, refusals)
            await journal.flush()
            await journal.check_lease()  # others may have paid for this output already
            request.start()
            self._under_way.append(request.identity)
            try:
                return await self._generate_and_record(journal, request, reuse, reserve)
            except errors.RateLimitedError as error:
                await self._refused(journal, request, error, refusals)
            except TooLittleError as error:
                await self._budget(journal).wait(error.need)
            finally:
                self._under_way.remove(request.identity)

    async def _recorded(
        self, journal: Journal, request: Request, refusals: Refusals
    ) -> Recorded | None:
        """Return the call that answers for this one; pass over those that have no answer."""
        keyed = request.key is not None
        while (recorded := journal.find(request.identity, keyed=keyed)) is not None:
            check_key_reuse(recorded, request.identity, request.key)
            if recorded.open and request.identity in self._under_way:
                return None  # one key, twice at the same time
            if recorded.open:
                why = request.draft(EntryStatus.RELEASED, encode_payload("its answer was lost"))
                await self._budget(journal).settle(recorded.entry, why, Usage())
            elif recorded.status is EntryStatus.RELEASED:
                value = journal.decode(recorded.last.outcome)
                if isinstance(value, bytes):
                    refused = decode_failure(value)
                    refusals.note(recorded.last.at, getattr(refused, "retry_at", None))
            else:
                return recorded
            journal.drop(recorded)
        return None

    def _replay(self, journal: Journal, recorded: Recorded) -> object:
        entry = recorded.last
        value = journal.decode(entry.outcome)
        journal.replayed += 1
        if entry.status is EntryStatus.FAILED:
            raise tag(decode_failure(value), recorded.entry.seq)
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

    async def _generate_and_record(
        self, journal: Journal, request: Request, reuse: Reuse | None, reserve: Reserve | None
    ) -> object:
        async def generate() -> tuple[object, Usage]:
            await self._reserve(journal, request, reserve)
            value = await request.send()
            return value, request.used(value)

        reused = False
        try:
            if reuse is not None:
                value, usage, reused = await self._shared(request, reuse, generate)
            else:
                value, usage = await generate()
        except _OURS:
            raise
        except FinishedAnyway as finished:
            usage = request.used(finished.result)
            await self._record(journal, request, request.answer(finished.result, usage), usage)
            raise asyncio.CancelledError from None
        except Exception as error:  # noqa: BLE001  raised as it will be replayed
            free = isinstance(error, request.tool.no_effect)
            raise_from(await self._failed(journal, request, error, free=free), error)
        usage = msgspec.structs.replace(usage, reused=reused)
        await self._record(journal, request, request.answer(value, usage), usage)
        journal.executed += 1
        return value

    async def _reserve(self, journal: Journal, request: Request, reserve: Reserve | None) -> None:
        """Under a budget: make the intent durable, and what it may take reserved."""
        budget = self._budget(journal)
        if not budget.limits:
            return
        if reserve is None:
            most = estimate(request.arguments)
        else:
            most = reserve(request.arguments) if callable(reserve) else reserve
        request.intent = await budget.reserve(request.draft(EntryStatus.STARTED), most)

    async def _record(
        self, journal: Journal, request: Request, draft: Draft, usage: Usage | None
    ) -> int:
        """Record an outcome and what it took (None: nothing); returns the call's first entry."""
        if request.intent is None:
            return (await journal.record(draft)).seq
        await self._budget(journal).settle(request.intent, draft, usage)
        return request.intent.seq

    async def _failed(
        self, journal: Journal, request: Request, error: BaseException, *, free: bool
    ) -> BaseException:
        shown = as_recorded(error)
        draft = request.draft(EntryStatus.FAILED, encode_failure(shown))
        return tag(shown, await self._record(journal, request, draft, None if free else Usage()))

    def _budget(self, journal: Journal) -> BudgetGate:
        if self._gate is None:
            self._gate = BudgetGate(journal, self._waits)
        return self._gate

    # -- a provider's quota ----------------------------------------------------------------------

    async def _until_taken(self, request: Request, refusals: Refusals) -> None:
        """Wait, holding no slot, until the provider takes calls again."""
        wake_at = refusals.retry_at
        if wake_at is not None and self._store.now() < wake_at:
            text = f"{request.name} waits until its provider takes calls again"
            need = QuotaNeed(wake_at, text)
            await self._waits.until(need, lambda: self._store.now() >= wake_at)

    async def _refused(
        self,
        journal: Journal,
        request: Request,
        error: errors.RateLimitedError,
        refusals: Refusals,
    ) -> None:
        """Record a refusal; one that isn't waited for is a failure like any other."""
        now = self._store.now()
        retry_at = refusals.allow(error, now)
        if retry_at is None:
            raise_from(await self._failed(journal, request, error, free=True), error)
        refusals.note(now, retry_at)
        shown = as_recorded(errors.RateLimitedError(str(error), retry_at=retry_at))
        draft = request.draft(EntryStatus.RELEASED, encode_failure(shown))
        await self._record(journal, request, draft, None)

    # -- across runs -----------------------------------------------------------------------------

    async def _share(self, request: Request, reuse: Reuse) -> object:
        async def generate() -> tuple[object, Usage]:
            value = await request.send()
            return value, request.used(value)

        return (await self._shared(request, reuse, generate))[0]

    async def _shared(
        self, request: Request, reuse: Reuse, generate: Generate
    ) -> tuple[object, Usage, bool]:
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
                return *await self._fill(reuse, key, holder, generate), False
            await self._await_holder(reuse.namespace, key)

    async def _fill(
        self, reuse: Reuse, key: bytes, holder: str, generate: Generate
    ) -> tuple[object, Usage]:
        try:
            value, usage = await generate()
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
        worker = self._store.read(verbs.get_worker(reserved.holder))
        gone = worker is not None and (
            worker.status == "gone" or self._store.engine.alive(worker) is False
        )
        return gone or self._store.now() >= reserved.since + RESERVATION

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

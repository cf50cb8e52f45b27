"""ToolLedger: every call of a tool or step, recorded so that a restart replays it.

What a crash does depends on the effect class:

- `read`: the call runs again.
- `idempotent`: the call runs again with the same idempotency key.
- `once`: its intent is durable before it starts. Started and not finished, it is in doubt: the
  tool's reconcile function settles it, or a person does. It is never just run again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, ParamSpec, TypeVar, overload

import msgspec

from holdfast import codec, errors
from holdfast.approvals import Approvals, Granted, Wanted
from holdfast.branches import AloneWaits, DivergenceNeed, Waits, current_scope
from holdfast.calls import Making
from holdfast.doubts import Doubts, Request
from holdfast.entries import (
    IDENTITY,
    Draft,
    Recorded,
    check_key_reuse,
    identity_of,
    request_payload,
    settling,
)
from holdfast.failures import as_recorded, decode_failure, encode_failure, raise_from, tag
from holdfast.journal import Journal
from holdfast.models import Entry
from holdfast.redaction import redact
from holdfast.states import ApprovalPolicy, Effect, EntryKind, EntryStatus
from holdfast.store.payload import Payload, encode_payload
from holdfast.tool import CurrentCall, FinishedAnyway, Tool, invoke, tool_of
from holdfast.under_way import may_run, watched

P = ParamSpec("P")
T = TypeVar("T")


class Call(msgspec.Struct):
    """One call on its way through the ledger."""

    tool: Tool[..., Any]
    kind: EntryKind
    effect: Effect
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: dict[str, Any]
    digest: bytes
    request: Payload | None
    scope: str
    key: str | None
    identity: bytes
    idempotency_key: Callable[[], str]
    timeout: float | None
    approve: bool
    """Whether a person must approve it."""
    decide_within: float | None
    """Seconds they have for that."""
    intent: Entry | None = None
    """Its entry that was durable before it was called, where it has one."""


class ToolLedger:
    """The tool calls of one work item.

    Args:
        journal: where they are recorded; it holds the lease.
        waits: what to do when a call can't go on; on its own, doubt raises `InDoubtError`, and a
            call that must be approved `ApprovalNeededError`.
    """

    def __init__(self, journal: Journal, waits: Waits | None = None) -> None:
        self._journal = journal
        self._waits = waits or AloneWaits()
        self._doubts = Doubts(journal, self._waits)
        self._approvals = Approvals(journal, self._waits)
        self._doubtful: dict[int, Tool[..., Any]] = {}
        self._under_way: set[bytes] = set()

    @overload
    async def execute_or_replay(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def execute_or_replay(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    async def execute_or_replay(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a tool, or return what the journal says it returned.

        A `once` call (a bare function is one) that a crash left in doubt is not made again.

        Raises:
            InDoubtError: (used alone) a person must resolve the call.
            EncodingError: an argument can't be kept; nothing was called.
            Exception: whatever the tool raised, the same at a replay.
        """
        return await self.call(function, args, kwargs)

    async def call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        kind: EntryKind = EntryKind.TOOL,
        effect: Effect | None = None,
        name: str | None = None,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  an option of the call
        approve: bool | float = False,
    ) -> Any:  # noqa: ANN401  what the function returns
        """Call a tool or step with options; see `execute_or_replay`.

        Raises:
            ApprovalRejectedError, ApprovalExpiredError: it needs a person's approval and has none.
        """
        default = Effect.IDEMPOTENT if kind is EntryKind.STEP else Effect.ONCE
        tool = tool_of(function, effect or default)
        if effect not in {None, tool.effect}:
            message = f"{tool.name} declares itself {tool.effect}; it can't be called as {effect}."
            raise errors.UsageError(message)
        call = self._describe(
            tool, args, dict(kwargs), kind=kind, name=name, key=key, timeout=timeout,
            approve=approve,
        )  # fmt: skip
        if call.effect is not Effect.ONCE and key is None:
            return await self._replay_or_make(call)
        with self._alone(call):
            return await self._replay_or_make(call)

    def _describe(
        self,
        tool: Tool[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        kind: EntryKind,
        name: str | None,
        key: str | None,
        timeout: float | None,
        approve: bool | float = False,
    ) -> Call:
        arguments = tool.bind(args, kwargs)
        scope, name = current_scope.get(), name or tool.name
        data, digest = codec.encode_with_digest(arguments)
        identity = identity_of(scope, kind, name, digest, key)
        idempotency_key = self._journal.next_idempotency_key(identity, keyed=key is not None)
        effect = tool.effect_of(arguments)
        once = effect is Effect.ONCE
        asked = approve or tool.approve
        interactive = once and self._journal.task.approvals is ApprovalPolicy.INTERACTIVE
        return Call(
            tool=tool,
            kind=kind,
            effect=effect,
            name=name,
            args=args,
            kwargs=kwargs,
            arguments=arguments,
            digest=digest,
            # What a `once` call keeps names its worker too, and is made when it starts.
            request=None if once else request_payload(data, whole=key is not None),
            scope=scope,
            key=key,
            identity=identity,
            idempotency_key=idempotency_key,
            timeout=tool.timeout if timeout is None else timeout,
            approve=bool(asked) or interactive,
            decide_within=None if isinstance(asked, bool) else asked,
        )

    @contextmanager
    def _alone(self, call: Call) -> Generator[None]:
        """Refuse a call while one is under way that can't be told apart from it."""
        named = call.identity[:IDENTITY]
        if named in self._under_way:
            same = "arguments" if call.key is None else f"key {call.key!r}"
            message = (
                f"{call.name} was called with the same {same} while such a call is under way. "
                f"Nothing was called. Give each a key of its own: ctx.options(key=…).tool(…)."
            )
            raise errors.ConcurrentCallError(message)
        self._under_way.add(named)
        try:
            yield
        finally:
            self._under_way.discard(named)

    # -- a recorded call -------------------------------------------------------------------------

    async def _replay_or_make(self, call: Call) -> object:
        while True:
            recorded = self._journal.find(call.identity, keyed=call.key is not None)
            if recorded is None:
                return await self._make(call)
            check_key_reuse(recorded, call.identity, call.key)
            if not recorded.open:
                self._journal.replayed += 1
                return self._give(recorded.entry, recorded.last)
            if recorded.entry.effect is not Effect.ONCE:  # approved, and interrupted: made again
                call.intent = recorded.entry
                return await self._make(call)
            self._doubtful[recorded.entry.seq] = call.tool
            settled = await self._doubts.settle(call.tool, recorded)
            if settled is not None:
                return self._give(recorded.entry, settled)

    def _give(self, first: Entry, outcome: Entry) -> object:
        value = self._journal.decode(outcome.outcome)
        if outcome.status is not EntryStatus.FAILED:
            return value
        error = decode_failure(value)
        had_effect = outcome.effect is Effect.ONCE and outcome.keyed
        raise error if had_effect else tag(error, first.seq)

    # -- a new call ------------------------------------------------------------------------------

    async def _make(self, call: Call) -> object:
        if call.effect is Effect.ONCE:
            doubtful = await self._let_through(call)
            return await self._start(call) if doubtful is None else self._give(doubtful, doubtful)
        if call.effect is not Effect.READ:
            await self._journal.flush()
            await self._journal.check_lease()  # others may have made this call already
        if call.approve and call.intent is None:
            granted = await self._granted(call)
            await self._journal.check_lease()
            call.intent = await self._approvals.use(granted, _intent_of(call))
        started = time.perf_counter_ns()
        try:
            with _making(call) as current:
                result = await _invoke(call)
        except (errors.LeaseError, errors.StoreError):
            raise  # failures of ours: they end the attempt
        except Exception as error:  # noqa: BLE001  raised as it will be replayed
            await self._raise(call, error, started)
        draft = _draft(call, EntryStatus.DONE, encode_payload(result), started)
        draft.keyed = current.key_used
        await self._record(call, draft)
        self._journal.executed += 1
        return result

    async def _raise(self, call: Call, error: Exception, started: int) -> NoReturn:
        shown = as_recorded(error)
        draft = _draft(call, EntryStatus.FAILED, encode_failure(shown), started)
        seq = await self._record(call, draft)
        raise_from(tag(shown, call.intent.seq if call.intent else seq), error)

    async def _record(self, call: Call, draft: Draft) -> int:
        """Record an outcome, a `read` behind; returns the number of its entry."""
        if call.effect is Effect.READ:
            return self._journal.record_behind(draft)
        return (await self._journal.record(draft)).seq

    async def _granted(self, call: Call) -> Granted:
        """Wait until a person approves a call. Its intent is to use the approval up."""
        return await self._approvals.for_call(
            Wanted(
                call.name,
                call.scope,
                identity_of(call.scope, EntryKind.APPROVAL, call.name, call.digest, call.key),
                call.digest,
                encode_payload(call.arguments),
                seconds=call.decide_within,
                key=call.key,
            )
        )

    # -- `once` ----------------------------------------------------------------------------------

    async def _let_through(self, call: Call) -> Entry | None:
        """Hold a new call back while recorded ones of its tool were not asked for.

        Otherwise an edit of the arguments of a call that was made would silently make it again.
        Returns None once it may be made, and otherwise how a person resolved it.
        """
        if call.key is not None or self._journal.take_allowance(call.identity):
            return None

        def unasked() -> list[Recorded]:
            return [
                other
                for other in self._journal.unasked(Effect.ONCE, call.name)
                if other.status is not EntryStatus.FAILED or other.last.keyed
            ]

        if not unasked() or await self._waits.until(
            DivergenceNeed(call.name), lambda: not unasked()
        ):
            return None
        made = ", ".join(str(other.entry.seq) for other in unasked())
        text = (
            f"{call.name} is called with arguments that no recorded call has, while recorded calls "
            f"of it (entry {made}) were not made again. If the code was edited and this is a new "
            f"call, let it through with --new; if it is the recorded one, settle it with --done."
        )
        entry = await self._journal.record(self._intent(call, EntryStatus.DOUBT, text))
        return await self._doubts.await_person(Recorded(entry, None), text)

    async def _start(self, call: Call) -> object:
        await self._journal.check_lease()
        granted = await self._granted(call) if call.approve else None
        draft = self._intent(call, EntryStatus.STARTED, observed=await self._observe(call))
        if granted is None:
            intent = await self._journal.record(draft)
        else:
            await self._journal.check_lease()
            intent = await self._approvals.use(granted, draft)
        await self._journal.check_lease()
        started, making = time.perf_counter_ns(), _making(call)
        try:
            with making:
                owner = self._journal.lease.owner
                result = await _invoke(call, watched(call.tool, call.idempotency_key(), owner))
        except FinishedAnyway as finished:
            await self._finish(intent, finished.result, making.call, started)
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            self._doubtful[intent.seq] = call.tool
            with suppress(errors.HoldfastError):  # then the intent alone says that it's in doubt
                await self._doubts.note(intent, "it was interrupted before it returned")
            raise
        except call.tool.no_effect as error:
            shown = as_recorded(error)
            await self._fail(intent, shown, started, had_effect=False)
            raise_from(tag(shown, intent.seq), error)
        except Exception as error:  # noqa: BLE001  whatever it is, the outcome isn't known
            return await self._doubt(call, intent, error)
        await self._finish(intent, result, making.call, started)
        return result

    async def _observe(self, call: Call) -> object:
        """Look at the world as it is before a call; where that fails, the call has failed."""
        if call.tool.observe is None:
            return None
        started, asked = time.perf_counter_ns(), (dict(call.arguments),)
        try:
            return await invoke(call.tool.observe, asked, {}, call.timeout, call.name)
        except Exception as error:  # noqa: BLE001  raised as it will be replayed
            await self._raise(call, error, started)

    async def _doubt(self, call: Call, intent: Entry, error: Exception) -> object:
        text = f"it raised {type(error).__name__}: {error}"
        ended = not may_run(call.idempotency_key())
        entry = await self._doubts.note(intent, text, ended=ended, error=error)
        self._doubtful[intent.seq] = call.tool
        settled = await self._doubts.settle(call.tool, Recorded(intent, entry))
        # What raised has its failure noted, so it is never released to be made again here.
        return self._give(intent, settled or entry)

    async def _finish(
        self, intent: Entry, result: object, current: CurrentCall, started: int
    ) -> None:
        try:
            payload = encode_payload(result)
        except errors.InputError as error:
            # It happened and must not be repeated; what it returned can't be kept.
            shown = as_recorded(error)
            await self._fail(intent, shown, started, had_effect=True)
            raise_from(shown, error)
        draft = settling(intent, EntryStatus.DONE, payload)
        draft.micros = _micros_since(started)
        draft.keyed = current.key_used
        await self._journal.record(draft)
        self._journal.executed += 1

    async def _fail(
        self, intent: Entry, shown: BaseException, started: int, *, had_effect: bool
    ) -> None:
        draft = settling(intent, EntryStatus.FAILED, encode_failure(shown))
        draft.micros = _micros_since(started)
        draft.keyed = had_effect
        await self._journal.record(draft)

    def _intent(
        self,
        call: Call,
        status: EntryStatus,
        text: str | None = None,
        *,
        observed: object = None,
    ) -> Draft:
        owner = self._journal.lease.owner
        request = Request(call.arguments, call.idempotency_key(), owner, observed)
        return Draft(
            call.kind,
            call.name,
            call.identity,
            status,
            scope=call.scope,
            effect=Effect.ONCE,
            request=encode_payload(request),
            outcome=None if text is None else encode_payload(redact(text)),
        )

    async def settle_left(self) -> None:
        """Settle what a handler left in doubt, before its result counts.

        It may have stopped waiting for a call, or no longer make one that was started.
        """
        for recorded in self._journal.in_doubt():
            await self._doubts.settle(self._doubtful.get(recorded.entry.seq), recorded)


def _making(call: Call) -> Making:
    return Making(call.idempotency_key, call.scope, call.name, call.identity)


def _invoke(call: Call, function: Callable[..., Any] | None = None) -> Awaitable[object]:
    function = function or call.tool.function
    return invoke(function, call.args, call.kwargs, call.timeout, call.name)


def _intent_of(call: Call) -> Draft:
    """Return the intent of a call that isn't `once`: only one that was approved has it."""
    return Draft(
        call.kind,
        call.name,
        call.identity,
        EntryStatus.STARTED,
        scope=call.scope,
        effect=call.effect,
        request=call.request,
    )


def _draft(call: Call, status: EntryStatus, outcome: Payload, started: int) -> Draft:
    return Draft(
        call.kind,
        call.name,
        call.identity,
        status,
        scope=call.scope,
        effect=call.effect,
        ref=None if call.intent is None else call.intent.seq,
        micros=_micros_since(started),
        request=None if call.intent is not None else call.request,
        outcome=outcome,
    )


def _micros_since(started: int) -> int:
    return (time.perf_counter_ns() - started) // 1000

"""What becomes of a `once` call whose outcome isn't known: reconciled, or resolved by a person.

*It did not happen* is believed only when the process that made the call can't make it happen any
more, and `settle_after` seconds have passed since: a request may still be on its way.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import msgspec

from holdfast import codec, errors
from holdfast.branches import DoubtNeed, TimerNeed, Waits
from holdfast.entries import Draft, Recorded, settling
from holdfast.failures import as_recorded, encode_failure
from holdfast.journal import Journal
from holdfast.liveness import is_gone, is_ours, next_look
from holdfast.models import Entry
from holdfast.redaction import redact
from holdfast.states import EntryStatus
from holdfast.store.payload import Payload, encode_payload
from holdfast.tool import Done, NotDone, Reconciled, Tool, Unknown, invoke
from holdfast.under_way import may_run

log = logging.getLogger("holdfast")


class Request(msgspec.Struct, frozen=True):
    """What the intent of a `once` call keeps: enough to reconcile it in another process."""

    arguments: dict[str, Any]
    idempotency_key: str
    worker: str
    observed: Any = None


codec.register_type(Request, name="holdfast:Request")


class Doubts:
    """Settles the `once` calls of one work item that are in doubt.

    Args:
        journal: where they are recorded; it holds the lease.
        waits: what to do until a person has resolved one.
    """

    def __init__(self, journal: Journal, waits: Waits) -> None:
        self._journal = journal
        self._waits = waits

    async def note(
        self, intent: Entry, text: str, *, ended: bool = False, error: Exception | None = None
    ) -> Entry:
        """Record that the outcome of a call isn't known.

        Args:
            intent: the call.
            text: why.
            ended: whether the call is known to be over.
            error: what it raised: its failure, should it turn out to have had no effect.
        """
        draft = settling(intent, EntryStatus.DOUBT, encode_payload(redact(text)))
        draft.keyed = ended
        draft.request = None if error is None else encode_failure(as_recorded(error))
        return await self._keep(draft)

    async def settle(self, tool: Tool[..., Any] | None, recorded: Recorded) -> Entry | None:
        """Find out what became of a call: its outcome, or None when it may be made again.

        Args:
            tool: what was called; None where the code doesn't call it any more.
            recorded: the call.

        Raises:
            InDoubtError: a person must say, and there is nobody to wait for one.
        """
        reason = self._reason(recorded)
        if tool is not None and tool.reconcile and recorded.entry.status is EntryStatus.STARTED:
            answer, reason = await self._reconcile(tool, recorded)
            if isinstance(answer, Done):
                outcome = encode_payload(answer.result)
                return await self._record(recorded, EntryStatus.DONE, outcome)
            if isinstance(answer, NotDone):
                return await self._release(recorded, reason)
        if recorded.status is EntryStatus.STARTED:
            recorded.outcome = await self.note(recorded.entry, reason)
        return await self.await_person(recorded, reason)

    async def await_person(self, recorded: Recorded, reason: str) -> Entry | None:
        """Wait until a person has resolved a call; the attempt ends meanwhile."""
        item, name = self._journal.item, recorded.entry.name
        entry = f"{item.task_id}:{item.item_id}:{recorded.entry.seq}"
        text = f"{name} (entry {entry}): {reason}"
        if await self._waits.until(DoubtNeed(entry, text), lambda: not recorded.open):
            return recorded.last
        message = (
            f"{text}. It was not called again. Find out whether it happened, then "
            f"`holdfast resolve {entry}` with --done JSON, --retry or --fail."
        )
        raise errors.InDoubtError(message, entry=entry)

    # -- asking the world ------------------------------------------------------------------------

    async def _reconcile(
        self, tool: Tool[..., Any], recorded: Recorded
    ) -> tuple[Reconciled | None, str]:
        request = cast("Request", self._journal.decode(recorded.entry.request))
        while True:
            # Before it is asked: what happens after the answer isn't in it.
            ended = self._has_ended(recorded, request)
            settled = ended and self._is_settled(tool, recorded)
            answer, why = await _ask(tool, request)
            if settled or not isinstance(answer, NotDone):
                return answer, why
            if ended:
                await self._let_settle(tool, recorded)
            elif not await self._look_later(recorded, request):
                return None, (
                    f"it has not happened so far, but {request.worker}, which began it, may still "
                    f"run it"
                )

    def _has_ended(self, recorded: Recorded, request: Request) -> bool:
        return (
            _is_noted(recorded)
            or is_over_here(request)
            or is_gone(self._journal.store, request.worker)
        )

    async def _look_later(self, recorded: Recorded, request: Request) -> bool:
        """Wait a little for what started a call to end; False when that can't be hoped for."""
        store = self._journal.store
        look = next_look(store, request.worker)
        if look is not None:
            await self._waits.until(
                TimerNeed(look), lambda: store.now() >= look or self._has_ended(recorded, request)
            )
        return look is not None

    def _is_settled(self, tool: Tool[..., Any], recorded: Recorded) -> bool:
        if not _is_noted(recorded):
            return tool.settle_after <= 0
        # From when it was known to be over: it may have run for long before.
        return self._journal.store.now() >= recorded.last.at + tool.settle_after

    async def _let_settle(self, tool: Tool[..., Any], recorded: Recorded) -> None:
        """Wait until nothing that a call has sent can still be on its way."""
        if not _is_noted(recorded):
            text = "its process ended before it returned"
            recorded.outcome = await self._keep(over(recorded, text))
        await self._waits.until(
            TimerNeed(recorded.last.at + tool.settle_after),
            lambda: self._is_settled(tool, recorded),
        )

    async def _release(self, recorded: Recorded, why: str) -> Entry | None:
        noted = recorded.outcome
        if noted is not None and noted.request is not None:  # it failed, and had no effect
            return await self._record(recorded, EntryStatus.FAILED, Payload(noted.request))
        await self._record(recorded, EntryStatus.RELEASED, encode_payload(why))
        return None

    async def _keep(self, draft: Draft) -> Entry:
        """Record it even where the call is canceled meanwhile."""
        return await asyncio.shield(asyncio.ensure_future(self._journal.record(draft)))

    async def _record(self, recorded: Recorded, status: EntryStatus, outcome: Payload) -> Entry:
        recorded.outcome = await self._journal.record(settling(recorded.entry, status, outcome))
        return recorded.outcome

    def _reason(self, recorded: Recorded) -> str:
        if recorded.status is EntryStatus.DOUBT:
            return str(self._journal.decode(recorded.last.outcome))
        return "its process ended before it returned"


def is_over_here(request: Request) -> bool:
    """Say whether this process began a call, and can't be inside it any more."""
    return is_ours(request.worker) and not may_run(request.idempotency_key)


def over(recorded: Recorded, text: str) -> Draft:
    """Return what says that a call is known to be over, but not its outcome."""
    draft = settling(recorded.entry, EntryStatus.DOUBT, encode_payload(text))
    draft.keyed = True
    if recorded.outcome is not None and recorded.outcome.request is not None:
        draft.request = Payload(recorded.outcome.request)  # the failure it has ended with
    return draft


def _is_noted(recorded: Recorded) -> bool:
    return recorded.status is EntryStatus.DOUBT and recorded.last.keyed


async def _ask(tool: Tool[..., Any], request: Request) -> tuple[Reconciled | None, str]:
    """Return what the tool's reconcile function says, and that in words."""
    assert tool.reconcile is not None  # noqa: S101  asked only where there is one
    args: tuple[Any, ...] = (dict(request.arguments), request.idempotency_key)
    if tool.observe is not None:
        args = (*args, request.observed)
    try:
        answer: object = await invoke(
            tool.reconcile, args, {}, tool.timeout, f"reconcile of {tool.name}"
        )
    except Exception as error:  # noqa: BLE001  a reconcile that fails knows nothing
        text = f"reconcile raised {type(error).__name__}: {redact(str(error))}"
        log.warning("%s: %s", tool.name, text)
        return None, text
    match answer:
        case Done():
            return answer, "reconciled: it happened"
        case NotDone():
            return answer, "reconciled: it did not happen"
        case Unknown():
            return None, "reconcile could not tell whether it happened"
        case _:
            return None, f"reconcile returned {answer!r:.80}, not Done, NotDone or Unknown"

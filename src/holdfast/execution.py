"""One attempt at a work item, from its claim to its end: verify, execute, finish."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import msgspec

from holdfast import codec, errors
from holdfast.approvals import Wanted
from holdfast.attempt import Attempt
from holdfast.branches import ApprovalNeed
from holdfast.entries import identity_of, marker
from holdfast.evidence import WorkspaceRef
from holdfast.handing_back import hand_back
from holdfast.handlers import Handlers
from holdfast.invocation import Invocation
from holdfast.journal import Draft, LeaseCheck
from holdfast.models import PLAN, Claimed, ItemPolicy, WorkItem
from holdfast.outcomes import (
    Outcome,
    Raised,
    Returned,
    Stopped,
    Suspended,
    describe,
    parked_for,
    retry_markers,
)
from holdfast.planning import describe_plan, plan_items
from holdfast.proof import prove
from holdfast.rechecks import Recheck, recheck_claims, workspace_of
from holdfast.redaction import redact
from holdfast.reopening import doubt_about, reopen
from holdfast.states import (
    ApprovalPolicy,
    Effect,
    EntryKind,
    EntryStatus,
    ItemStatus,
    MarkerKind,
)
from holdfast.store import Store, verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import Append, NewItem, Parked
from holdfast.verifiers import EvidenceVerifier

WORKSPACE_PAUSE = 5.0
"""Seconds before an item is offered again that needs a workspace this machine doesn't have."""

OUTAGE_PAUSE = 1.0
"""Seconds before an item is offered again whose attempt the database ended."""

log = logging.getLogger("holdfast")


class Execution:
    """Executes one claimed work item.

    Args:
        store: the database.
        claimed: the lease, the item and the task.
        handlers: what this program can run.
        verifier: what checks evidence.
        check_lease: raises `LeaseLostError` when the local lease deadline has passed.
    """

    def __init__(
        self,
        store: Store,
        claimed: Claimed,
        handlers: Handlers,
        verifier: EvidenceVerifier,
        check_lease: LeaseCheck,
    ) -> None:
        self.claimed = claimed
        self._store = store
        self._handlers = handlers
        self._verifier = verifier
        self._attempt = Attempt(store, claimed, handlers, verifier, check_lease)
        self._journal = self._attempt.journal
        self._invocation = Invocation(self._attempt)
        self._policy = msgspec.msgpack.decode(claimed.item.policy, type=ItemPolicy)
        self._name = f"{claimed.item.task_id}/{claimed.item.item_id}"

    def stop(self, why: str) -> None:
        """Stop the attempt: `canceled`, `drained` (handed back) or `lost`."""
        self._invocation.stop(why)

    async def run(self) -> None:
        """Execute the item and record how it ended.

        Whatever happens, the item's row says what was reached; a crash at any point leaves it to
        another worker.

        Raises:
            StoreCorruptError: the database is damaged, so that trying again can't help.
        """
        try:
            if await self._evidence_holds():
                await self._end(await self._invocation.run())
        except errors.LeaseLostError as lost:
            log.warning("%s", lost)
        except errors.StoreCorruptError:
            await self._hand_back()
            raise
        except errors.StoreError as failure:
            log.warning("The attempt at %s ends: %s", self._name, redact(str(failure)))
            await self._hand_back()
        except Exception as error:  # whatever it was, the item must not stay leased
            log.exception("The attempt at %s broke", self._name)
            await self._fail_where_it_stands(error)

    # -- before: does what it builds on still hold? ----------------------------------------------

    async def _evidence_holds(self) -> bool:
        """Check what this item builds on; False when the attempt is over already."""
        item = self.claimed.item
        found = Recheck(0)
        if self.claimed.after_claims:
            before = self._store.read(verbs.list_predecessors(item.task_id, item.item_id))
            found = await self._recheck([each.item_id for each in before])
        if found.failed:
            if not await reopen(
                self._store, item.task_id, found.failed_items, found.explain(), self._journal.lease
            ):
                await self._park(Parked(ItemStatus.READY))  # they keep moving: look again
            return False
        if not found.unavailable and item.seq:  # it was interrupted: what it has proven itself
            found = await self._recheck([item.item_id])
            if found.failed:
                await self._redo(found)
        if found.unavailable:
            await self._wait_for_workspace(found.explain())
        return not found.unavailable

    async def _recheck(self, item_ids: Sequence[str]) -> Recheck:
        if not item_ids:
            return Recheck(0)
        return await recheck_claims(
            self._store, self._verifier, self._workspace, self.claimed.item.task_id, item_ids
        )

    def _workspace(self) -> WorkspaceRef:
        return workspace_of(self.claimed.task.workspace)

    async def _wait_for_workspace(self, reason: str) -> None:
        text = f"this machine doesn't have its workspace: {redact(reason)}"
        log.warning("%s waits: %s", self._name, text)
        await self._park(
            Parked(
                ItemStatus.WAITING,
                wait='{"kind":"workspace"}',
                wake_at=self._store.now() + WORKSPACE_PAUSE,
                error=text,
            )
        )

    async def _redo(self, found: Recheck) -> None:
        """The world drifted under an interrupted item: do again what may be done again."""
        item, now = self.claimed.item, self._store.now()
        (last,) = self._store.read(verbs.read_journal(item.task_id, item.item_id, item.seq - 1))
        if last.kind is EntryKind.MARKER and last.name in {MarkerKind.REDO, MarkerKind.REGENERATE}:
            return  # nothing was done since it was to be done again
        append = self._journal.extend((marker(MarkerKind.REDO),))
        await self._journal.write(verbs.append_entries(self._journal.lease, append, now))
        reason = redact(found.explain())
        await self._store.commit(
            verbs.add_event(item.task_id, item.item_id, "item_redone", {"reason": reason}, now)
        )

    # -- after -----------------------------------------------------------------------------------

    async def _end(self, outcome: Outcome) -> None:
        await self._count_savings()
        match outcome:
            case Returned(value):
                await self._returned(value)
            case Raised(error):
                await self._raised(error)
            case Suspended(needs):
                await self._park(parked_for(needs))
            case Stopped("canceled"):
                append = self._journal.extend(())
                await self._journal.write(
                    verbs.end_canceled(self._journal.lease, append, self._store.now())
                )
            case Stopped("drained"):
                await self._park(Parked(ItemStatus.READY))
            case Stopped():
                pass

    async def _count_savings(self) -> None:
        if self._journal.savings:
            await self._store.commit(
                verbs.add_counts(self._journal.lease.owner, dict(self._journal.savings))
            )

    async def _park(self, parked: Parked, drafts: Sequence[Draft] = ()) -> None:
        append = self._journal.extend(drafts)
        await self._journal.write(
            verbs.park_work_item(self._journal.lease, append, parked, self._store.now())
        )

    # -- it returned -----------------------------------------------------------------------------

    async def _returned(self, value: object) -> None:
        try:
            if self._handlers.planner_of(self.claimed.item.handler) is not None:
                await self._commit_plan(value)
            else:
                await self._finish(value)
        except (errors.LeaseLostError, errors.StoreError):
            raise
        except errors.HoldfastError as error:
            await self._raised(error)

    async def _commit_plan(self, value: object) -> None:
        if not isinstance(value, Sequence) or isinstance(value, str):
            message = f"A planner returns a list of WorkItems; it returned {value!r:.80}."
            raise errors.PlanError(message)
        plan = cast("Sequence[WorkItem]", value)
        items, last = plan_items(self._handlers, self.claimed.task, plan)
        granted = None
        if self.claimed.task.approvals is not ApprovalPolicy.AUTONOMOUS:
            granted = await self._attempt.approvals.look(_plan_wanted(items))
            if isinstance(granted, ApprovalNeed):
                await self._park(parked_for((granted,)))
                return
        append = self._journal.extend(() if granted is None else (granted.used,))
        now, seq = self._store.now(), None if granted is None else granted.seq
        await self._journal.write(
            verbs.commit_plan(self._journal.lease, append, items, last, now, seq)
        )

    async def _finish(self, value: object) -> None:
        item = self.claimed.item
        handler = self._handlers.get(item.handler)
        required = self.claimed.task.require_evidence or (
            handler.require_evidence and handler.name != self.claimed.task.name
        )
        finish = await prove(self._attempt, value, required=required and item.item_id != PLAN)
        await self._report_unasked()
        finish = msgspec.structs.replace(
            finish, executed=self._journal.executed, replayed=self._journal.replayed
        )
        append = self._journal.extend(())
        await self._journal.write(
            verbs.finish_work_item(self._journal.lease, append, finish, self._store.now())
        )

    async def _report_unasked(self) -> None:
        """Tell the timeline of recorded effects that the handler no longer asked for."""
        entries = [
            f"{call.entry.name} (entry {call.entry.seq})"
            for effect in (Effect.ONCE, Effect.IDEMPOTENT)
            for call in self._journal.unasked(effect)
            if call.status is EntryStatus.DONE
        ]
        if entries:
            item, data = self.claimed.item, dict[str, object](entries=entries)
            await self._store.commit(
                verbs.add_event(
                    item.task_id, item.item_id, "effects_not_asked_for", data, self._store.now()
                )
            )

    # -- it raised -------------------------------------------------------------------------------

    async def _raised(self, error: BaseException) -> None:
        match error:
            case errors.LeaseLostError() | errors.StoreError():
                raise error
            case errors.EvidenceRejectedError() if self.claimed.item.generation:
                await self._still_rejected(describe(error))
            case errors.EvidenceUnavailableError():
                await self._wait_for_workspace(str(error))
            case errors.ChainBrokenError():
                await self._park(Parked(ItemStatus.QUARANTINED, error=str(error)))
            case _:
                await self._fail(error, self._journal.extend(retry_markers(error)))

    async def _fail(self, error: BaseException, append: Append) -> None:
        """Record a failed attempt: another one follows, unless it can't help or it was the last."""
        failures = self.claimed.item.failures + 1
        retry = self._policy.retry
        hopeless = isinstance(error, errors.InputError | errors.ApprovalError | errors.GaveUpError)
        final = hopeless or failures >= retry.max_attempts
        now = self._store.now()
        retry_at = None if final else now + retry.pause(failures)
        await self._journal.write(
            verbs.fail_attempt(self._journal.lease, append, describe(error), retry_at, now)
        )

    async def _still_rejected(self, reason: str) -> None:
        """A reopened item was done again, and its evidence still fails."""
        kept = self._journal.kept_effects()
        if kept:
            text = f"recorded as done, but the evidence doesn't hold: {reason}"
            drafts = [
                doubt_about(call.entry.seq, call.entry.name, call.entry.identity, text)
                for call in kept
            ]
            await self._park(Parked(ItemStatus.IN_DOUBT, error=reason), drafts)
        elif self._journal.regenerated:
            error = f"done again twice, and still: {reason}"
            await self._park(Parked(ItemStatus.QUARANTINED, error=error))
        else:
            await self._park(Parked(ItemStatus.READY), [marker(MarkerKind.REGENERATE)])

    # -- it broke --------------------------------------------------------------------------------

    async def _hand_back(self) -> None:
        """The database failed: give the lease back once it answers again.

        The chain in memory may be ahead of the stored one, so this names no position. Where it
        doesn't answer yet, the worker hands back what nobody executes.
        """
        try:
            await hand_back(self._store, self._journal.lease, OUTAGE_PAUSE)
        except (errors.LeaseLostError, errors.StoreError) as failure:
            log.debug("The lease on %s can't be handed back yet: %s", self._name, failure)

    async def _fail_where_it_stands(self, error: Exception) -> None:
        item = self.claimed.item
        try:
            stored = self._store.read(verbs.get_item(item.task_id, item.item_id))
            await self._fail(error, Append(item.seq if stored is None else stored.seq))
        except (errors.LeaseLostError, errors.StoreError):
            await self._hand_back()


def _plan_wanted(items: Sequence[NewItem]) -> Wanted:
    """Return the consent that a plan needs: for exactly this one."""
    plan = describe_plan(items)
    digest = codec.digest(plan)
    identity = identity_of("", EntryKind.APPROVAL, f"{PLAN}:", digest, None)
    text = f"a plan of {len(items)} item{'s' * (len(items) != 1)}"
    request = encode_payload(plan)
    return Wanted(PLAN, "", identity, digest, request, text, supersedes=True)

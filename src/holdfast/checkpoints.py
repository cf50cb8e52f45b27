"""CheckpointManager: state that may be resumed from while its evidence holds.

A checkpoint is committed only with evidence that verifies (or without any: then it is recorded, not
proven), in one transaction with its journal entry. Before anything resumes from it, the evidence is
checked again; one whose evidence fails is passed over for the one before, and says why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TypeVar, cast

import msgspec

from holdfast import codec, errors
from holdfast.branches import current_scope
from holdfast.entries import Draft, identity_of
from holdfast.evidence import Evidence, EvidencePack, PackVerdict, WorkspaceRef
from holdfast.journal import Journal
from holdfast.models import Checkpoint, Claim
from holdfast.rechecks import VERIFIED, claim_of
from holdfast.resume_point import (
    RECORDED,
    ResumePoint,
    find_resume_point,
    newest_number,
)
from holdfast.states import CheckpointType, EntryKind, EntryStatus
from holdfast.store import verbs
from holdfast.store.payload import make_payload
from holdfast.verifiers import EvidenceVerifier
from holdfast.workspace import Workspace

T = TypeVar("T")

_NOWHERE = WorkspaceRef("", "")


class CheckpointManager:
    """The checkpoints of one work item.

    Args:
        journal: the item's journal; it holds the lease.
        workspace: where relative paths of evidence start; None when the task has none.
        verifier: what checks evidence.
    """

    def __init__(
        self,
        journal: Journal,
        workspace: Workspace | WorkspaceRef | str | None = None,
        verifier: EvidenceVerifier | None = None,
    ) -> None:
        self._journal = journal
        self._store = journal.store
        self._verifier = verifier or EvidenceVerifier()
        self._place = workspace
        self._number: int | None = None
        self._restored = 0  # number of the checkpoint this attempt resumed from
        self._first: int | None = None  # number of the first one it passed or took since

    @property
    def workspace(self) -> WorkspaceRef | None:
        """The workspace of the evidence; its marker is made when it is first needed."""
        if isinstance(self._place, str):
            self._place = Workspace.at(self._place)
        return self._place.ref if isinstance(self._place, Workspace) else self._place

    # -- committing ------------------------------------------------------------------------------

    async def commit(
        self,
        state: object,
        evidence: Evidence | Iterable[Evidence] | EvidencePack | None = None,
        *,
        type: CheckpointType | str = CheckpointType.MANUAL,  # noqa: A002  the word of the field
    ) -> Checkpoint:
        """Verify the evidence, then record state and verdicts; durable when this returns.

        A crash before that leaves the previous checkpoint as it was. Handlers that run from the
        top pass a checkpoint they already took: it is returned, not taken again.

        Args:
            state: what `restore` gives back, any data.
            evidence: what must hold now, and before anything resumes from here.
            type: why it is taken.

        Raises:
            EvidenceRejectedError: the evidence doesn't hold; nothing was recorded.
            EvidenceUnavailableError: this machine doesn't have the workspace.
            EvidenceInputError: a claim that can't be checked safely.
            EncodingError: the state can't be kept as data.
            UsageError: there is no such type of checkpoint.
        """
        data = codec.encode(state)
        kind = _type_of(type)
        identity = identity_of(
            current_scope.get(), EntryKind.CHECKPOINT, kind, hashlib.sha256(data).digest(), None
        )
        known = self._journal.find(identity)
        if known is not None:
            return self._pass(cast("int", self._journal.decode(known.entry.outcome)))
        pack = EvidencePack.of(evidence)
        verdict = await self.check(pack)
        return await self._record(kind, data, identity, pack, verdict)

    async def check(self, pack: EvidencePack) -> PackVerdict | None:
        """Check a pack that is to be committed; None when it claims nothing.

        Raises:
            EvidenceRejectedError, EvidenceUnavailableError: see `commit`.
        """
        if not pack.items:
            return None
        verdict = await self._verifier.verify(self._bound(pack), self._place_of(pack))
        if verdict.unavailable:
            message = (
                f"This machine doesn't have the workspace of the evidence: {verdict.explain()}"
            )
            raise errors.EvidenceUnavailableError(message, workspace=str(self.workspace))
        if not verdict.verified:
            message = f"The evidence doesn't hold, so nothing was committed:\n{verdict.explain()}"
            raise errors.EvidenceRejectedError(message, verdicts=list(verdict.verdicts))
        return verdict

    async def _record(
        self,
        kind: CheckpointType,
        data: bytes,
        identity: bytes,
        pack: EvidencePack,
        verdict: PackVerdict | None,
    ) -> Checkpoint:
        number = self.next_number()
        draft = Draft(
            EntryKind.CHECKPOINT,
            kind,
            identity,
            EntryStatus.DONE,
            scope=current_scope.get(),
            outcome=make_payload(codec.encode(number)),
        )
        append = self._journal.extend((draft,))
        state = make_payload(data)
        checkpoint = self.build(number, kind, state.column, pack, verdict)
        await self._journal.write(
            verbs.commit_checkpoint(
                self._journal.lease, append, checkpoint, self.claims(checkpoint, pack, verdict),
                state, self._store.now(),
            )
        )  # fmt: skip
        self._number = number
        self._note(number)
        return checkpoint

    def build(
        self,
        number: int,
        kind: CheckpointType,
        state: bytes,
        pack: EvidencePack,
        verdict: PackVerdict | None,
    ) -> Checkpoint:
        """Return the record of a checkpoint at the journal's present end."""
        item, now = self._journal.item, self._store.now()
        return Checkpoint(
            task_id=item.task_id,
            item_id=item.item_id,
            number=number,
            type=kind,
            state=state,
            pack=msgspec.msgpack.encode(self._bound(pack)),
            verdicts=msgspec.msgpack.encode(() if verdict is None else verdict.verdicts),
            status=RECORDED if verdict is None else VERIFIED,
            journal_seq=self._journal.seq,
            anchor=self._journal.head,
            generation=item.generation,
            created_at=now,
            verified_at=None if verdict is None else now,
            seconds=0.0 if verdict is None else verdict.seconds,
        )

    def claims(
        self, checkpoint: Checkpoint, pack: EvidencePack, verdict: PackVerdict | None
    ) -> tuple[Claim, ...]:
        """Return what is to be checked again from now on, superseding earlier claims."""
        if verdict is None:
            return ()
        return tuple(
            claim_of(checkpoint, claim, found)
            for claim, found in zip(self._bound(pack).items, verdict.verdicts, strict=True)
            if found.holds
        )

    def next_number(self) -> int:
        """Return the number the next checkpoint of this item has."""
        if self._number is None:
            self._number = newest_number(self._store, self._journal.item)
        return self._number + 1

    def made(self) -> list[Claim]:
        """Return the newest claims about their subjects that the item has made in any attempt."""
        if self.next_number() == 1:
            return []
        item = self._journal.item
        return self._store.read(verbs.list_claims(item.task_id, [item.item_id]))

    def still_claimed(self, claims: Iterable[Claim]) -> list[Claim]:
        """Return those of the item's claims that this attempt made, passed, or resumed behind.

        The others were made on a way that was given up, such as before the item was done again.
        """
        first = self.next_number() if self._first is None else self._first
        return [each for each in claims if each.number <= self._restored or each.number >= first]

    def _note(self, number: int) -> None:
        self._first = number if self._first is None else min(self._first, number)
        self._journal.note_checkpoint(number)

    def _pass(self, number: int) -> Checkpoint:
        self._note(number)
        item = self._journal.item
        checkpoint = self._store.read(verbs.get_checkpoint(item.task_id, item.item_id, number))
        if checkpoint is None:
            message = f"Checkpoint {number} of {item.task_id}:{item.item_id} was pruned."
            raise errors.CheckpointNotFoundError(message)
        return checkpoint

    def _bound(self, pack: EvidencePack) -> EvidencePack:
        if not any(item.in_workspace for item in pack.items):
            return pack
        place = self.workspace
        return pack if place is None else pack.bound_to(place)

    def _place_of(self, pack: EvidencePack) -> WorkspaceRef:
        if not any(item.in_workspace for item in pack.items):
            return _NOWHERE
        return self.workspace or _NOWHERE

    # -- resuming --------------------------------------------------------------------------------

    async def restore(self, default: T) -> T:
        """Return the state of the newest checkpoint whose evidence holds, or `default`.

        From here on only entries behind that checkpoint answer. Must be the handler's first call.

        Raises:
            RestoreOrderError: another call came first.
        """
        if not self._journal.untouched:
            message = "restore must be the first call of a handler; nothing was restored."
            raise errors.RestoreOrderError(message)
        item = self._journal.item
        point = await find_resume_point(self._store, self._verifier, self.workspace_if_needed, item)
        if not item.restores:
            await self._store.commit(verbs.set_restores(item.task_id, item.item_id))
        if point.checkpoint is None:
            self._journal.load_kept()
            return default
        checkpoint = point.checkpoint
        self._restored = checkpoint.number
        self._journal.load(after=checkpoint.journal_seq, anchor=checkpoint.anchor)
        self._journal.note_checkpoint(checkpoint.number)
        return cast("T", self._journal.decode(checkpoint.state))

    def workspace_if_needed(self) -> WorkspaceRef:
        """Return the workspace for checking stored evidence."""
        return self.workspace or _NOWHERE

    async def get_last_verified_checkpoint(self) -> ResumePoint:
        """Return the newest checkpoint whose evidence holds, and why others were passed over."""
        return await find_resume_point(
            self._store, self._verifier, self.workspace_if_needed, self._journal.item
        )


def _type_of(name: CheckpointType | str) -> CheckpointType:
    try:
        return CheckpointType(name)
    except ValueError:
        known = ", ".join(CheckpointType)
        message = f"{name!r} is no type of checkpoint. There are: {known}."
        raise errors.UsageError(message) from None

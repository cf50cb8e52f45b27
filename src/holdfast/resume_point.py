"""Where to resume: the newest checkpoint that everything it builds on still proves."""

from __future__ import annotations

import msgspec

from holdfast import errors
from holdfast.evidence import EvidencePack, PackVerdict, Verdict, WorkspaceRef
from holdfast.models import Checkpoint, ItemRecord
from holdfast.rechecks import Place, Recheck, recheck_claims
from holdfast.states import CheckpointType
from holdfast.store import Store, verbs
from holdfast.verifiers import EvidenceVerifier

RECORDED = "recorded"
"""It claims nothing about the world, so nothing can refute it: recorded, not proven."""

REFUTED = "refuted"

VOID = "void"
"""The item was reopened because of what came before it: the state belongs to old inputs."""

NO_STATE = b""
"""The state of the checkpoint that proves what a finished item owed."""

_WALK = 8
_UNLIMITED = 2**62


class PassedOver(msgspec.Struct, frozen=True):
    """A checkpoint that may not be resumed from, and why."""

    checkpoint: Checkpoint
    reason: str


class ResumePoint(msgspec.Struct, frozen=True):
    """Where to resume: the newest checkpoint whose evidence holds, and those passed over."""

    checkpoint: Checkpoint | None
    passed_over: tuple[PassedOver, ...] = ()


def find_checkpoint(store: Store, checkpoint_id: str) -> Checkpoint:
    """Return the checkpoint named `task:item:number`.

    Raises:
        CheckpointNotFoundError: there is none.
    """
    task_id, _, rest = checkpoint_id.partition(":")
    item_id, _, number = rest.rpartition(":")
    found = None
    if task_id and item_id and number.isdecimal():
        found = store.read(verbs.get_checkpoint(task_id, item_id, int(number)))
    if found is None:
        message = f"There is no checkpoint {checkpoint_id!r}. `holdfast show TASK` lists them."
        raise errors.CheckpointNotFoundError(message)
    return found


def newest_number(store: Store, item: ItemRecord) -> int:
    """Return the number of an item's newest checkpoint; 0 when it has none."""
    if item.is_untouched:
        return 0
    newest = store.read(verbs.newest_checkpoints(item.task_id, item.item_id, _UNLIMITED, 1))
    return newest[0].number if newest else 0


async def find_resume_point(
    store: Store, verifier: EvidenceVerifier, workspace: Place, item: ItemRecord
) -> ResumePoint:
    """Walk back from the newest checkpoint to the first that may be resumed from.

    A checkpoint stands on everything the item had proven before it: where an earlier claim of the
    item no longer holds, nothing behind it is resumed from, since what made it would not be done
    again. A claim that a later item superseded isn't checked; an `error_boundary` is never resumed
    from.

    Args:
        store: where the checkpoints are.
        verifier: what checks their evidence.
        workspace: the workspace, or a function that returns it when it is needed.
        item: whose checkpoints.
    """
    standing = await recheck_claims(store, verifier, workspace, item.task_id, [item.item_id])
    walk = _Walk(store, verifier, workspace, standing, _superseded_by_others(store, item))
    passed: list[PassedOver] = []
    below = _UNLIMITED
    while True:
        some = store.read(verbs.newest_checkpoints(item.task_id, item.item_id, below, _WALK))
        for checkpoint in some:
            reason = await walk.why_not(checkpoint)
            if reason is None:
                return ResumePoint(checkpoint, tuple(passed))
            passed.append(PassedOver(checkpoint, reason))
        if len(some) < _WALK:
            return ResumePoint(None, tuple(passed))
        below = some[-1].number


class _Walk:
    """What is known about an item's claims while its checkpoints are walked back."""

    def __init__(
        self,
        store: Store,
        verifier: EvidenceVerifier,
        workspace: Place,
        standing: Recheck,
        superseded: frozenset[str],
    ) -> None:
        self._store = store
        self._verifier = verifier
        self._workspace = workspace
        self._superseded = superseded
        self._proven = {(claim.number, claim.subject) for claim, _ in standing.holding}
        self._broken = sorted(
            (claim.number, f"{claim.subject}: {verdict.detail or verdict.status.value}")
            for claim, verdict in (*standing.failed, *standing.unavailable)
        )

    async def why_not(self, checkpoint: Checkpoint) -> str | None:
        """Return why a checkpoint may not be resumed from; None when it may."""
        reason = why_not_resumable(checkpoint)
        if reason is not None:
            return reason
        if self._broken and self._broken[0][0] < checkpoint.number:
            number, detail = self._broken[0]
            return f"it stands on checkpoint {number}, whose evidence doesn't hold: {detail}"
        if checkpoint.status == RECORDED or self._was_just_checked(checkpoint):
            return None
        verdict = await recheck_checkpoint(
            self._verifier, self._workspace, checkpoint, self._superseded
        )
        if verdict is None or verdict.verified:
            return None
        if not verdict.unavailable:
            await self._refute(checkpoint, verdict.explain())
        return verdict.explain()

    def _was_just_checked(self, checkpoint: Checkpoint) -> bool:
        pack = msgspec.msgpack.decode(checkpoint.pack, type=EvidencePack)
        return all(
            claim.subject in self._superseded or (checkpoint.number, claim.subject) in self._proven
            for claim in pack.items
        )

    async def _refute(self, checkpoint: Checkpoint, reason: str) -> None:
        await self._store.commit(
            verbs.set_checkpoint_status(
                checkpoint.task_id, checkpoint.item_id, checkpoint.number, REFUTED, reason,
                self._store.now(),
            )
        )  # fmt: skip


def _superseded_by_others(store: Store, item: ItemRecord) -> frozenset[str]:
    claims = store.read(verbs.list_claims(item.task_id))
    return frozenset(claim.subject for claim in claims if claim.item_id != item.item_id)


def why_not_resumable(checkpoint: Checkpoint) -> str | None:
    """Return why a checkpoint is no resume point, whatever its evidence; None when it may be."""
    if checkpoint.type is CheckpointType.ERROR_BOUNDARY:
        return "it was taken where an attempt failed"
    if checkpoint.status == VOID:
        return "the item was reopened since"
    if checkpoint.state == NO_STATE:
        return "it proves what the finished item owed, and holds no state"
    return None


async def recheck_checkpoint(
    verifier: EvidenceVerifier,
    workspace: Place,
    checkpoint: Checkpoint,
    superseded: frozenset[str] = frozenset(),
) -> PackVerdict | None:
    """Check a checkpoint's evidence again; None when none of it is left to check."""
    pack = msgspec.msgpack.decode(checkpoint.pack, type=EvidencePack)
    verdicts = msgspec.msgpack.decode(checkpoint.verdicts, type=tuple[Verdict, ...])
    left = [
        (claim, before)
        for claim, before in zip(pack.items, verdicts, strict=True)
        if claim.subject not in superseded
    ]
    if not left:
        return None
    claims, before = zip(*left, strict=True)
    needed = pack.min_verified
    rest = EvidencePack(claims, min_verified=needed and min(needed, len(claims)))
    where = workspace if isinstance(workspace, WorkspaceRef) else workspace()
    return await verifier.verify(rest, where, before)

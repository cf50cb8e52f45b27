"""Checking again what is claimed about the world: before anything builds on it, and on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from holdfast import errors
from holdfast.evidence import Evidence, EvidencePack, Verdict, VerdictStatus, WorkspaceRef
from holdfast.models import Checkpoint, Claim
from holdfast.store import Store, verbs
from holdfast.verifiers import EvidenceVerifier
from holdfast.workspace import Workspace

Place = WorkspaceRef | Callable[[], WorkspaceRef]
"""A workspace, or how to get it when a check needs it."""

VERIFIED = "verified"
"""The status of a checkpoint whose evidence held when it was last checked."""

Checked = tuple[Claim, Verdict]


class Recheck(msgspec.Struct, frozen=True):
    """What checking standing claims again gave."""

    checked: int
    holding: tuple[Checked, ...] = ()
    failed: tuple[Checked, ...] = ()
    unavailable: tuple[Checked, ...] = ()
    earlier: tuple[Checked, ...] = ()
    """Claims of other items that one in `failed` had superseded, and that don't hold either."""

    @property
    def holds(self) -> bool:
        """Whether everything was verified."""
        return not self.failed and not self.unavailable

    @property
    def failed_items(self) -> frozenset[str]:
        """The items whose evidence no longer holds.

        Those whose claims had been superseded are among them: what a later item made of a thing
        that is gone can be made again only after the thing itself.
        """
        return frozenset(claim.item_id for claim, _ in (*self.failed, *self.earlier))

    def explain(self) -> str:
        """Return one line for each claim that doesn't hold."""
        return "\n".join(
            f"{claim.subject}: {verdict.detail or verdict.status.value}"
            for claim, verdict in (*self.failed, *self.unavailable)
        )


def workspace_of(root: str | None) -> WorkspaceRef:
    """Return a task's workspace as this machine sees it; one without an id where it isn't here."""
    try:
        return Workspace.at(root or ".").ref
    except (errors.EvidenceUnavailableError, errors.EvidencePathError, OSError):
        return WorkspaceRef("", root or "")


def claim_of(checkpoint: Checkpoint, evidence: Evidence, verdict: Verdict) -> Claim:
    """Return what a checkpoint claims, with the verdict on it."""
    return Claim(
        evidence.subject,
        checkpoint.item_id,
        checkpoint.number,
        msgspec.msgpack.encode(evidence),
        msgspec.msgpack.encode(verdict),
        checkpoint.created_at,
    )


async def recheck_claims(
    store: Store,
    verifier: EvidenceVerifier,
    workspace: Place,
    task_id: str,
    item_ids: Sequence[str] | None = None,
) -> Recheck:
    """Check the newest claim about every subject of a task, or of some items, again.

    Verdicts are stored, so that the next check of an unchanged file costs a stat. A verdict that
    couldn't be reached (`error`) counts as failed; so does no claim of a pack that still has as
    many as it needs.
    """
    claims = store.read(verbs.list_claims(task_id, item_ids))
    if not claims:
        return Recheck(0)
    evidence = tuple(msgspec.msgpack.decode(claim.evidence, type=Evidence) for claim in claims)
    before = tuple(msgspec.msgpack.decode(claim.verdict, type=Verdict) for claim in claims)
    where = workspace if isinstance(workspace, WorkspaceRef) else workspace()
    result = await verifier.verify(EvidencePack(evidence), where, before)
    pairs = tuple(zip(claims, result.verdicts, strict=True))
    holding = tuple(pair for pair in pairs if pair[1].holds)
    await _keep(store, task_id, holding)
    failed = _failed(store, task_id, pairs)
    superseded = _superseded(store, task_id, failed) if failed else []
    return Recheck(
        len(claims),
        holding,
        tuple(failed),
        tuple(pair for pair in pairs if pair[1].status is VerdictStatus.UNAVAILABLE),
        await _refuted(verifier, where, superseded) if superseded else (),
    )


def _superseded(store: Store, task_id: str, failed: Sequence[Checked]) -> list[Checked]:
    """Return what other items had claimed, and proven, about the subjects of failed claims."""
    newest = {claim.subject: claim.item_id for claim, _ in failed}
    found: dict[tuple[str, str], Checked] = {}
    for checkpoint in store.read(verbs.list_checkpoints(task_id)):
        if checkpoint.status != VERIFIED:
            continue
        pack = msgspec.msgpack.decode(checkpoint.pack, type=EvidencePack)
        verdicts = msgspec.msgpack.decode(checkpoint.verdicts, type=tuple[Verdict, ...])
        item_id = checkpoint.item_id
        for evidence, verdict in zip(pack.items, verdicts, strict=True):
            if verdict.holds and newest.get(evidence.subject, item_id) != item_id:
                found[item_id, evidence.subject] = claim_of(checkpoint, evidence, verdict), verdict
    return list(found.values())


async def _refuted(
    verifier: EvidenceVerifier, where: WorkspaceRef, checked: Sequence[Checked]
) -> tuple[Checked, ...]:
    """Check claims again and return those that no longer hold."""
    evidence = tuple(msgspec.msgpack.decode(claim.evidence, type=Evidence) for claim, _ in checked)
    before = tuple(verdict for _, verdict in checked)
    result = await verifier.verify(EvidencePack(evidence), where, before)
    return tuple(
        (claim, verdict)
        for (claim, _), verdict in zip(checked, result.verdicts, strict=True)
        if not verdict.holds and verdict.status is not VerdictStatus.UNAVAILABLE
    )


async def _keep(store: Store, task_id: str, holding: Sequence[Checked]) -> None:
    fresh = tuple(
        msgspec.structs.replace(
            claim, verdict=msgspec.msgpack.encode(verdict), checked_at=verdict.checked_at
        )
        for claim, verdict in holding
        if verdict.status is VerdictStatus.VERIFIED
    )
    if fresh:
        await store.commit(verbs.record_verdicts(task_id, fresh))


def _failed(store: Store, task_id: str, pairs: Sequence[Checked]) -> list[Checked]:
    failed = [
        (claim, verdict)
        for claim, verdict in pairs
        if not verdict.holds and verdict.status is not VerdictStatus.UNAVAILABLE
    ]
    spared = {
        where
        for where in {(claim.item_id, claim.number) for claim, _ in failed}
        if _has_enough(store, task_id, where, pairs)
    }
    return [pair for pair in failed if (pair[0].item_id, pair[0].number) not in spared]


def _has_enough(
    store: Store, task_id: str, where: tuple[str, int], pairs: Sequence[Checked]
) -> bool:
    """Say whether a pack that needs only some of its claims still has them.

    Those that a later claim superseded count as holding: it answers for them.
    """
    checkpoint = store.read(verbs.get_checkpoint(task_id, *where))
    if checkpoint is None:
        return False
    pack = msgspec.msgpack.decode(checkpoint.pack, type=EvidencePack)
    if pack.min_verified is None:
        return False
    at_commit = msgspec.msgpack.decode(checkpoint.verdicts, type=tuple[Verdict, ...])
    standing = [found for claim, found in pairs if (claim.item_id, claim.number) == where]
    superseded = sum(verdict.holds for verdict in at_commit) - len(standing)
    return superseded + sum(verdict.holds for verdict in standing) >= pack.min_verified

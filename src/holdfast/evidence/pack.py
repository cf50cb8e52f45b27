"""EvidencePack: claims that together decide whether something is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.errors import EvidenceInputError, UsageError
from holdfast.evidence.claim import Evidence, WorkspaceRef
from holdfast.evidence.verdict import Verdict, VerdictStatus


class EvidencePack(msgspec.Struct, frozen=True):
    """Claims that together decide whether something is done. An empty pack proves nothing.

    Args:
        items: the claims.
        require_all: every claim must hold. This is the default.
        min_verified: instead, at least so many claims must hold.

    Raises:
        EvidenceInputError: neither rule is chosen, or `min_verified` can't be reached.
    """

    items: tuple[Evidence, ...] = ()
    require_all: bool = True
    min_verified: int | None = None

    def __post_init__(self) -> None:
        """Refuse a rule that no outcome could satisfy."""
        msgspec.structs.force_setattr(self, "items", tuple(self.items))
        if self.min_verified is None:
            if not self.require_all:
                raise EvidenceInputError(
                    "Say how many claims must hold: EvidencePack(…, min_verified=n)."
                )
            return
        msgspec.structs.force_setattr(self, "require_all", False)  # noqa: FBT003
        if self.min_verified < 1 or (self.items and self.min_verified > len(self.items)):
            raise EvidenceInputError(
                f"min_verified={self.min_verified} can't be met by {len(self.items)} claims."
            )

    @classmethod
    def of(cls, evidence: Evidence | Iterable[Evidence] | EvidencePack | None) -> EvidencePack:
        """Return a pack from one claim, several, a pack (unchanged) or None (an empty pack)."""
        if isinstance(evidence, EvidencePack):
            return evidence
        if evidence is None:
            return cls()
        return cls((evidence,) if isinstance(evidence, Evidence) else tuple(evidence))

    def bound_to(self, workspace: WorkspaceRef) -> EvidencePack:
        """Return the pack with each claim that needs a workspace naming this one."""
        bound = tuple(item.bound_to(workspace) for item in self.items)
        return msgspec.structs.replace(self, items=bound)


def combine(pack: EvidencePack, verdicts: Sequence[Verdict]) -> VerdictStatus:
    """Return what the verdicts say about the pack as a whole.

    With `require_all`: failed beats error, error beats unavailable, unavailable beats verified.
    With `min_verified`: verified as soon as enough claims hold; otherwise unavailable, then
    error, if the claims left open could still make it enough; else failed.

    Raises:
        UsageError: there isn't one verdict for each claim.
    """
    if len(verdicts) != len(pack.items):
        raise UsageError(
            f"{len(pack.items)} claims need as many verdicts; {len(verdicts)} were given."
        )
    if not verdicts:
        return VerdictStatus.FAILED
    if pack.min_verified is None:
        return _all_of(verdicts)
    return _enough_of(verdicts, pack.min_verified)


def _all_of(verdicts: Sequence[Verdict]) -> VerdictStatus:
    seen = {verdict.status for verdict in verdicts}
    for status in (VerdictStatus.FAILED, VerdictStatus.ERROR, VerdictStatus.UNAVAILABLE):
        if status in seen:
            return status
    return VerdictStatus.VERIFIED


def _enough_of(verdicts: Sequence[Verdict], needed: int) -> VerdictStatus:
    holding = sum(verdict.holds for verdict in verdicts)
    if holding >= needed:
        return VerdictStatus.VERIFIED
    for status in (VerdictStatus.UNAVAILABLE, VerdictStatus.ERROR):
        holding += sum(verdict.status is status for verdict in verdicts)
        if holding >= needed:
            return status
    return VerdictStatus.FAILED

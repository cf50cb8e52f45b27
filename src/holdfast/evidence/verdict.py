"""Verdict: what checking one claim gave; PackVerdict: what checking a pack gave."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class VerdictStatus(StrEnum):
    """What checking a claim, or a pack of claims, can give."""

    VERIFIED = "verified"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    ERROR = "error"
    HISTORIC = "historic"


class Verdict(msgspec.Struct, frozen=True):
    """What checking one claim gave.

    Args:
        status: the outcome.
        detail: one line for people.
        captured: what was found, as plain data; a recheck compares with it. A verdict that
            doesn't hold keeps what an earlier one captured, so that it stays the baseline.
        checked_at: wall time of the check, in seconds since 1970-01-01 UTC.
        seconds: what the check cost.
    """

    status: VerdictStatus
    detail: str = ""
    captured: dict[str, Any] = {}
    checked_at: float = 0.0
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the claim counts as proven: verified now, or historic."""
        return self.status in {VerdictStatus.VERIFIED, VerdictStatus.HISTORIC}


class PackVerdict(msgspec.Struct, frozen=True):
    """What checking a pack gave: one verdict for each claim, in order, and the whole.

    Args:
        verdicts: one for each claim of the pack.
        status: verified, failed, unavailable or error.
        subjects: the subject of each claim, for explaining.
    """

    verdicts: tuple[Verdict, ...]
    status: VerdictStatus
    subjects: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether the pack is proven."""
        return self.status is VerdictStatus.VERIFIED

    @property
    def unavailable(self) -> bool:
        """Whether another machine, which has the workspace, has to decide."""
        return self.status is VerdictStatus.UNAVAILABLE

    @property
    def seconds(self) -> float:
        """What checking cost, added up over the claims (they may have run in parallel)."""
        return sum(verdict.seconds for verdict in self.verdicts)

    def failures(self) -> tuple[Verdict, ...]:
        """Return the verdicts that don't hold, in the order of the claims."""
        return tuple(verdict for verdict in self.verdicts if not verdict.holds)

    def explain(self) -> str:
        """Return one readable line for each claim."""
        if not self.verdicts:
            return "no evidence: an empty pack proves nothing"
        subjects = self.subjects or tuple(f"claim {n + 1}" for n in range(len(self.verdicts)))
        lines = zip(self.verdicts, subjects, strict=True)
        return "\n".join(f"{v.status.value:<11} {name}: {v.detail}" for v, name in lines)

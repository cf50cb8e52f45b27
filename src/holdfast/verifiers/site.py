"""The place where claims are checked, and what every check is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holdfast.clock import Clock
from holdfast.confined import ConfinedRoot
from holdfast.evidence import Evidence, Verdict, VerdictStatus


@dataclass(frozen=True, slots=True)
class Site:
    """What a check may use. It belongs to one thread.

    Args:
        beneath: opens what lies below the workspace's root.
        clock: the only source of time.
        stopped: whether nobody waits for the answer any more.
    """

    beneath: ConfinedRoot
    clock: Clock
    stopped: Callable[[], bool]


# A check decides one claim, given the verdict of its last check. It may raise: bad input as
# EvidenceInputError, a missing workspace as EvidenceUnavailableError, anything else as it comes.
Check = Callable[[Evidence, Verdict | None, Site], Verdict]


def verified(detail: str, captured: dict[str, Any]) -> Verdict:
    """Return the verdict of a claim that holds."""
    return Verdict(VerdictStatus.VERIFIED, detail, captured)


def failed(detail: str, captured: dict[str, Any] | None = None) -> Verdict:
    """Return the verdict of a claim that doesn't hold."""
    return Verdict(VerdictStatus.FAILED, detail, captured or {})


def could_not_tell(detail: str, captured: dict[str, Any] | None = None) -> Verdict:
    """Return the verdict of a claim that could not be decided, which proves nothing."""
    return Verdict(VerdictStatus.ERROR, detail, captured or {})

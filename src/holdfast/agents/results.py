"""What comes of an agent's task, as plain values.

The types that stand in an agent's records have stable names: whoever imports this can read them.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.agents.assignment import Assignment
from holdfast.agents.gates import Gate, GateResult
from holdfast.agents.plan import PlannedEvidence, PlannedItem
from holdfast.registry import register_type


@dataclass(frozen=True)
class ItemResult:
    """What an item of a plan came to: what was said at its end, and what it owed."""

    id: str
    title: str
    said: str
    evidence: list[PlannedEvidence]


@dataclass(frozen=True)
class AgentResult:
    """What an agent's task came to: its last round, and the gates as they passed."""

    rounds: int
    items: list[ItemResult]
    gates: list[GateResult]


# Those first that stand in others: what a field holds is registered with the type that has it.
for _kind in (
    Gate,
    GateResult,
    PlannedEvidence,
    PlannedItem,
    ItemResult,
    AgentResult,
    Assignment,
):
    register_type(_kind, name=f"holdfast:agents.{_kind.__name__}")

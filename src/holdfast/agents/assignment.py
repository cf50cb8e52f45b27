"""Assignment: what an agent is to reach, with what, and what it may do."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast import errors
from holdfast.agents.gates import OWN, Gate, same_failure

ROUNDS = 3
"""How often a plan is made, if nothing else is said."""

SAME_FAILURES = 3
"""So many equal failures in a row end a task, whatever rounds are left."""

LONGEST_GOAL = 20_000
"""Characters."""


class Assignment(msgspec.Struct, frozen=True):
    """What an agent is to reach, with what, and what it may do.

    It is checked when it is made; then it is pinned to its task.

    Args:
        goal: in a person's words.
        model: such as `openai:gpt-5-mini`.
        base_url: where the model is, if it isn't at its provider.
        modes: those that the items of a plan may run in.
        gates: what must pass before it is done.
        repeatable: how commands begin that may run again after a crash.
        max_rounds: how often a plan is made before the task fails.
        sandbox: `auto`, `required` or `off`.

    Raises:
        UsageError: it makes no sense; nothing was started.
    """

    goal: str
    model: str
    modes: tuple[str, ...]
    base_url: str | None = None
    gates: tuple[Gate, ...] = ()
    repeatable: tuple[tuple[str, ...], ...] = ()
    max_rounds: int = ROUNDS
    sandbox: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 0 < len(self.goal.strip()) <= LONGEST_GOAL:
            message = f"A goal has 1 to {LONGEST_GOAL} characters. Nothing was started."
            raise errors.UsageError(message)
        if not self.modes:
            raise errors.UsageError(
                "No mode is permitted, so nothing can be done. Nothing was started."
            )
        if self.max_rounds < 1:
            message = f"{self.max_rounds} rounds make no plan. Use 1 or more."
            raise errors.UsageError(message)

    @property
    def claimable(self) -> tuple[tuple[str, ...], ...]:
        """The commands that a plan's evidence may run: those that may run again in any case."""
        own = (gate.argv for gate in self.gates if gate.name not in OWN)
        return tuple(dict.fromkeys((*own, *self.repeatable)))


def is_stuck(failures: Sequence[str]) -> bool:
    """Say whether the last failures are one and the same."""
    last = [same_failure(failure) for failure in failures[-SAME_FAILURES:]]
    return len(last) == SAME_FAILURES and len(set(last)) == 1

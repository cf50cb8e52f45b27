"""What a tool says instead of doing something. The model is told; the task goes on."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818  it is an answer to a model, no failure of ours
    """The model asked for what it may not have. Nothing was done."""

    label = "Refused"

    def __str__(self) -> str:
        """Return what the model is told."""
        return f"{self.label}: {' '.join(map(str, self.args))}"


class Miss(Refusal):
    """What the model asked for can't be done: no such file, no such text. Nothing was done."""

    label = "Failed"

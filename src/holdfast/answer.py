"""What calling a model by name takes and gives, for type checkers that don't see Pydantic AI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class AnyModel(Protocol):
    """A model of Pydantic AI's."""

    @property
    def model_name(self) -> str:
        """Its name, without its provider."""
        ...

    @property
    def system(self) -> str:
        """Its provider."""
        ...


class Answer(Protocol):
    """A model's answer: a `ModelResponse` of Pydantic AI's, of which these are the main parts."""

    @property
    def text(self) -> str | None:
        """The text; None where there is none."""
        ...

    @property
    def tool_calls(self) -> Sequence[Any]:
        """The tools it calls, each with `tool_name`, `args_as_dict()` and `tool_call_id`."""
        ...

    @property
    def parts(self) -> Sequence[Any]:
        """Everything in it, in order: text, thinking, tool calls, files."""
        ...

    @property
    def usage(self) -> Any:  # noqa: ANN401  a `RequestUsage`
        """The tokens it took: `input_tokens` (with cached ones), `output_tokens` and so on."""
        ...

    @property
    def model_name(self) -> str | None:
        """The model, as its provider names it."""
        ...

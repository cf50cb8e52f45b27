"""What a model is offered: which tools, and in which forms it may answer. Imports Pydantic AI."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, Field
from pydantic_ai import ToolOutput
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import RunContext

from holdfast.registry import register_type


@register_type
class GaveUp(BaseModel):
    """Say that what you were asked for can't be done, and why. Nothing after it is then tried."""

    reason: str = Field(description="what is missing or in the way, in one or two sentences")


def outputs_of(type_: Any) -> list[Any]:  # noqa: ANN401  whatever Pydantic knows
    """Return the forms in which a model may answer: the type, or that it gives up."""
    wanted = str if type_ is str else ToolOutput(type_, name="final_result")
    return [wanted, ToolOutput(GaveUp, name="give_up")]


class Offered(AbstractCapability[Any]):
    """Keeps tools from the model that it may not use. What it calls nonetheless is refused there.

    Args:
        hidden: the names of tools that aren't shown.
    """

    def __init__(self, hidden: AbstractSet[str]) -> None:
        self._hidden = hidden

    async def before_model_request(
        self,
        ctx: RunContext[Any],  # noqa: ARG002  the interface's
        request_context: ModelRequestContext,
    ) -> ModelRequestContext:
        """Leave out the definitions of what is hidden."""
        parameters = request_context.model_request_parameters
        shown = [tool for tool in parameters.function_tools if tool.name not in self._hidden]
        return replace(
            request_context, model_request_parameters=replace(parameters, function_tools=shown)
        )

"""What an agent's tool does to the world: who says so, and in which order they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from pydantic_ai import FunctionToolset
from pydantic_ai import Tool as AgentTool
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset

from holdfast import errors
from holdfast.states import Effect
from holdfast.tool import Tool, effect_named

METADATA = "holdfast"
"""The key of a tool's metadata that holds its effect: `metadata={"holdfast": "read"}`."""

ANSWERS: tuple[type[Exception], ...] = (ModelRetry, ToolFailed, ApprovalRequired, CallDeferred)
"""What a tool raises to tell the agent something. The call has ended and its outcome is known."""


class Effects(msgspec.Struct, frozen=True):
    """Who may say what a tool does.

    Args:
        named: effects by the tool's name, as the model knows it. They count before all else.
        trust_hints: what MCP servers say of their own tools counts.
    """

    named: Mapping[str, Effect]
    trust_hints: bool = True

    def of(self, shown: str, definition: ToolDefinition, held: Tool[..., Any] | None) -> Effect:
        """Return a tool's effect; `once` if nobody says what it is.

        Args:
            shown: the name that the model knows.
            definition: of the tool, with its metadata.
            held: the Holdfast tool that it is, if it is one.
        """
        if shown in self.named:
            return self.named[shown]
        metadata = definition.metadata or {}
        if METADATA in metadata:
            return _declared(shown, metadata[METADATA])
        if held is not None:
            return held.effect
        hints = cast("Mapping[str, Any] | None", metadata.get("annotations"))
        return _hinted(hints) if self.trust_hints and hints else Effect.ONCE


def _declared(shown: str, given: object) -> Effect:
    try:
        return effect_named(cast("str", given))
    except (errors.UsageError, TypeError):
        message = (
            f"The metadata of the tool {shown} says that its effect is {given!r}, which is none. "
            f"Use read, idempotent or once."
        )
        raise errors.UsageError(message) from None


def _hinted(hints: Mapping[str, Any]) -> Effect:
    """Return what an MCP server's hints mean.

    Source: https://modelcontextprotocol.io/specification/2025-11-25/schema#toolannotations
    """
    if hints.get("readOnlyHint") is True:
        return Effect.READ
    return Effect.IDEMPOTENT if hints.get("idempotentHint") is True else Effect.ONCE


def held_tool(toolset: AbstractToolset[Any], name: str) -> Tool[..., Any] | None:
    """Return the Holdfast tool that an agent was given as a function, if it was."""
    function = function_of(toolset, name)
    return cast("Tool[..., Any]", function) if isinstance(function, Tool) else None


def function_of(toolset: AbstractToolset[Any], name: str) -> object:
    """Return the function behind a tool of a function toolset."""
    if not isinstance(toolset, FunctionToolset):
        return None
    tool: AgentTool[Any] | None = toolset.tools.get(name)
    return None if tool is None else tool.function

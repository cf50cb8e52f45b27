"""An agent's tools, each call through the ledger."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self, cast

from pydantic import TypeAdapter
from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.messages import (
    AudioUrl,
    BinaryContent,
    DocumentUrl,
    ImageUrl,
    InstructionPart,
    ModelResponse,
    ToolReturn,
    VideoUrl,
)
from pydantic_ai.tools import RunContext, ToolDefinition
from pydantic_ai.toolsets import FunctionToolset, ToolsetTool, WrapperToolset
from pydantic_core import PydanticSerializationError, to_jsonable_python

from holdfast import codec, errors
from holdfast.context import Context
from holdfast.integrations.pydantic_ai.effects import ANSWERS, Effects, held_tool
from holdfast.registry import register_result, register_type
from holdfast.states import Effect
from holdfast.tool import SETTLE_AFTER, Tool

_definitions = TypeAdapter(dict[str, ToolDefinition])
_instructions = TypeAdapter(str | InstructionPart | list[str | InstructionPart] | None)

for _kind in (ToolReturn, BinaryContent, ImageUrl, AudioUrl, VideoUrl, DocumentUrl):
    register_type(_kind)


class _AgentTool(Tool[..., Any]):
    """A tool as the ledger sees it: identified by the arguments that the model gave."""

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002  there are none
        """Return the arguments by name."""
        return dict(kwargs)


@dataclass
class RecordedToolset(WrapperToolset[Any]):
    """One of an agent's toolsets, whose calls are recorded.

    An MCP server is asked for its tools once for each answer of the model; what it said is
    recorded, too. It is connected to when it is first needed, so a replay needs no server.
    """

    context: Context
    effects: Effects
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)
    _connected: AsyncExitStack | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.wrapped, FunctionToolset):
            for tool in self.wrapped.tools.values():
                _know_result(tool.function)

    @property
    def id(self) -> str | None:
        """The wrapped toolset's id."""
        return self.wrapped.id

    # -- connecting ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if not self._is_server:
            await self.wrapped.__aenter__()
        return self

    async def __aexit__(self, *args: object) -> bool | None:
        if not self._is_server:
            return await self.wrapped.__aexit__(*args)
        async with self._lock:
            if self._connected is not None:
                connected, self._connected = self._connected, None
                await connected.aclose()
        return None

    @property
    def _is_server(self) -> bool:
        return hasattr(self.wrapped, "tool_for_tool_def")  # an MCPToolset, without importing it

    async def _connect(self) -> None:
        if not self._is_server:
            return
        async with self._lock:
            if self._connected is None:
                stack = AsyncExitStack()
                await stack.enter_async_context(self.wrapped)
                self._connected = stack

    # -- what there is ---------------------------------------------------------------------------

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """Return the tools; those of an MCP server as they were when this was first reached."""
        if not self._is_server:
            return await self.wrapped.get_tools(ctx)

        async def list_tools() -> Any:  # noqa: ANN401  data
            await self._connect()
            tools = await self.wrapped.get_tools(ctx)
            definitions = {name: tool.tool_def for name, tool in tools.items()}
            return _definitions.dump_python(definitions, mode="json", exclude_defaults=True)

        listed = _definitions.validate_python(await self._read("tools", list_tools))
        server = cast("Any", self.wrapped)
        return {name: server.tool_for_tool_def(each, ctx=ctx) for name, each in listed.items()}

    async def get_instructions(
        self, ctx: RunContext[Any]
    ) -> str | InstructionPart | Sequence[str | InstructionPart] | None:
        """Return the instructions; those of an MCP server as they were when first reached."""
        if not self._is_server:
            return await super().get_instructions(ctx)
        if not getattr(self.wrapped, "include_instructions", False):
            return None

        async def get() -> Any:  # noqa: ANN401  data
            await self._connect()
            given = await self.wrapped.get_instructions(ctx)
            return _instructions.dump_python(cast("Any", given), mode="json")

        return _instructions.validate_python(await self._read("instructions", get))

    def _authors_own_instructions(self) -> bool:
        return self._is_server

    async def _read(self, what: str, function: Any) -> Any:  # noqa: ANN401  data
        named = f"{self.id or self.label}: {what}"
        return await self.context.options(name=named, effect=Effect.READ).step(function)

    # -- calls -----------------------------------------------------------------------------------

    def _is_known(self, retry: ModelRetry) -> bool:
        """Say whether a call has ended that the model is to make again.

        Pydantic AI also says so of calls that ran out of time, and of MCP servers that are gone.
        """
        if isinstance(retry.__context__, TimeoutError):
            return False
        cause = retry.__cause__
        if cause is None or not self._is_server:
            return True
        from fastmcp.exceptions import ToolError

        refusal = getattr(getattr(cause, "error", None), "code", None)
        return isinstance(cause, ToolError) or refusal in _REFUSED

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:  # noqa: ANN401  whatever the tool returns
        """Call a tool, or return what the journal says it returned."""
        shown, given, same = _asked_for(name, tool_args, ctx)
        held = held_tool(self.wrapped, name)
        effect = self.effects.of(shown, tool.tool_def, held)

        async def call(**_: Any) -> object:
            await self._connect()
            try:
                result = await self.wrapped.call_tool(name, tool_args, ctx, tool)
                if inspect.isawaitable(result):  # of a Holdfast tool, which looks like a function
                    result = await result
            except ModelRetry as retry:
                if effect is Effect.ONCE and not self._is_known(retry):
                    message = f"{shown} may or may not have happened: {retry}"
                    raise errors.CallFailedError(message, error_type="ModelRetry") from retry
                raise
            return _as_data(result)

        recorded = _AgentTool(
            call,
            effect=effect,
            name=shown,
            reconcile=held and held.reconcile,
            observe=held and held.observe,
            repeatable=held and held.repeatable,
            settle_after=held.settle_after if held else SETTLE_AFTER,
            no_effect=(*ANSWERS, *(held.no_effect if held else ())),
            stops_when_canceled=held is not None and held.stops_when_canceled,
            timeout=held and held.timeout,
            approve=ctx.tool_call_approved or (held is not None and held.approve),
        )
        try:
            if not same:
                return await self.context.tool(recorded, **given)
            async with self.context.scope(f"same.{same}"):
                return await self.context.tool(recorded, **given)
        except errors.ApprovalRejectedError as no:
            raise ToolFailed(str(no)) from no  # the model is told, and does what it can without


@functools.lru_cache(maxsize=4096)
def _know_result(function: Callable[..., object]) -> None:
    """Let what a tool returns come back as the type it is annotated with."""
    register_result(function)


_REFUSED = frozenset({-32700, -32600, -32601, -32602})
"""Codes by which a server says that it didn't take a call: parse error, invalid request, no such
method, invalid parameters (https://www.jsonrpc.org/specification#error_object)."""


def _asked_for(
    name: str, tool_args: dict[str, Any], ctx: RunContext[Any]
) -> tuple[str, dict[str, Any], int]:
    """Return what the model asked for: the tool's name, its arguments, and how many equal calls of
    the same answer came before it.

    That number tells parallel calls apart. It follows from the recorded answer, so it is the same
    in every replay.
    """  # noqa: D205  one thought
    for message in reversed(ctx.messages):
        if not isinstance(message, ModelResponse):
            continue
        calls = message.tool_calls
        for at, call in enumerate(calls):
            if call.tool_call_id == ctx.tool_call_id:
                given = call.args_as_dict()
                equal = [
                    other
                    for other in calls[:at]
                    if other.tool_name == call.tool_name and other.args_as_dict() == given
                ]
                return call.tool_name, given, len(equal)
    return name, tool_args, 0  # it was called by code, not by the model


def _as_data(result: object) -> object:
    """Return a result that can be kept, of the same type if the program has registered it."""
    try:
        codec.encode(result)
    except errors.EncodingError:
        try:
            return to_jsonable_python(result)
        except PydanticSerializationError:
            pass  # the ledger says what is wrong with it
    return result

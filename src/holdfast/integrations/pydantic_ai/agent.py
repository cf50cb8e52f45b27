"""DurableAgent: an agent of Pydantic AI's, as it is, in a handler that a crash doesn't stop."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar

from pydantic_ai.agent import AbstractAgent, AgentRun, AgentRunResult
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import AgentStreamEvent, UserContent
from pydantic_ai.models import Model
from pydantic_ai.result import StreamedRunResult
from pydantic_ai.run import AgentRunResultEvent
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.toolsets import AbstractToolset, DynamicToolset, ExternalToolset
from pydantic_core import to_json

from holdfast import codec, errors
from holdfast.branches import current_scope
from holdfast.context import Context
from holdfast.integrations.pydantic_ai.effects import Effects
from holdfast.integrations.pydantic_ai.models import RecordedModel
from holdfast.integrations.pydantic_ai.toolsets import RecordedToolset
from holdfast.states import Effect
from holdfast.tool import effect_named

DepsT = TypeVar("DepsT")
OutputT = TypeVar("OutputT")

Prompt = str | Sequence[UserContent] | None


class DurableAgent(Generic[DepsT, OutputT]):
    """An agent whose model requests and tool calls are recorded, and replayed after a crash.

    ::

        agent = Agent("openai:gpt-5-mini", tools=[search, send_email])
        durable = DurableAgent(agent, effects={"search": "read"})

        @runner.task
        async def answer(ctx: Context, question: str) -> str:
            return (await durable.run(ctx, question)).output

    An answer of the model is never paid for twice. What a crash inside a tool does is decided by
    the tool's effect class, which is the first of these that there is: `effects`, the tool's
    metadata (`metadata={"holdfast": "read"}`), a Holdfast `@tool`, the hints of an MCP server; and
    otherwise `once`. A `@tool(approve=True)` is called when a person has approved it.
    Dependencies are handed on and not recorded. Output functions, validators and hooks of the
    agent run again in every replay.

    Args:
        agent: anything that runs like a Pydantic AI agent. It isn't changed.
        effects: the effect class of tools by name.
        trust_hints: what MCP servers say of their own tools counts; with False, a tool of a server
            is `once` unless `effects` says otherwise.

    Raises:
        UsageError: there is no such effect class.
    """

    def __init__(
        self,
        agent: AbstractAgent[DepsT, OutputT],
        *,
        effects: Mapping[str, Effect | str] | None = None,
        trust_hints: bool = True,
    ) -> None:
        self.agent = agent
        named = {name: effect_named(effect) for name, effect in (effects or {}).items()}
        self._effects = Effects(named, trust_hints)

    async def run(
        self,
        ctx: Context,
        user_prompt: Prompt = None,
        **options: Any,
    ) -> AgentRunResult[OutputT]:
        """Run the agent to its end, as `agent.run` does.

        Args:
            ctx: of the handler. Its options (`reuse`, `quota_wait`, `timeout`) count for each model
                request.
            user_prompt: what the agent is asked.
            options: whatever `agent.run` takes: `deps`, `message_history`, `event_stream_handler`,
                `output_type`, …

        Raises:
            ProviderUnavailableError, RequestRejectedError: see `Context.llm`.
            Exception: whatever `agent.run` raises.
        """
        options = self._options(ctx, user_prompt, options)
        with _own_errors():
            return await self.agent.run(user_prompt, **options)

    @asynccontextmanager
    async def run_stream(
        self, ctx: Context, user_prompt: Prompt = None, **options: Any
    ) -> AsyncGenerator[StreamedRunResult[DepsT, OutputT]]:
        """Run the agent and read its last answer while it comes, as `agent.run_stream` does.

        A recorded answer arrives piece by piece, as it came.

        Args:
            ctx: of the handler.
            user_prompt: what the agent is asked.
            options: whatever `agent.run_stream` takes.
        """
        options = self._options(ctx, user_prompt, options)
        with _own_errors():
            async with self.agent.run_stream(user_prompt, **options) as result:
                yield result

    async def run_stream_events(
        self, ctx: Context, user_prompt: Prompt = None, **options: Any
    ) -> AsyncGenerator[AgentStreamEvent | AgentRunResultEvent[OutputT]]:
        """Run the agent and yield its events, as `agent.run_stream_events` does.

        A replay yields the same events.

        Args:
            ctx: of the handler.
            user_prompt: what the agent is asked.
            options: whatever `agent.run_stream_events` takes.
        """
        options = self._options(ctx, user_prompt, options)
        with _own_errors():
            async with self.agent.run_stream_events(user_prompt, **options) as events:
                async for event in events:
                    yield event

    @asynccontextmanager
    async def iter(
        self, ctx: Context, user_prompt: Prompt = None, **options: Any
    ) -> AsyncGenerator[AgentRun[DepsT, OutputT]]:
        """Run the agent node by node, as `agent.iter` does.

        Args:
            ctx: of the handler.
            user_prompt: what the agent is asked.
            options: whatever `agent.iter` takes.
        """
        options = self._options(ctx, user_prompt, options)
        with _own_errors():
            async with self.agent.iter(user_prompt, **options) as run:
                yield run

    def _options(self, ctx: Context, prompt: Prompt, options: dict[str, Any]) -> dict[str, Any]:
        history: Sequence[Any] = options.get("message_history") or ()
        run_id = _run_id(ctx, self.agent.name, prompt, len(history))
        recording = _Recording(ctx, self._effects, run_id)
        return options | {"capabilities": [*(options.get("capabilities") or ()), recording]}


class _Recording(AbstractCapability[Any]):
    """Puts what records between an agent and its model and tools, for one run."""

    def __init__(self, context: Context, effects: Effects, run_id: str) -> None:
        self._context = context
        self._effects = effects
        self._run_id = run_id

    def get_ordering(self) -> CapabilityOrdering:
        """Next to the model: what is recorded is what is sent."""
        return CapabilityOrdering(position="innermost")

    def get_default_run_id(self) -> str:
        """Return the same id in every replay."""
        return self._run_id

    def get_default_conversation_id(self, run_id: str) -> str:
        """Return the same id in every replay."""
        return run_id

    def get_wrapper_model(self, model: Model) -> Model:
        """Record the model's answers."""
        return RecordedModel(model, self._context)

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """Record the calls of each toolset that has tools of its own."""
        return toolset.visit_and_replace(self._recorded)

    async def handle_deferred_tool_calls(
        self,
        ctx: RunContext[Any],  # noqa: ARG002  the agent's, not needed
        *,
        requests: DeferredToolRequests,
    ) -> DeferredToolResults | None:
        """Let calls through that need an approval: the ledger asks people for it, call by call.

        There it is for this call and no other, and used up in the transaction of its intent.
        """
        if not requests.approvals:
            return None
        through = {call.tool_call_id: True for call in requests.approvals}
        return DeferredToolResults(approvals=dict(through))

    def _recorded(self, leaf: AbstractToolset[Any]) -> AbstractToolset[Any]:
        if isinstance(leaf, ExternalToolset | RecordedToolset):
            return leaf
        if isinstance(leaf, DynamicToolset):
            return self._recorded_when_made(leaf)
        return RecordedToolset(leaf, self._context, self._effects)

    def _recorded_when_made(self, dynamic: DynamicToolset[Any]) -> DynamicToolset[Any]:
        made: dict[int, tuple[AbstractToolset[Any], AbstractToolset[Any]]] = {}

        async def make(ctx: RunContext[Any]) -> AbstractToolset[Any] | None:
            toolset = dynamic.toolset_func(ctx)
            toolset = await toolset if inspect.isawaitable(toolset) else toolset
            if toolset is None:
                return None
            if id(toolset) not in made:  # the same one again needn't be entered again
                made[id(toolset)] = toolset, toolset.visit_and_replace(self._recorded)
            return made[id(toolset)][1]

        return DynamicToolset(make, per_run_step=dynamic.per_run_step, id=dynamic.id)


def _run_id(ctx: Context, name: str | None, prompt: Prompt, history: int) -> str:
    """Return what names a run of an agent in its item: the same in every replay."""
    asked = to_json(prompt, fallback=repr)
    run = [ctx.task.task_id, ctx.item_id, current_scope.get(), name, asked, history]
    return codec.digest(run).hex()[:32]


@contextmanager
def _own_errors() -> Generator[None]:
    """Raise a provider's failure as `Context.llm` does, if the agent couldn't do anything."""
    try:
        yield
    except ModelAPIError as error:
        if isinstance(error.__cause__, errors.HoldfastError):
            raise error.__cause__ from None
        raise

"""One conversation with a model in a mode: what it is told, its tools, what it may do."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from holdfast import errors, providers
from holdfast.agents.modes import Mode
from holdfast.agents.refusals import Refusal
from holdfast.agents.sandbox import Sandbox
from holdfast.agents.workspace_tools import OnRefusal, WorkspaceTools, answering
from holdfast.branches import current_scope
from holdfast.context import Context
from holdfast.evidence import Evidence, EvidencePack
from holdfast.failures import tag
from holdfast.redaction import redact
from holdfast.states import Effect, EntryKind
from holdfast.store import Store, verbs
from holdfast.threads import start_thread
from holdfast.tool import Tool, tool_of

MOST_REQUESTS = 200
"""Model requests of one conversation."""

CORRECTIONS = 3
"""How often a call or an output of no valid form goes back to the model with the reason."""


class Setting(msgspec.Struct, frozen=True):
    """What a conversation has besides its mode.

    Args:
        model: a name such as `openai:gpt-5-mini`, or a model of Pydantic AI's.
        store: the database, whose timeline is told of every call that isn't permitted.
        base_url: where the model is, if it is named and isn't at its provider.
        repeatable: how commands begin that may run again after a crash.
        evidence: claims whose commands may run again, besides those that the mode owes.
        sandbox: whether commands run in one.
    """

    model: Any
    store: Store
    base_url: str | None = None
    repeatable: Sequence[Sequence[str]] = ()
    evidence: Iterable[Evidence] = ()
    sandbox: Sandbox | str = Sandbox.AUTO


async def converse(
    ctx: Context,
    mode: Mode,
    prompt: str,
    setting: Setting,
    *,
    output: Any = None,  # noqa: ANN401  whatever Pydantic knows
    check: Callable[[Any], object] | None = None,
) -> Any:  # noqa: ANN401  the output's type
    """Talk with a model until it gives an output; every answer and every call is recorded.

    Args:
        ctx: of the handler. Its options count for each model request.
        mode: says what the model is told, and what it may do.
        prompt: what it is asked.
        setting: which model, and where.
        output: the type of what is to come out; the mode's when None.
        check: raises an `InputError` for an output that doesn't do; the model is told why.

    Raises:
        GaveUpError: the model says that it can't be done.
        OutputRejectedError: its output didn't do, however often it was corrected.
        UsageError: Pydantic AI isn't installed, or a sandbox is required and there is none.
        ProviderUnavailableError, RequestRejectedError: see `Context.llm`.
    """
    providers.require()
    # It takes seconds, in which other work goes on.
    await start_thread(lambda: importlib.import_module("holdfast.integrations.pydantic_ai"))
    from pydantic_ai import Agent, ModelRetry, UsageLimits
    from pydantic_ai import Tool as AgentTool
    from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded

    from holdfast.agents.offering import GaveUp, Offered, outputs_of
    from holdfast.integrations.pydantic_ai import DurableAgent
    from holdfast.providers.asking import model_named

    offered, hidden = _tools(ctx, mode, setting)
    named = isinstance(setting.model, str)
    agent: Agent[None, Any] = Agent(
        model_named(setting.model, setting.base_url) if named else setting.model,
        name=mode.name,
        instructions=mode.instructions,
        output_type=outputs_of(mode.output if output is None else output),
        # One effect after the other, in the order that the model gave: an edit, and then the test.
        tools=[
            AgentTool(tool, name=name, sequential=tool.effect is not Effect.READ)
            for name, tool in (offered | hidden).items()
        ],
        retries=CORRECTIONS,
        capabilities=[Offered(hidden.keys())],
    )

    if check is not None:

        @agent.output_validator
        def validate(given: Any) -> Any:  # noqa: ANN401
            try:
                if not isinstance(given, GaveUp):
                    check(given)
            except errors.InputError as error:
                raise ModelRetry(str(error)) from error
            return given

    try:
        limits = UsageLimits(request_limit=MOST_REQUESTS)
        said = (await DurableAgent(agent).run(ctx, prompt, usage_limits=limits)).output
    except (UnexpectedModelBehavior, UsageLimitExceeded) as error:
        message = f"The model of {mode.name} gave no answer that does: {error}"
        rejected = errors.OutputRejectedError(message)
        raise tag(rejected, *_last_answer(ctx, setting.store)) from error
    if isinstance(said, GaveUp):
        message = f"The model of {mode.name} gave up: {said.reason}"
        gave_up = errors.GaveUpError(message, mode=mode.name, reason=said.reason)
        raise tag(gave_up, *_last_answer(ctx, setting.store))
    return said


def _last_answer(ctx: Context, store: Store) -> list[int]:
    """Return the entry of the answer that didn't do: a retry asks for another, and pays for it."""
    entries = store.read(verbs.read_journal(ctx.task.task_id, ctx.item_id))
    scope = current_scope.get()
    answers = [e.seq for e in entries if e.kind is EntryKind.LLM and e.scope == scope]
    return answers[-1:]


def _tools(
    ctx: Context, mode: Mode, setting: Setting
) -> tuple[dict[str, Tool[..., Any]], dict[str, Tool[..., Any]]]:
    """Return the tools that the model is shown, by name, and those that are there to refuse."""
    spoken, on_refusal = f"The mode {mode.name}", _told_of(ctx, setting.store)
    tools = WorkspaceTools(
        ctx.workspace,
        mode.permissions,
        repeatable=setting.repeatable,
        evidence=[*EvidencePack.of(mode.evidence).items, *setting.evidence],
        sandbox=setting.sandbox,
        mode=spoken,
        on_refusal=on_refusal,
    )
    own = {_shown_name(known): known for known in (tool_of(t, Effect.ONCE) for t in mode.tools)}
    shown = {tool.name: tool for tool in tools.permitted if tool.name not in own}
    hidden = {tool.name: tool for tool in tools.all if tool.name not in own | shown}
    for name, known in own.items():
        refusing = _refusing(known, mode, spoken, on_refusal)
        (shown if refusing is known else hidden)[name] = refusing
    return shown, hidden


def _told_of(ctx: Context, store: Store) -> OnRefusal:
    """Return what puts a refused call into the task's timeline."""

    def tell(tool: str, reason: str) -> None:
        data: dict[str, object] = {"tool": tool, "reason": redact(reason)}
        event = verbs.add_event(ctx.task.task_id, ctx.item_id, "tool_refused", data, store.now())
        store.commit(event).behind()

    return tell


def _shown_name(known: Tool[..., Any]) -> str:
    """Return what a model knows the tool as: the function's own name."""
    return str(getattr(known, "__name__", known.name))


def _refusing(
    known: Tool[..., Any], mode: Mode, spoken: str, on_refusal: OnRefusal | None
) -> Tool[..., Any]:
    """Return the tool, or where its effect isn't permitted one that says so and does nothing."""
    name = _shown_name(known)
    try:
        mode.permissions.require_effect(known.effect, name, spoken)
    except Refusal as refusal:
        reason = str(refusal.args[0])

        @functools.wraps(known.function)  # the parameters are the tool's own
        def refuse(*_: Any, **__: Any) -> object:
            raise Refusal(reason)

        return Tool(answering(refuse, name, on_refusal), effect=Effect.READ, name=known.name)
    return known

"""What is said to a model: accepted in several forms, one form inside, and the data it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, cast

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from holdfast import errors

Data = dict[str, Any]

Messages = str | Sequence[Any]
"""A prompt; or a list of Pydantic AI messages, of `{"role": …, "content": …}`, or of both."""

_NEVER_SENT = frozenset(
    {"timestamp", "run_id", "conversation_id", "metadata", "usage", "provider_url", "workspace_ref"}
)
"""Fields of messages and their parts that no model sees, and that differ from run to run."""


def conversation(messages: Messages) -> list[ModelMessage]:
    """Return messages in Pydantic AI's form.

    Args:
        messages: a prompt, Pydantic AI messages, or dicts with `role` and `content`: `system`,
            `user`, `assistant` (also with `tool_calls`, as OpenAI's chat API has them) and `tool`
            (with `tool_call_id`).

    Raises:
        ArgumentsError: a message is of none of these forms.
    """
    if isinstance(messages, str):
        return [ModelRequest(parts=[UserPromptPart(messages)])]
    given: list[ModelMessage] = []
    names: dict[str, str] = {}
    for message in messages:
        if isinstance(message, ModelRequest | ModelResponse):
            given.append(message)
            names |= _names_of(message)
        elif isinstance(message, Mapping):
            _add(given, cast("Mapping[str, Any]", message), names)
        else:
            _refuse(message)
    if not given:
        raise errors.ArgumentsError("There is no message for the model. Nothing was sent.")
    return given


def _names_of(message: ModelMessage) -> dict[str, str]:
    """Return the names of the tools that a message calls, by the ids of the calls."""
    if isinstance(message, ModelRequest):
        return {}
    return {call.tool_call_id: call.tool_name for call in message.tool_calls}


def canonical(messages: Iterable[ModelMessage]) -> list[Data]:
    """Return what of the messages a model sees, as data that is the same in every run."""
    dumped: list[Data] = ModelMessagesTypeAdapter.dump_python(
        list(messages), mode="json", exclude_none=True
    )
    return [_seen(message) for message in dumped]


def _seen(message: Data) -> Data:
    seen = {name: value for name, value in message.items() if name not in _NEVER_SENT}
    parts: list[Data] = message["parts"]
    seen["parts"] = [
        {name: value for name, value in part.items() if name not in _NEVER_SENT} for part in parts
    ]
    return seen


def _add(given: list[ModelMessage], message: Mapping[str, Any], names: dict[str, str]) -> None:
    make = _ROLES.get(cast("str", message.get("role")))
    if make is None:
        _refuse(message)
    try:
        part = make(message, names)
    except KeyError as missing:
        text = f"A message with the role {message['role']!r} has no {missing}. Nothing was sent."
        raise errors.ArgumentsError(text) from None
    if isinstance(part, list):
        given.append(ModelResponse(parts=part))
    elif given and isinstance(given[-1], ModelRequest):
        given[-1] = ModelRequest(parts=[*given[-1].parts, part])
    else:
        given.append(ModelRequest(parts=[part]))


def _system(message: Mapping[str, Any], _: dict[str, str]) -> ModelRequestPart:
    return SystemPromptPart(message["content"])


def _user(message: Mapping[str, Any], _: dict[str, str]) -> ModelRequestPart:
    return UserPromptPart(message["content"])


def _assistant(message: Mapping[str, Any], names: dict[str, str]) -> list[ModelResponsePart]:
    calls: Sequence[Mapping[str, Any]] = message.get("tool_calls") or ()
    content: str | None = message.get("content") if calls else message["content"]
    parts: list[ModelResponsePart] = [TextPart(content)] if content else []
    for call in calls:
        function: Mapping[str, Any] = call.get("function", call)
        names[call["id"]] = function["name"]
        parts.append(ToolCallPart(function["name"], function["arguments"], call["id"]))
    return parts


def _tool(message: Mapping[str, Any], names: dict[str, str]) -> ModelRequestPart:
    call_id: str = message["tool_call_id"]
    content: Any = message["content"]
    text = content if isinstance(content, str) else json.dumps(content)
    return ToolReturnPart(names.get(call_id) or message.get("name") or "tool", text, call_id)


_ROLES: dict[
    str,
    Callable[[Mapping[str, Any], dict[str, str]], ModelRequestPart | list[ModelResponsePart]],
] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool,
}


def _refuse(message: object) -> NoReturn:
    text = (
        f"{message!r:.80} is no message. Nothing was sent. Use a text, Pydantic AI messages, or "
        f"dicts with a role (system, user, assistant, tool) and content."
    )
    raise errors.ArgumentsError(text)

"""A request to a model: what identifies it, as data, and how it is sent."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import msgspec
from pydantic import TypeAdapter
from pydantic_ai import Tool as AgentTool
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse, infer_model
from pydantic_ai.providers import Provider, infer_provider_class
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from pydantic_core import PydanticSerializationError, to_jsonable_python

from holdfast import errors
from holdfast.providers import answers
from holdfast.providers.conversation import Messages, canonical, conversation
from holdfast.providers.outputs import Output
from holdfast.providers.prices import at_most
from holdfast.providers.refusals import translated
from holdfast.tool import Tool
from holdfast.usage import Usage

Data = dict[str, Any]
Sink = Callable[[ModelResponseStreamEvent], None]
"""Is given what a stream brings, while it comes."""

_HOW_IT_IS_SENT = frozenset(
    {
        "timeout",
        "request_timeout",
        "first_event_timeout",
        "max_retries",
        "extra_headers",
        "framing_announcement",
    }
)
"""Settings that say how a request is sent, not what is asked. Headers may hold secrets, too."""

_PUBLIC = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}
"""Where the models of a provider are if nothing else is said."""

_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
"""What providers take for the name of a tool."""

_parameters = TypeAdapter(ModelRequestParameters)


class Asked(msgspec.Struct, frozen=True):
    """A request that can be sent.

    Args:
        model: the model, ready to be asked.
        name: what the journal calls it, such as `openai:gpt-5-mini`.
        messages: the conversation.
        settings: as Pydantic AI has them.
        parameters: tools and what is to come out.
        prepared: an agent has prepared the messages for the model already.
    """

    model: Model
    name: str
    messages: list[ModelMessage]
    settings: ModelSettings
    parameters: ModelRequestParameters
    prepared: bool = False

    def data(self) -> Data:
        """Return what identifies the request: everything that the model is told, and nothing else.

        Raises:
            EncodingError: a setting is no data.
        """
        settings = {
            name: value for name, value in self.settings.items() if name not in _HOW_IT_IS_SENT
        }
        parameters = _parameters.dump_python(self.parameters, mode="json", exclude_defaults=True)
        for tool in (*parameters.get("function_tools", ()), *parameters.get("output_tools", ())):
            tool.pop("metadata", None)  # no model sees it
        try:
            told = to_jsonable_python(settings)
        except PydanticSerializationError as error:
            message = f"The settings of {self.name} are no data: {error}. Nothing was sent."
            raise errors.EncodingError(message, path="$.settings") from error
        request: Data = {"model": self.name, "messages": canonical(self.messages)}
        if told:
            request["settings"] = told
        if parameters:
            request["parameters"] = {
                name: sorted(value) if name in _SETS else value
                for name, value in parameters.items()
            }
        return request

    @property
    def shared_name(self) -> str:
        """What tells it from requests to other servers, where outputs are shared between runs."""
        try:
            url, system = self.model.base_url, self.model.system
        except (AttributeError, NotImplementedError, UserError):
            return self.name
        if url is None or urlsplit(url).hostname == _PUBLIC.get(system):
            return self.name
        return f"{self.name} at {url.rstrip('/')}"

    def at_most(self, arguments: Mapping[str, Any]) -> Usage:
        """Return what it may use, for a budget; see `holdfast.providers.prices.at_most`."""
        return at_most(self.model, arguments["request"], dict(self.settings).get("max_tokens"))

    async def send(self) -> Data:
        """Ask the model, and return its answer as data.

        Raises:
            RateLimitedError, ProviderUnavailableError, RequestRejectedError: see `translated`.
        """
        with translated(self.name):
            return answers.encode(await self._request())

    async def send_streaming(self, sink: Sink) -> Data:
        """Ask the model, hand on what its answer brings, and return the answer as data.

        Raises:
            RateLimitedError, ProviderUnavailableError, RequestRejectedError: see `translated`.
        """
        events: list[ModelResponseStreamEvent] = []
        try:
            with translated(self.name):
                response = await self._read_stream(events, sink)
        except (errors.ProviderUnavailableError, errors.RateLimitedError) as error:
            if not events:
                raise
            text, status = str(error), getattr(error, "status", None)
            raise errors.ProviderUnavailableError(text, status=status, begun=True) from error
        return answers.encode(response, answers.pieces_of(events, response))

    async def _read_stream(
        self, events: list[ModelResponseStreamEvent], sink: Sink
    ) -> ModelResponse:
        async with self._request_stream() as stream:
            async for event in stream:
                events.append(event)
                sink(event)
            response = stream.get()
        if response.state == "incomplete":
            text = f"The answer of {self.name} ended before it was complete."
            raise errors.ProviderUnavailableError(text)
        return response

    async def _request(self) -> ModelResponse:
        settings = self._without_retries()
        if self.prepared:
            return await self.model.request(self.messages, settings, self.parameters)
        return await model_request(
            self.model,
            self.messages,
            model_settings=settings,
            model_request_parameters=self.parameters,
        )

    @asynccontextmanager
    async def _request_stream(self) -> AsyncGenerator[StreamedResponse]:
        settings = self._without_retries()
        stream: AbstractAsyncContextManager[StreamedResponse] = (
            self.model.request_stream(self.messages, settings, self.parameters)
            if self.prepared
            else model_request_stream(
                self.model,
                self.messages,
                model_settings=settings,
                model_request_parameters=self.parameters,
            )
        )
        async with stream as opened:
            yield opened

    def _without_retries(self) -> ModelSettings:
        """Switch the retries of the provider's SDK off: each request is to be an entry."""
        return cast("ModelSettings", {"max_retries": 0, **self.settings})


_SETS = frozenset({"revealed_tool_names", "introduced_tool_names", "deferred_capability_ids"})


def asked(
    model: str | Model,
    messages: Messages,
    *,
    tools: Iterable[Any] = (),
    output: Output | None = None,
    settings: Mapping[str, Any] | None = None,
    base_url: str | None = None,
) -> Asked:
    """Return a request.

    Args:
        model: a name such as `openai:gpt-5-mini`, or a Pydantic AI model.
        messages: see `conversation`.
        tools: what the model may call: functions, tools of Holdfast's or Pydantic AI's, or their
            definitions. Nothing is called here.
        output: what is to come out, other than text or tool calls.
        settings: `temperature`, `max_tokens` and whatever else Pydantic AI's `ModelSettings` has.
        base_url: where the model is, if its name is given and it isn't at its provider.

    Raises:
        RequestRejectedError: no such model, or no key for it.
        ArgumentsError: a message or a tool is of no known form.
    """
    found = model_named(model, base_url) if isinstance(model, str) else model
    parameters = ModelRequestParameters(function_tools=[_definition(tool) for tool in tools])
    return Asked(
        model=found,
        name=model if isinstance(model, str) else found.model_id,
        messages=conversation(messages),
        settings=cast("ModelSettings", dict(settings or {})),
        parameters=parameters if output is None else output.ask_for(parameters),
    )


def _definition(tool: object) -> ToolDefinition:
    if isinstance(tool, ToolDefinition):
        return tool
    if isinstance(tool, AgentTool):
        return cast("AgentTool[Any]", tool).tool_def
    if isinstance(tool, Tool):
        known = cast("Tool[..., Any]", tool)
        name = known.name if _NAME.fullmatch(known.name) else None  # else the function's own
        return AgentTool[Any](known.function, name=name).tool_def
    if callable(tool):
        return AgentTool[Any](cast("Callable[..., Any]", tool)).tool_def
    message = f"{tool!r:.80} is no tool. Nothing was sent. Use a function, or a tool's definition."
    raise errors.ArgumentsError(message)


# -- which model a name means ---------------------------------------------------------------------

_Key = tuple[str, str | None, str | None, str | None]

_models: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, Model]] = WeakKeyDictionary()
"""Models by name, base URL, and what the environment says of them: to make one takes a while, and
its connections belong to an event loop."""


def model_named(name: str, base_url: str | None = None) -> Model:
    """Return the model of a name, the same one for each event loop.

    Args:
        name: such as `openai:gpt-5-mini`.
        base_url: where it is, if it isn't at its provider.

    Raises:
        RequestRejectedError: there is no such model, or no key for it.
    """
    variables = name.partition(":")[0].partition("-")[0].upper()
    url, secret = (os.environ.get(f"{variables}_{each}") for each in ("BASE_URL", "API_KEY"))
    known, key = _models.setdefault(asyncio.get_running_loop(), {}), (name, base_url, url, secret)
    model = known.get(key)
    if model is None:
        with translated(name):
            try:
                model = infer_model(name, _provider_at(base_url)) if base_url else infer_model(name)
            except ImportError as error:
                text = f"{name} needs a package that isn't installed: {error}"
                raise errors.RequestRejectedError(text) from error
        known[key] = model
    return model


def _provider_at(base_url: str) -> Callable[[str], Provider[Any]]:
    """Return what makes a provider whose server is at that URL."""

    def make(name: str) -> Provider[Any]:
        cls = cast("Callable[..., Provider[Any]]", infer_provider_class(name))
        try:
            return cls(base_url=base_url)
        except TypeError:
            message = f"The provider {name} has no base URL to change. Nothing was sent."
            raise errors.ArgumentsError(message) from None

    return make

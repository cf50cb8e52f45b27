"""An agent's model, each request through the cache."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any, cast

from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import (
    FinalResultEvent,
    ModelMessage,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_ai.usage import RequestUsage

from holdfast import errors
from holdfast.context import Context
from holdfast.model_calls import ModelStream
from holdfast.providers.asking import Asked


class RecordedModel(WrapperModel):
    """A model whose answers are recorded, and replayed.

    Args:
        wrapped: the agent's model.
        context: of the handler that the agent runs in.
    """

    def __init__(self, wrapped: Model, context: Context) -> None:
        super().__init__(wrapped)
        self._context = context

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the recorded answer, or ask the model."""
        asked = self._asked(messages, model_settings, model_request_parameters)
        with _as_the_agent_expects(self):
            return cast("ModelResponse", await self._context.llm(asked))

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,  # noqa: ARG002  the agent's, not needed
    ) -> AsyncGenerator[StreamedResponse]:
        """Give the answer while it comes, or as it came; it ends when it is durable."""
        asked = self._asked(messages, model_settings, model_request_parameters)
        stream = self._context.stream(asked)
        events = stream.events()
        try:
            with _as_the_agent_expects(self):
                first = await anext(events, None)  # a failure to begin is raised here
            yield _Relayed(self, model_request_parameters, stream, events, first)
        finally:
            await events.aclose()

    def _asked(
        self,
        messages: list[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> Asked:
        return Asked(
            model=self.wrapped,
            name=self.wrapped.model_id,
            messages=messages,
            settings=cast("ModelSettings", dict(settings or {})),
            parameters=parameters,
            prepared=True,
        )


@contextmanager
def _as_the_agent_expects(model: Model) -> Generator[None]:
    """Raise a provider's failure as Pydantic AI does, so that an agent can fall back from it."""
    try:
        yield
    except (
        errors.ProviderUnavailableError,
        errors.RateLimitedError,
        errors.RequestRejectedError,
    ) as error:
        raise ModelAPIError(model.model_name, str(error)) from error


class _Relayed(StreamedResponse):
    """The stream of a recorded answer."""

    def __init__(
        self,
        model: Model,
        parameters: ModelRequestParameters,
        stream: ModelStream,
        events: AsyncGenerator[ModelResponseStreamEvent],
        first: ModelResponseStreamEvent | None,
    ) -> None:
        super().__init__(parameters)
        self._model = model
        self._stream = stream
        self._events = events
        self._first = first
        self._whole: ModelResponse | None = None
        self._begun = ModelResponse(
            parts=[],
            model_name=model.model_name,
            provider_name=model.system,
            provider_url=model.base_url,
        )

    def __aiter__(self) -> AsyncIterator[ModelResponseStreamEvent]:
        if self._event_iterator is None:  # what the base class would add has been added
            self._event_iterator = self._get_event_iterator()
        return self._event_iterator

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        if self._first is not None:
            self._note(self._first)
            yield self._first
        with _as_the_agent_expects(self._model):
            async for event in self._events:
                self._note(event)
                yield event
        self._whole = cast("ModelResponse", self._stream.response)
        self._finished = not self._cancelled

    def _note(self, event: ModelResponseStreamEvent) -> None:
        if isinstance(event, PartStartEvent | PartDeltaEvent):
            self._parts_manager.apply_event(event)
        elif isinstance(event, FinalResultEvent):
            self.final_result_event = event

    async def close_stream(self) -> None:
        """Cancel the request."""
        with suppress(RuntimeError):  # somebody is reading it right now, and goes on
            await self._events.aclose()

    def get(self) -> ModelResponse:
        """Return the answer; what has come of it so far."""
        return super().get() if self._whole is None else self._whole

    @property
    def usage(self) -> RequestUsage:
        """What was used; known when the answer is complete."""
        return self._answer.usage

    @property
    def model_name(self) -> str:
        """The model's name, as the provider says it."""
        return self._answer.model_name or self._model.model_name

    @property
    def provider_name(self) -> str | None:
        """The provider."""
        return self._answer.provider_name

    @property
    def provider_url(self) -> str | None:
        """Where the provider is."""
        return self._answer.provider_url

    @property
    def timestamp(self) -> datetime:
        """When the answer was given."""
        return self._answer.timestamp

    @property
    def _answer(self) -> ModelResponse:
        return self._begun if self._whole is None else self._whole

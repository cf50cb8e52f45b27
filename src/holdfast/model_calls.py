"""Calls of providers' models: each try a call through the cache, so that each is an entry.

A provider that fails is asked again a few times, in place; then the attempt fails, and the item's
retry policy decides. A replay of those tries fails and goes on as they did.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from holdfast import errors, providers
from holdfast.answer import Answer
from holdfast.attempt import Attempt
from holdfast.budgets import Reserve
from holdfast.failures import failed_entries, tag
from holdfast.llm_cache import Reuse
from holdfast.states import Effect
from holdfast.threads import start_thread
from holdfast.tool import Tool
from holdfast.usage import Usage, usage_of

if TYPE_CHECKING:  # they import Pydantic AI, which takes seconds
    from holdfast.providers.asking import Asked
    from holdfast.providers.outputs import Output

Data = dict[str, Any]

TRIES = 3
"""How often a provider that fails is asked before the attempt fails."""

PAUSE = 0.5
"""Seconds before the second try; doubled each time."""


class How(msgspec.Struct, frozen=True):
    """How a model is called; see `CallOptions`."""

    name: str | None = None
    key: str | None = None
    model: str | None = None
    reuse: Reuse | None = None
    timeout: float | None = None
    usage: Callable[[Any], Usage | None] = usage_of
    reserve: Reserve | None = None
    quota_wait: float | None = None


async def describe(
    model: Any,  # noqa: ANN401  a name or a model of Pydantic AI's
    messages: Any,  # noqa: ANN401  see `holdfast.providers.conversation`
    *,
    tools: Iterable[Any],
    output: Any,  # noqa: ANN401  any type
    settings: Mapping[str, Any] | None,
    base_url: str | None,
) -> tuple[Asked, Output | None]:
    """Return a request, and what is to come out of it; see `holdfast.providers.asking.asked`.

    A request that is one already is returned as it is.
    """
    providers.require()
    asking: Any = await _imported("holdfast.providers.asking")
    if isinstance(model, asking.Asked):
        return model, None
    outputs: Any = await _imported("holdfast.providers.outputs")
    wanted = None if output is None else outputs.output_of(output)
    asked = asking.asked(
        model, messages, tools=tools, output=wanted, settings=settings, base_url=base_url
    )
    return asked, wanted


async def _imported(name: str) -> Any:  # noqa: ANN401  a module
    """Import a module, in a thread: for the seconds it takes, other work goes on."""
    return await start_thread(lambda: importlib.import_module(name))


class ModelCalls:
    """What one attempt asks providers' models.

    Args:
        attempt: what its context works with.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def ask(self, asked: Asked, how: How, output: Output | None = None) -> Answer:
        """Return the recorded answer to a request, or ask the model.

        Raises:
            ProviderUnavailableError: it failed as often as it was tried.
            OutputRejectedError: so did its answers.
            RequestRejectedError: asking again won't help.
        """
        from holdfast.providers import answers

        async def send() -> Data:
            data = await asked.send()
            if output is not None:
                output.read(asked.name, answers.decode(data)[0])
            return data

        with self._attempt.branches.call():
            data = await self._until_answered(asked, how, send)
        return answers.decode(data)[0]

    async def stream(
        self, asked: Asked, how: How, finished: Callable[[Answer], None]
    ) -> AsyncGenerator[Any]:
        """Yield what an answer brings while it comes, or as it came; end when it is durable.

        Once something has come, a stream that breaks off isn't tried again here: whoever reads it
        would read the beginning twice.

        Args:
            asked: the request.
            how: it is called.
            finished: is given the answer, before this ends.

        Raises:
            Exception: as `ask`.
        """
        from holdfast.providers import answers

        coming: asyncio.Queue[Any] = asyncio.Queue()
        begun = False

        def take(event: object) -> None:
            nonlocal begun
            begun = True
            coming.put_nowait(event)

        async def ask() -> Data:
            try:
                return await self._until_answered(asked, how, lambda: asked.send_streaming(take))
            finally:
                coming.put_nowait(None)

        with self._attempt.branches.call():
            asking = asyncio.ensure_future(ask())
            try:
                while (event := await coming.get()) is not None:
                    yield event
                data = await asking
            finally:
                await _end(asking)
        response, pieces = answers.decode(data)
        finished(response)
        if not begun:
            async for event in answers.ReplayedStream(response, pieces, asked.parameters):
                yield event

    async def _until_answered(
        self, asked: Asked, how: How, send: Callable[[], Awaitable[Data]]
    ) -> Data:
        failed: list[int] = []
        for number in itertools.count(1):
            before = self._attempt.journal.seq
            try:
                return await self._try(asked, how, send, number)
            except (errors.ProviderUnavailableError, errors.OutputRejectedError) as error:
                failed += failed_entries(error)
                if number == TRIES or getattr(error, "begun", False):
                    tag(error, *failed)
                    raise
            if self._attempt.journal.seq != before:  # it failed just now
                await asyncio.sleep(PAUSE * 2 ** (number - 1))
        raise AssertionError

    async def _try(
        self, asked: Asked, how: How, send: Callable[[], Awaitable[Data]], number: int
    ) -> Data:
        from holdfast.providers import answers, prices

        async def ask(request: Data) -> Data:  # noqa: ARG001  it identifies the call
            await self._attempt.hold(asked.model)
            return await send()

        def measure(answer: Data) -> Usage | None:
            response = answers.decode(answer)[0]
            return prices.used(response) if how.usage is usage_of else how.usage(response)

        key = how.key if how.key is None or number == 1 else f"{how.key} (try {number})"
        answer = await self._attempt.llm_cache.call(
            Tool(ask, effect=Effect.LLM, no_effect=(errors.RequestRejectedError,)),
            (asked.data(),),
            {},
            name=how.name or asked.name,
            key=key,
            model=how.model or asked.shared_name,
            reuse=how.reuse,
            measure=measure,
            reserve=asked.at_most if how.reserve is None else how.reserve,
            quota_wait=how.quota_wait,
            timeout=how.timeout,
        )
        return cast("Data", answer)


async def _end(asking: asyncio.Future[Data]) -> None:
    asking.cancel()
    await asyncio.wait((asking,))
    if not asking.cancelled():
        asking.exception()  # retrieved: it was raised where it was waited for, or nobody reads on


class ModelStream:
    """An answer that arrives piece by piece; see `Context.stream`. Iterate it once.

    Args:
        open_: makes the request; is given what takes the whole answer.
    """

    def __init__(
        self,
        open_: Callable[[Callable[[Answer], None]], AsyncGenerator[Any]],
    ) -> None:
        self._open = open_
        self._response: Answer | None = None

    @property
    def response(self) -> Answer:
        """The whole answer, with tool calls and usage.

        Raises:
            UsageError: the stream hasn't been read to its end.
        """
        if self._response is None:
            message = "The answer isn't complete yet. Read the stream to its end first."
            raise errors.UsageError(message)
        return self._response

    async def __aiter__(self) -> AsyncGenerator[str]:
        """Yield the text of the answer, piece by piece."""
        events = self.events()
        try:
            async for event in events:
                from holdfast.providers.answers import text_of  # there is one, so it's imported

                if text := text_of(event):
                    yield text
        finally:
            await events.aclose()

    async def events(self) -> AsyncGenerator[Any]:
        """Yield Pydantic AI's stream events: text, thinking and tool calls."""

        def finish(response: Answer) -> None:
            self._response = response

        events = self._open(finish)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

"""Answers as data, and a recorded stream as it came.

Of a stream only the answer is kept, and how long each of its pieces was: a byte or two for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any, cast

from pydantic_ai.messages import (
    ModelMessagesTypeAdapter,
    ModelResponse,
    ModelResponsePart,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models import CompletedStreamedResponse, ModelRequestParameters

Data = dict[str, Any]

Pieces = list[list[int]]
"""Runs of pieces of one part: its index, then the length of each piece in characters; `_NONE` where
the arguments of a tool call were still to come."""

_NONE = -1


def encode(response: ModelResponse, pieces: Pieces | None = None) -> Data:
    """Return an answer as it is recorded: plain data, in Pydantic AI's own serialized form."""
    (dumped,) = ModelMessagesTypeAdapter.dump_python([response], mode="json", exclude_none=True)
    data: Data = {"response": dumped}
    if pieces is not None:
        data["pieces"] = pieces
    return data


def decode(data: Data) -> tuple[ModelResponse, Pieces | None]:
    """Return the answer that `encode` was given, and how it was streamed."""
    (response,) = ModelMessagesTypeAdapter.validate_python([data["response"]])
    return cast("ModelResponse", response), data.get("pieces")


def text_of(event: ModelResponseStreamEvent) -> str:
    """Return what an event adds to the text of the answer."""
    match event:
        case PartStartEvent(part=TextPart(content=content)):
            return content
        case PartDeltaEvent(delta=TextPartDelta(content_delta=content)):
            return content
        case _:
            return ""


def pieces_of(events: Iterable[ModelResponseStreamEvent], response: ModelResponse) -> Pieces | None:
    """Return how an answer was cut into pieces; None if it can't be cut again in the same way."""
    pieces: Pieces = []
    texts: dict[int, str] = {}
    for event in events:
        if not isinstance(event, PartStartEvent | PartDeltaEvent):
            continue
        text = _content(event.part) if isinstance(event, PartStartEvent) else _delta(event.delta)
        starts_again = isinstance(event, PartStartEvent) and event.index in texts
        if text is None or starts_again:
            return None
        texts[event.index] = texts.get(event.index, "") + text
        if not pieces or pieces[-1][0] != event.index:
            pieces.append([event.index])
        pieces[-1].append(_NONE if _has_none_yet(event) else len(text))
    whole = {index: _content(part) for index, part in enumerate(response.parts)}
    return pieces if texts == whole else None


def _has_none_yet(event: PartStartEvent | PartDeltaEvent) -> bool:
    return isinstance(event, PartStartEvent) and getattr(event.part, "args", "") is None


def _content(part: ModelResponsePart) -> str | None:
    """Return the text that a part is streamed as; None for a part that comes whole."""
    match part:
        case TextPart(content=content) | ThinkingPart(content=content):
            return content
        case ToolCallPart(args=str() | None as arguments):
            return arguments or ""
        case _:
            return None


def _delta(delta: object) -> str | None:
    match delta:
        case TextPartDelta(content_delta=text):
            return text
        case ThinkingPartDelta(content_delta=text):
            return text or ""
        case ToolCallPartDelta(args_delta=str() | None as arguments):
            return arguments or ""
        case _:
            return None


class ReplayedStream(CompletedStreamedResponse):
    """A recorded answer that arrives as it did when it was streamed.

    Args:
        response: the answer.
        pieces: how it came; each part comes whole when None.
        parameters: of the request, which say what ends an agent's run.
    """

    def __init__(
        self, response: ModelResponse, pieces: Pieces | None, parameters: ModelRequestParameters
    ) -> None:
        super().__init__(response, model_request_parameters=parameters, replay_events=True)
        self._pieces = pieces

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        if self._pieces is None:
            async for event in super()._get_event_iterator():
                yield event
            return
        begun: dict[int, int] = {}
        for index, *lengths in self._pieces:
            part = self.response.parts[index]
            content = _content(part) or ""
            for length in lengths:
                at = begun.get(index)
                end = begun[index] = (at or 0) + max(length, 0)
                piece = None if length == _NONE else content[at or 0 : end]
                event = _start(index, part, piece) if at is None else _further(index, part, piece)
                self._parts_manager.apply_event(event)
                yield event


def _start(index: int, part: ModelResponsePart, piece: str | None) -> ModelResponseStreamEvent:
    if isinstance(part, ToolCallPart):
        return PartStartEvent(index=index, part=replace(part, args=piece))
    return PartStartEvent(index=index, part=replace(cast("TextPart", part), content=piece or ""))


def _further(index: int, part: ModelResponsePart, piece: str | None) -> ModelResponseStreamEvent:
    if isinstance(part, ToolCallPart):
        delta = ToolCallPartDelta(args_delta=piece, tool_call_id=part.tool_call_id)
        return PartDeltaEvent(index=index, delta=delta)
    if isinstance(part, ThinkingPart):
        return PartDeltaEvent(index=index, delta=ThinkingPartDelta(content_delta=piece))
    return PartDeltaEvent(index=index, delta=TextPartDelta(content_delta=piece or ""))

"""What a provider's headers say, and how a stream is cut again as it was."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import (
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models import ModelRequestParameters

from holdfast.providers import answers
from holdfast.providers.conversation import canonical, conversation
from holdfast.providers.refusals import seconds_until_reset

NOW = "Thu, 26 Nov 2026 00:40:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Thu, 26 Nov 2026 00:41:00 GMT", "date": NOW}, 60.0),
        ({"retry-after": "Thu, 26 Nov 2026 00:39:00 GMT", "date": NOW}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, 0.0),
        # of several limits those of which nothing remains
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1m30s",
                "x-ratelimit-remaining-tokens": "149000",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            90.0,
        ),
        ({"x-ratelimit-reset-requests": "20ms", "x-ratelimit-reset-tokens": "1h2m"}, 3720.0),
        ({"x-ratelimit-reset-requests": "1d"}, 86_400.0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "10",
                "anthropic-ratelimit-requests-reset": "2026-11-26T01:00:00Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-26T00:40:45Z",
                "date": NOW,
            },
            45.0,
        ),
        # without the provider's own time, a point in time says nothing that can be trusted
        ({"anthropic-ratelimit-requests-reset": "2026-11-26T01:00:00Z"}, None),
        ({"x-ratelimit-reset-requests": "1m30"}, None),
    ],
)
def test_the_headers_say_when_to_come_again(headers, seconds):
    assert seconds_until_reset(headers) == seconds


async def _all(stream):
    return [event async for event in stream]


@given(st.lists(st.text(max_size=4), min_size=1), st.lists(st.text(max_size=4), min_size=1))
def test_a_recorded_stream_is_cut_as_it_was(texts, arguments):
    call = ToolCallPart("look", "".join(arguments), "call_1")
    events = [
        PartStartEvent(index=0, part=TextPart(texts[0])),
        *(PartDeltaEvent(index=0, delta=TextPartDelta(each)) for each in texts[1:]),
        PartStartEvent(index=1, part=ToolCallPart("look", arguments[0], "call_1")),
        *(PartDeltaEvent(index=1, delta=ToolCallPartDelta(args_delta=a)) for a in arguments[1:]),
    ]
    response = ModelResponse(parts=[TextPart("".join(texts)), call])
    pieces = answers.pieces_of(events, response)
    assert pieces == [[0, *map(len, texts)], [1, *map(len, arguments)]]

    decoded, kept = answers.decode(answers.encode(response, pieces))
    assert decoded == response
    replayed = answers.ReplayedStream(decoded, kept, ModelRequestParameters())
    again = [
        event
        for event in asyncio.run(_all(replayed))
        if isinstance(event, PartStartEvent | PartDeltaEvent)
    ]
    assert [type(event) for event in again] == [type(event) for event in events]
    assert [answers.text_of(event) for event in again if event.index == 0] == texts
    assert replayed.get() == response


def test_a_stream_that_can_t_be_cut_again_comes_part_by_part():
    response = ModelResponse(parts=[ThinkingPart("hm"), TextPart("done")])
    events = [PartStartEvent(index=0, part=ThinkingPart("other"))]
    assert answers.pieces_of(events, response) is None


def test_what_no_model_sees_doesn_t_identify_a_request():
    first, second = conversation("hello"), conversation([{"role": "user", "content": "hello"}])
    assert first != second  # they bear the time
    assert canonical(first) == canonical(second)
    assert canonical(conversation("hello?")) != canonical(first)

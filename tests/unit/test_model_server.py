"""The scripted provider of the tests answers as the real ones do: their own SDKs understand it."""

from __future__ import annotations

import asyncio
import json

import anthropic
import openai
import pytest
from support.model_server import (
    Asked,
    Fail,
    ModelServer,
    Say,
    Tokens,
    Use,
    table,
    too_many_requests,
)

USAGE = Tokens(input=100, output=7, cached=60, cache_write=10)
WEATHER = Say("Let me look.", (Use("weather", {"city": "Bonn"}), Use("tides", {})), USAGE)


@pytest.fixture
def serve(tmp_path):
    started: list[ModelServer] = []

    def start(script) -> ModelServer:
        started.append(ModelServer(script, tmp_path / "requests.jsonl"))
        return started[-1]

    yield start
    for server in started:
        server.close()


async def ask_chat(server: ModelServer, prompt: str, *, stream: bool):
    async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="x", max_retries=0) as client:
        given = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
        if not stream:
            answer = await client.chat.completions.create(**given)
            message = answer.choices[0].message
            calls = [(c.function.name, c.function.arguments) for c in message.tool_calls or ()]
            return message.content, calls, answer.usage
        text, calls, usage = "", [], None
        async for chunk in await client.chat.completions.create(
            **given, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
            for delta in (choice.delta for choice in chunk.choices):
                text += delta.content or ""
                for call in delta.tool_calls or ():
                    if call.function.name:
                        calls.append([call.function.name, ""])
                    calls[call.index][1] += call.function.arguments or ""
        return text, [tuple(call) for call in calls], usage


async def ask_responses(server: ModelServer, prompt: str, *, stream: bool):
    async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="x", max_retries=0) as client:
        if stream:
            async with client.responses.stream(model="m", input=prompt) as events:
                answer = await events.get_final_response()
        else:
            answer = await client.responses.create(model="m", input=prompt)
        calls = [(i.name, i.arguments) for i in answer.output if i.type == "function_call"]
        return answer.output_text, calls, answer.usage


async def ask_anthropic(server: ModelServer, prompt: str, *, stream: bool):
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="x", max_retries=0) as client:
        given = {
            "model": "m",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": prompt}],
        }
        if stream:
            async with client.messages.stream(**given) as events:
                answer = await events.get_final_message()
        else:
            answer = await client.messages.create(**given)
        text = "".join(block.text for block in answer.content if block.type == "text")
        calls = [(b.name, json.dumps(b.input)) for b in answer.content if b.type == "tool_use"]
        return text, calls, answer.usage


ASK = {"chat": ask_chat, "responses": ask_responses, "anthropic": ask_anthropic}
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
each = pytest.mark.parametrize("protocol", sorted(ASK))


@both
@each
def test_a_client_gets_the_text_the_parallel_calls_and_the_usage(serve, protocol, stream):
    server = serve(lambda asked: WEATHER)
    text, calls, usage = asyncio.run(ASK[protocol](server, "hello", stream=stream))
    assert text == "Let me look."
    assert calls == [("weather", '{"city": "Bonn"}'), ("tides", "{}")]
    if protocol == "chat":
        assert (usage.prompt_tokens, usage.completion_tokens) == (100, 7)
        assert usage.prompt_tokens_details.cached_tokens == 60
    elif protocol == "responses":
        assert (usage.input_tokens, usage.output_tokens) == (100, 7)
        assert usage.input_tokens_details.cached_tokens == 60
    else:
        assert (usage.input_tokens, usage.output_tokens) == (30, 7)
        assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (60, 10)


@both
@each
def test_a_connection_that_is_cut_is_an_error_of_the_client(serve, protocol, stream):
    server = serve(lambda asked: Say("one two three four", cut=4))
    with pytest.raises(Exception) as caught:  # noqa: PT011  of three packages, each its own
        asyncio.run(ASK[protocol](server, "hello", stream=stream))
    assert type(caught.value).__module__.partition(".")[0] in {"openai", "anthropic", "httpx2"}
    assert server.count == 1


@each
@pytest.mark.parametrize("style", ["retry-after", "date", "openai", "anthropic", "none"])
def test_a_429_says_when_to_come_again(serve, protocol, style):
    server = serve(lambda asked: too_many_requests(90, style))
    package = anthropic if protocol == "anthropic" else openai
    with pytest.raises(package.RateLimitError) as caught:
        asyncio.run(ASK[protocol](server, "hello", stream=False))
    assert ("retry-after" in caught.value.response.headers) is (style in {"retry-after", "date"})
    if style == "openai":
        assert caught.value.response.headers["x-ratelimit-reset-requests"] == "1m30s"


@each
def test_a_500_and_no_answer_at_all_are_errors(serve, protocol):
    server = serve(lambda asked: Fail(0) if asked.nth else Fail(500))
    package = anthropic if protocol == "anthropic" else openai
    with pytest.raises(package.InternalServerError):
        asyncio.run(ASK[protocol](server, "hello", stream=False))
    with pytest.raises(package.APIConnectionError):
        asyncio.run(ASK[protocol](server, "hello", stream=False))
    assert (server.count, server.distinct) == (2, 1)


def test_the_log_has_each_request_and_whether_its_answer_went_out(serve, tmp_path):
    server = serve(lambda asked: Say("one two three", cut=2 if asked.last == "b" else None))
    asyncio.run(ask_chat(server, "a", stream=True))
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever the client says of the cut
        asyncio.run(ask_chat(server, "b", stream=True))
    server.close()
    lines = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    assert [(line["n"], line["event"]) for line in lines] == [
        (1, "asked"), (1, "answered"), (2, "asked"), (2, "answered"),
    ]  # fmt: skip
    assert [line["whole"] for line in lines if line["event"] == "answered"] == [True, False]
    assert len({line["digest"] for line in lines}) == 2


@each
def test_the_same_request_is_answered_the_same_whole_or_in_pieces(serve, protocol):
    server = serve(table({"hel+o": [Say(calls=(Use("look"),)), "done"]}))
    answers = [asyncio.run(ASK[protocol](server, "hello", stream=s))[:2] for s in (False, True)]
    assert [calls for _, calls in answers] == [[("look", "{}")]] * 2
    assert (server.count, server.distinct) == (2, 1)


def test_a_conversation_reads_the_same_in_every_protocol(serve):
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    seen: list[Asked] = []

    def script(asked: Asked) -> Say | str:
        seen.append(asked)
        if asked.round:
            return f"It is {asked.results[0].text} and {asked.results[1].text}."
        return Say("Looking.", (Use("tide", {"place": "Bremen"}), Use("tide", {"place": "Brest"})))

    server = serve(script)
    to_openai = OpenAIProvider(base_url=server.openai_url, api_key="x")
    models = [
        OpenAIChatModel("m", provider=to_openai),
        OpenAIResponsesModel("m", provider=to_openai),
        AnthropicModel("m", provider=AnthropicProvider(base_url=server.url, api_key="x")),
    ]

    async def main() -> None:
        for model in models:
            agent = Agent(model, instructions="Be brief.")

            @agent.tool_plain
            def tide(place: str) -> str:
                return f"high in {place}"

            async with model:
                result = await agent.run("How is the tide?")
            assert result.output == "It is high in Bremen and high in Brest."

    asyncio.run(main())
    assert len(seen) == 6
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert (first.prompt, first.system, first.round) == ("How is the tide?", "Be brief.", 0)
        assert first.tools == ("tide",)
        assert second.round == 1
        assert [turn.role for turn in second.turns] == ["user", "assistant", "tool"]
        assert [result.name for result in second.results] == ["tide", "tide"]
        assert second.turns[1].calls[1].arguments == {"place": "Brest"}

"""Streamed answers: provisional until they are durable, and replayed as they came."""

from __future__ import annotations

import asyncio

import pytest
from support.model_server import Fail, Say, Use, too_many_requests

from holdfast import Context, errors

from .conftest import ANTHROPIC, BOTH, CHAT, OPENAI

LONG = "One tide comes in, and one goes out."
WORDS = ["One ", "tide ", "comes ", "in, ", "and ", "one ", "goes ", "out."]
BOTH_KINDS = Say(LONG, (Use("look", {"at": "the sea"}), Use("look", {"at": "the moon"})))


def shown(event):
    """Show an event without what differs from run to run."""
    return repr(event)


@pytest.mark.parametrize("model", [OPENAI, CHAT, ANTHROPIC])
def test_a_replayed_stream_brings_the_same_events_in_the_same_pieces(serve, runner, quick, model):
    server = serve(lambda asked: BOTH_KINDS)
    came: list[list[str]] = []
    answers = []

    @runner.task(retry=quick)
    async def read(ctx: Context) -> str | None:
        stream = ctx.stream(model, "Tell me.", tools=[look])
        came.append([shown(event) async for event in stream.events()])
        answers.append(stream.response)
        if len(came) < 3:
            raise RuntimeError("once more")
        return stream.response.text

    def look(at: str) -> str:
        return at

    assert runner.run(read) == LONG
    assert server.count == 1
    assert came[0] == came[1] == came[2]
    assert len(came[0]) > len(WORDS)
    assert answers[0] == answers[1]
    assert [call.args_as_dict() for call in answers[0].tool_calls] == [
        {"at": "the sea"}, {"at": "the moon"},
    ]  # fmt: skip


@BOTH
def test_text_arrives_while_the_model_speaks_and_the_stream_ends_when_it_is_durable(
    serve, runner, model
):
    serve(lambda asked: Say(LONG, pause=0.02))
    recorded_after: list[int] = []

    @runner.task
    async def read(ctx: Context) -> list[str]:
        words: list[str] = []
        async for word in ctx.stream(model, "Tell me."):
            words.append(word)
            recorded_after.append(await entries_of(ctx))
        recorded_after.append(await entries_of(ctx))
        return words

    async def entries_of(ctx: Context) -> int:
        item = runner.store.read(_item(ctx.task.task_id))
        return item.seq

    assert runner.run(read) == WORDS
    assert recorded_after == [0] * len(WORDS) + [1]


def _item(task_id: str):
    from holdfast.store import verbs

    return verbs.get_item(task_id, "main")


def test_a_stream_and_a_whole_answer_stand_for_one_another(serve, runner, quick):
    server = serve(lambda asked: LONG)
    attempts: list[int] = []

    @runner.task(retry=quick)
    async def read(ctx: Context) -> list[str]:
        attempts.append(1)
        if len(attempts) == 1:  # the code of the first attempt
            await ctx.llm(OPENAI, "Tell me.", output=str)
            raise RuntimeError("once more")
        return [word async for word in ctx.stream(OPENAI, "Tell me.")]

    assert runner.run(read) == [LONG]  # it came whole
    assert server.count == 1


@BOTH
def test_a_stream_that_is_cut_is_a_recorded_failure_and_the_retry_reads_it_anew(
    serve, runner, quick, model
):
    server = serve(lambda asked: Say(LONG, cut=None if asked.nth else 7))
    read_: list[list[str]] = []

    @runner.task(retry=quick)
    async def read(ctx: Context) -> str:
        read_.append([])
        async for word in ctx.stream(model, "Tell me."):
            read_[-1].append(word)
        return "".join(read_[-1])

    assert runner.run(read) == LONG
    assert server.count == 2
    assert 0 < len(read_[0]) < len(WORDS)
    assert read_[1] == WORDS


def test_a_cut_stream_that_the_handler_survived_is_not_asked_for_again(serve, runner, quick):
    server = serve(lambda asked: Say(LONG, cut=7))
    attempts: list[str] = []

    @runner.task(retry=quick)
    async def read(ctx: Context) -> str:
        with pytest.raises(errors.ProviderUnavailableError):
            async for _ in ctx.stream(OPENAI, "Tell me."):
                pass
        attempts.append("survived")
        if len(attempts) < 3:
            raise RuntimeError("once more")
        return "went on"

    assert runner.run(read) == "went on"
    assert server.count == 1


def test_a_stream_that_never_began_is_tried_again_in_place(serve, runner, no_pause):
    server = serve(lambda asked: LONG if asked.nth == 2 else Fail(503))

    @runner.task
    async def read(ctx: Context) -> list[str]:
        return [word async for word in ctx.stream(ANTHROPIC, "Tell me.")]

    assert runner.run(read) == WORDS
    assert server.count == 3


@BOTH
def test_a_stream_waits_for_a_quota_as_a_whole_answer_does(serve, runner, model):
    server = serve(lambda asked: LONG if asked.nth else too_many_requests(1))

    @runner.task
    async def read(ctx: Context) -> list[str]:
        return [word async for word in ctx.stream(model, "Tell me.")]

    assert runner.run(read) == WORDS
    assert server.count == 2


def test_streams_side_by_side_don_t_mix(serve, runner):
    server = serve(lambda asked: Say(f"{asked.prompt} " * 5, pause=0.01))

    @runner.task
    async def read(ctx: Context) -> list[str]:
        async def one(word: str) -> str:
            return "".join([piece async for piece in ctx.stream(OPENAI, word)])

        return await ctx.map(one, ["ebb", "flow", "neap"])

    assert runner.run(read) == [f"{word} " * 5 for word in ("ebb", "flow", "neap")]
    assert server.count == 3


def test_who_leaves_early_cancels_the_request_and_leaves_nothing_running(serve, runner):
    server = serve(lambda asked: Say(LONG * 20, pause=0.05))

    @runner.task
    async def read(ctx: Context) -> str:
        async for word in ctx.stream(OPENAI, "Tell me."):
            if word == "tide ":
                break
        await asyncio.sleep(0.05)
        return await ctx.llm(ANTHROPIC, "And?", output=str) and "left"

    server.script = lambda asked: (
        Say(LONG * 20, pause=0.05) if asked.protocol == "responses" else "Yes."
    )
    assert runner.run(read) == "left"
    assert server.count == 2


def test_the_whole_answer_is_there_only_at_the_end(serve, runner):
    serve(lambda asked: LONG)

    @runner.task
    async def read(ctx: Context) -> str | None:
        stream = ctx.stream(OPENAI, "Tell me.")
        async for _ in stream:
            with pytest.raises(errors.UsageError, match="isn't complete"):
                assert stream.response
        return stream.response.text

    assert runner.run(read) == LONG

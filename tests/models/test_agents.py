"""DurableAgent: an agent of Pydantic AI's in a handler, its requests and tool calls recorded."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, FunctionToolset, ModelRetry, RunContext
from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.models.fallback import FallbackModel
from support.model_server import Fail, Say, Use, too_many_requests

from holdfast import (
    Context,
    Done,
    RetryPolicy,
    TaskRunner,
    errors,
    idempotency_key,
    operations,
    tool,
)
from holdfast.integrations.pydantic_ai import DurableAgent
from holdfast.store import verbs

from .conftest import ANTHROPIC, BOTH, OPENAI


def entries(runner: TaskRunner, kind: str = "tool"):
    (task,) = runner.store.read(verbs.list_tasks(None, 10))
    journal = runner.store.read(verbs.read_journal(task.task_id, "main"))
    return [entry for entry in journal if entry.kind == kind]


def clerk(asked):
    """Two rounds with tools, then an answer."""
    if asked.round == 0:
        looks = (Use("look", {"at": "sea"}), Use("look", {"at": "moon"}))
        return Say("Let me look.", (*looks, Use("send", {"to": "ann"})))
    if asked.round == 1:
        return Say(calls=(Use("send", {"to": "bob"}),))
    return f"Done: {asked.results[0].text}"


class Office:
    """An agent with a reading tool and a mailbox, and what it did."""

    def __init__(self, model: str) -> None:
        self.looked: list[str] = []
        self.outbox: list[str] = []
        self.agent = Agent(model, instructions="Be brief.", deps_type=str)

        @self.agent.tool(metadata={"holdfast": "read"})
        def look(ctx: RunContext[str], at: str) -> str:
            self.looked.append(f"{ctx.deps} at the {at}")
            return f"saw the {at}"

        @self.agent.tool_plain
        async def send(to: str) -> str:
            self.outbox.append(to)
            return f"sent to {to}"


@BOTH
def test_an_agent_runs_unchanged_and_a_retry_repeats_nothing(serve, runner, quick, model):
    server = serve(clerk)
    office = Office(model)
    durable = DurableAgent(office.agent)
    results = []

    @runner.task(retry=quick)
    async def work(ctx: Context) -> str:
        results.append(await durable.run(ctx, "Look and tell.", deps="me"))
        if len(results) < 3:
            raise RuntimeError("once more")
        return results[-1].output

    assert runner.run(work) == "Done: sent to bob"
    assert server.count == 3
    assert sorted(office.looked) == ["me at the moon", "me at the sea"]
    assert office.outbox == ["ann", "bob"]
    assert results[0].output == results[2].output
    assert results[0].usage.input_tokens == results[2].usage.input_tokens > 0
    ids = [message.run_id for result in results for message in result.all_messages()]
    assert len(set(ids)) == 1
    effects = {entry.name: entry.effect for entry in entries(runner)}
    assert effects == {"look": "read", "send": "once"}


def test_its_own_run_is_as_it_was_without_a_handler(serve):
    serve(clerk)
    office = Office(OPENAI)
    DurableAgent(office.agent)

    async def main() -> str:
        async with office.agent:
            return (await office.agent.run("Look and tell.", deps="me")).output

    assert asyncio.run(main()) == "Done: sent to bob"


@BOTH
def test_a_replay_brings_the_same_events_in_the_same_pieces(serve, runner, quick, model):
    server = serve(clerk)
    office = Office(model)
    durable = DurableAgent(office.agent)
    came: list[list[str]] = []

    async def note(_: RunContext[str], events) -> None:
        async for event in events:
            came[-1].append(type(event).__name__ + str(getattr(event, "delta", "")))

    @runner.task(retry=quick)
    async def work(ctx: Context) -> str:
        came.append([])
        result = await durable.run(ctx, "Look and tell.", deps="me", event_stream_handler=note)
        if len(came) < 3:
            raise RuntimeError("once more")
        return result.output

    assert runner.run(work) == "Done: sent to bob"
    assert server.count == 3
    assert all(request.stream for request in server.requests)
    assert came[0] == came[1] == came[2]
    assert sum(each.startswith("PartDelta") for each in came[0]) > 8


def test_run_stream_and_run_stream_events_and_iter_are_recorded_too(serve, runner, quick):
    server = serve(lambda asked: f"The {asked.prompt} answer.")
    agent = Agent(OPENAI)
    durable = DurableAgent(agent)
    seen: list[object] = []

    @runner.task(retry=quick)
    async def work(ctx: Context) -> None:
        async with durable.run_stream(ctx, "first") as result:
            words = [word async for word in result.stream_text(delta=True, debounce_by=None)]
        kinds = [type(e).__name__ async for e in durable.run_stream_events(ctx, "second")]
        async with durable.iter(ctx, "third") as run:
            nodes = [type(node).__name__ async for node in run]
        seen.append((words, kinds, nodes, run.result.output))
        if len(seen) < 3:
            raise RuntimeError("once more")

    runner.run(work)
    assert server.count == 3
    assert seen[0] == seen[1] == seen[2]
    words, kinds, _, output = seen[0]
    assert words == ["The ", "first ", "answer."]
    assert kinds[-1] == "AgentRunResultEvent"
    assert output == "The third answer."


# -- tools ----------------------------------------------------------------------------------------


def test_parallel_calls_that_are_equal_are_told_apart_by_their_place_in_the_answer(
    serve, runner, quick
):
    same = tuple(Use("send", {"to": "ann"}) for _ in range(3))
    server = serve(lambda asked: "done" if asked.round else Say(calls=same))
    agent, outbox = Agent(OPENAI), []

    @agent.tool_plain
    async def send(to: str) -> str:
        outbox.append(idempotency_key())
        await asyncio.sleep(0.02)  # they overlap
        return to

    @runner.task(retry=quick)
    async def work(ctx: Context) -> str:
        output = (await DurableAgent(agent).run(ctx, "send thrice")).output
        if ctx.attempt < 3:
            raise RuntimeError("once more")
        return output

    assert runner.run(work) == "done"
    assert len(outbox) == len(set(outbox)) == 3
    assert server.count == 2


@dataclass
class Paper:
    title: str
    pages: list[int]


class Sheet(BaseModel):
    number: int


def test_what_tools_return_comes_back_as_the_same_type(serve, runner, quick):
    serve(
        lambda asked: (
            "done" if asked.round else Say(calls=(Use("paper"), Use("sheet"), Use("plain")))
        )
    )
    agent = Agent(OPENAI)

    @agent.tool_plain(metadata={"holdfast": "idempotent"})
    def paper() -> Paper:
        return Paper("Tides", [1, 2])

    @agent.tool_plain(metadata={"holdfast": "idempotent"})
    def sheet() -> Sheet:
        return Sheet(number=7)

    @agent.tool_plain(metadata={"holdfast": "idempotent"})
    def plain() -> dict[str, list[int]]:
        return {"a": [1]}

    returned: list[list[object]] = []

    @runner.task(retry=quick)
    async def work(ctx: Context) -> None:
        result = await DurableAgent(agent).run(ctx, "go")
        parts = [part for message in result.all_messages() for part in message.parts]
        returned.append([part.content for part in parts if isinstance(part, ToolReturnPart)])
        if ctx.attempt < 2:
            raise RuntimeError("once more")

    runner.run(work)
    assert returned[0] == returned[1] == [Paper("Tides", [1, 2]), Sheet(number=7), {"a": [1]}]


def test_a_tool_that_asks_the_model_to_try_again_does_so_in_every_replay(serve, runner, quick):
    def script(asked):
        if asked.round == 0:
            return Say(calls=(Use("look", {"at": "nowhere"}),))
        if asked.round == 1:
            return Say(calls=(Use("look", {"at": "sea"}),))
        return "done"

    server = serve(script)
    agent, looked = Agent(ANTHROPIC), []

    @agent.tool_plain
    def look(at: str) -> str:
        looked.append(at)
        if at == "nowhere":
            raise ModelRetry("There is no such place.")
        return f"saw the {at}"

    @runner.task(retry=quick)
    async def work(ctx: Context) -> str:
        output = (await DurableAgent(agent).run(ctx, "look")).output
        if ctx.attempt < 3:
            raise RuntimeError("once more")
        return output

    assert runner.run(work) == "done"
    assert looked == ["nowhere", "sea"]
    assert server.count == 3
    assert "There is no such place." in server.requests[1].results[0].text


def test_a_once_tool_that_fails_is_in_doubt_and_a_reconcile_function_settles_it(serve, runner):
    serve(
        lambda asked: (
            asked.results[0].text if asked.round else Say(calls=(Use("post", {"to": "x"}),))
        )
    )
    asked_for: list[object] = []

    async def look_it_up(arguments: dict[str, object], key: str) -> Done:
        asked_for.append((arguments, len(key)))
        return Done("it had arrived")

    @tool(reconcile=look_it_up)
    async def post(to: str) -> str:
        """Post something."""
        raise ConnectionError("the line went dead")

    agent = Agent(OPENAI, tools=[post])

    @runner.task
    async def work(ctx: Context) -> str:
        return (await DurableAgent(agent).run(ctx, "post it")).output

    assert runner.run(work) == "it had arrived"
    assert asked_for == [({"to": "x"}, 32)]


@pytest.mark.parametrize("how", ["raises", "times out"])
def test_a_once_tool_of_unknown_outcome_blocks_the_task_until_somebody_resolves_it(
    serve, runner, how
):
    serve(lambda asked: asked.results[0].text if asked.round else Say(calls=(Use("post"),)))
    agent, posted = Agent(OPENAI), []

    @agent.tool_plain(timeout=0.05 if how == "times out" else None)
    async def post() -> str:
        posted.append(1)
        if how == "raises":
            raise ConnectionError("the line went dead")
        await asyncio.sleep(30)
        return "never"

    @runner.task
    async def work(ctx: Context) -> str:
        return (await DurableAgent(agent).run(ctx, "post it")).output

    with pytest.raises(errors.TaskBlockedError) as caught:
        runner.run(work)
    (entry,) = caught.value.entries
    asyncio.run(operations.resolve(runner.store, entry, "done", "it was there"))
    assert runner.run(work) == "it was there"
    assert posted == [1]


def test_effects_are_named_by_whoever_knows_them(serve, runner):
    uses = tuple(Use(name) for name in ("by_name", "by_metadata", "by_tool", "by_nobody"))
    serve(lambda asked: "done" if asked.round else Say(calls=uses))

    @tool(effect="idempotent")
    async def by_tool() -> str:
        return "x"

    def by_nobody() -> str:
        return "x"

    toolset = FunctionToolset[None]([by_tool, by_nobody])

    @toolset.tool_plain(metadata={"holdfast": "once"})
    def by_name() -> str:
        return "x"

    @toolset.tool_plain(metadata={"holdfast": "read"})
    def by_metadata() -> str:
        return "x"

    agent = Agent(OPENAI, toolsets=[toolset])
    durable = DurableAgent(agent, effects={"by_name": "read"})

    @runner.task
    async def work(ctx: Context) -> str:
        return (await durable.run(ctx, "go")).output

    runner.run(work)
    effects = {entry.name: entry.effect for entry in entries(runner)}
    assert effects == {
        "by_name": "read", "by_metadata": "read", "by_tool": "idempotent", "by_nobody": "once",
    }  # fmt: skip


def test_an_effect_that_is_none_is_refused():
    with pytest.raises(errors.UsageError, match="no effect class"):
        DurableAgent(Agent(), effects={"look": "sometimes"})


def test_prefixed_and_dynamic_toolsets_are_recorded_under_the_names_the_model_knows(
    serve, runner, quick
):
    uses = (Use("north_look", {"at": "ice"}), Use("made_for", {"whom": "me"}))
    server = serve(lambda asked: "done" if asked.round else Say(calls=uses))
    looked = []

    def look(at: str) -> str:
        looked.append(at)
        return at

    agent = Agent(OPENAI, deps_type=str, toolsets=[FunctionToolset([look]).prefixed("north")])

    @agent.toolset
    def made(ctx: RunContext[str]) -> FunctionToolset[str]:
        async def made_for(whom: str) -> str:
            looked.append(f"{ctx.deps} for {whom}")
            return whom

        return FunctionToolset([made_for])

    @runner.task(retry=quick)
    async def work(ctx: Context) -> str:
        output = (await DurableAgent(agent).run(ctx, "go", deps="dep")).output
        if ctx.attempt < 3:
            raise RuntimeError("once more")
        return output

    assert runner.run(work) == "done"
    assert sorted(looked) == ["dep for me", "ice"]
    assert server.count == 2
    names = [entry.name for entry in entries(runner) if entry.ref is None]
    assert sorted(names) == ["made_for", "north_look"]


def test_an_agent_in_a_tool_of_another_is_recorded_inside_its_call(serve, runner, quick):
    def script(asked):
        if asked.prompt == "the inner":
            return "inner answer"
        return f"outer: {asked.results[0].text}" if asked.round else Say(calls=(Use("ask"),))

    server = serve(script)
    inner, outer = Agent(ANTHROPIC), Agent(OPENAI, deps_type=Context)

    @outer.tool(metadata={"holdfast": "idempotent"})
    async def ask(ctx: RunContext[Context]) -> str:
        output = (await DurableAgent(inner).run(ctx.deps, "the inner")).output
        crash.append(1)
        if len(crash) == 1:
            raise RuntimeError("after the inner one")
        return output

    crash: list[int] = []

    @runner.task(retry=quick)
    async def work(ctx: Context) -> str:
        return (await DurableAgent(outer).run(ctx, "the outer", deps=ctx)).output

    assert runner.run(work) == "outer: inner answer"
    assert server.count == 3  # the inner answer was there when its tool was called again


# -- providers that fail --------------------------------------------------------------------------


def test_an_agent_whose_model_falls_back_does_so_in_every_replay(serve, runner, quick):
    server = serve(lambda asked: Fail(500) if asked.protocol == "responses" else "From the other.")
    agent = Agent(FallbackModel(OPENAI, ANTHROPIC))

    @runner.task(retry=quick)
    async def work(ctx: Context) -> str:
        output = (await DurableAgent(agent).run(ctx, "hello")).output
        if ctx.attempt < 3:
            raise RuntimeError("once more")
        return output

    assert runner.run(work) == "From the other."
    assert server.count == 2


@BOTH
def test_a_rejected_request_ends_the_task_and_says_why(serve, runner, quick, model):
    server = serve(lambda asked: Fail(401, "No such key.", "authentication_error"))
    agent = Agent(model)

    @runner.task(retry=quick)
    async def work(ctx: Context) -> str:
        return (await DurableAgent(agent).run(ctx, "hello")).output

    with pytest.raises(errors.TaskFailedError, match="No such key") as caught:
        runner.run(work)
    assert caught.value.error_type == "RequestRejectedError"
    assert server.count == 1


@pytest.mark.parametrize("style", ["retry-after", "openai", "anthropic"])
def test_a_429_parks_the_agent_and_holds_no_slot(serve, new_runner, style):
    seconds = 1 if style == "retry-after" else 0.6
    server = serve(
        lambda asked: (
            too_many_requests(seconds, style)
            if asked.prompt == "first" and not asked.nth
            else f"Answer to the {asked.prompt}."
        )
    )
    runner = new_runner(concurrency=1)
    agent = Agent(ANTHROPIC if style == "anthropic" else OPENAI)
    order: list[str] = []

    @runner.task
    async def work(ctx: Context, prompt: str) -> str:
        output = (await DurableAgent(agent).run(ctx, prompt)).output
        order.append(prompt)
        return output

    async def main() -> list[str]:
        first = asyncio.create_task(runner.arun(work, "first"))
        while not server.count:
            await asyncio.sleep(0.005)
        return [await runner.arun(work, "second"), await first]

    began = time.monotonic()
    assert asyncio.run(main()) == ["Answer to the second.", "Answer to the first."]
    assert time.monotonic() - began >= seconds
    assert order == ["second", "first"]
    assert server.count == 3


# -- edited programs ------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["ann", "bob"])
def test_a_prompt_that_changed_doesn_t_send_again_what_was_sent(serve, runner, quick, second):
    def script(asked):
        if asked.round:
            return asked.results[0].text
        return Say(calls=(Use("send", {"to": "ann" if asked.prompt == "before" else second}),))

    server = serve(script)
    agent, outbox = Agent(OPENAI), []

    @agent.tool_plain
    async def send(to: str) -> str:
        outbox.append(to)
        return f"sent to {to}"

    @runner.task(retry=quick)
    async def work(ctx: Context) -> str:
        prompt = "before" if ctx.attempt == 1 else "after an edit"
        output = (await DurableAgent(agent).run(ctx, prompt)).output
        if ctx.attempt == 1:
            raise RuntimeError("edit me")
        return output

    if second == "ann":  # the same call, whatever its id: its record answers
        assert runner.run(work) == "sent to ann"
    else:  # another call, while one that was made is not asked for: a person is asked
        with pytest.raises(errors.TaskBlockedError, match="send"):
            runner.run(work)
    assert outbox == ["ann"]
    assert server.count >= 3


# -- approvals ------------------------------------------------------------------------------------


def test_a_holdfast_tool_that_must_be_approved_must_be_in_an_agent_too(serve, runner):
    serve(lambda asked: asked.results[0].text if asked.round else Say(calls=(Use("pay"),)))
    paid: list[int] = []

    @tool(approve=True)
    async def pay() -> str:
        paid.append(1)
        return "paid"

    agent = Agent(OPENAI, tools=[pay])

    @runner.task
    async def work(ctx: Context) -> str:
        return (await DurableAgent(agent).run(ctx, "pay it")).output

    with pytest.raises(errors.TaskBlockedError) as blocked:
        runner.run(work)
    assert paid == []
    runner.approve(*blocked.value.entries, by="eve")
    assert runner.run(work) == "paid"
    assert paid == [1]


def test_an_approval_lets_one_call_of_a_tool_through_and_no_retry_of_it(serve, runner):
    serve(lambda asked: asked.results[0].text if asked.round else Say(calls=(Use("pay"),)))
    agent, tried = Agent(OPENAI), []

    @agent.tool_plain(requires_approval=True)
    async def pay() -> str:
        tried.append(1)
        if len(tried) == 1:
            raise errors.NoEffect("the bank is closed")
        return "paid"

    @runner.task(retry=RetryPolicy(initial=0.01))
    async def work(ctx: Context) -> str:
        return (await DurableAgent(agent).run(ctx, "pay it")).output

    entries: list[str] = []
    for calls in (0, 1):
        with pytest.raises(errors.TaskBlockedError) as blocked:
            runner.run(work)
        assert len(tried) == calls
        entries += blocked.value.entries
        runner.approve(entries[-1], by="eve")
    assert runner.run(work) == "paid"
    assert len(tried) == len(set(entries)) == 2


@pytest.mark.parametrize("yes", [True, False])
def test_a_tool_that_needs_an_approval_waits_for_a_person(serve, runner, yes):
    uses = (Use("look"), Use("send", {"to": "ann"}))
    server = serve(lambda asked: asked.results[1].text if asked.round else Say(calls=uses))
    agent, done = Agent(OPENAI), []

    @agent.tool_plain(metadata={"holdfast": "read"})
    def look() -> str:
        done.append("looked")
        return "seen"

    @agent.tool_plain(requires_approval=True)
    async def send(to: str) -> str:
        done.append(to)
        return f"sent to {to}"

    @runner.task
    async def work(ctx: Context) -> str:
        return (await DurableAgent(agent).run(ctx, "send it")).output

    with pytest.raises(errors.TaskBlockedError, match="send") as blocked:
        runner.run(work)
    assert done == ["looked"]
    (entry,) = blocked.value.entries
    if yes:
        runner.approve(entry, by="eve")
        assert runner.run(work) == "sent to ann"
    else:
        runner.reject(entry, by="eve", reason="not today")
        assert "not today" in runner.run(work)
    assert done == ["looked"] + ["ann"] * yes
    assert server.count == 2

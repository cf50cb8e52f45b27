"""`ctx.llm` with a model's name: over the real wire, through the journal and the cache."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest
from support.model_server import Fail, Say, Tokens, Use, table

from holdfast import Budget, Context, SyncContext, errors, operations, tool
from holdfast.models import nanos_of
from holdfast.store import verbs
from holdfast.usage import Usage

from .conftest import ANTHROPIC, BOTH, CHAT, OPENAI


@dataclass
class Tide:
    place: str
    metres: float


def entries(runner, task_id):
    return runner.store.read(verbs.read_journal(task_id, "main"))


def usages(runner):
    (task,) = runner.store.read(verbs.list_tasks(None, 10))
    return [Usage.decode(entry.usage) for entry in entries(runner, task.task_id)]


@pytest.mark.parametrize("model", [OPENAI, CHAT, ANTHROPIC])
def test_an_answer_is_paid_for_once_and_replayed_the_same(serve, runner, quick, model):
    server = serve(table({"high": Say("At noon.", (Use("look", {"at": "sea"}),))}))
    seen = []

    @runner.task(retry=quick)
    async def ask(ctx: Context) -> str | None:
        answer = await ctx.llm(model, "When is it high?", tools=[look], settings={"max_tokens": 50})
        seen.append(answer)
        if len(seen) < 3:
            raise RuntimeError("once more")
        return answer.text

    async def look(at: str) -> str:
        """Look at something."""
        raise AssertionError("nothing is called here")

    assert runner.run(ask) == "At noon."
    assert server.count == 1
    assert seen[0] == seen[1] == seen[2]
    assert seen[0].tool_calls[0].args_as_dict() == {"at": "sea"}
    (asked,) = server.requests
    assert asked.tools == ("look",)
    assert asked.headers["x-stainless-retry-count"] == "0"


@BOTH
def test_each_try_at_a_provider_that_fails_is_an_entry_and_a_retry_makes_them_anew(
    serve, runner, quick, no_pause, model
):
    answers = iter([Fail(500), Fail(529), Fail(0), Fail(502), "It is high."])
    server = serve(lambda asked: next(answers))

    @runner.task(retry=quick)
    async def ask(ctx: Context) -> str:
        return await ctx.llm(model, "How is it?", output=str)

    handle = runner.submit(ask)
    assert handle.run() == "It is high."
    assert server.count == 5
    assert server.distinct == 1
    statuses = [e.status for e in entries(runner, handle.task_id) if e.kind == "llm"]
    assert statuses == ["failed", "failed", "failed", "failed", "done"]


def test_a_handler_that_went_on_after_a_failure_does_so_in_every_replay(
    serve, runner, quick, no_pause
):
    server = serve(lambda asked: "From the other." if asked.protocol == "anthropic" else Fail(500))
    failed = []

    @runner.task(retry=quick)
    async def ask(ctx: Context) -> str:
        try:
            return await ctx.llm(OPENAI, "How is it?", output=str)
        except errors.ProviderUnavailableError as error:
            failed.append((error.status, str(error)))
        answer = await ctx.llm(ANTHROPIC, "How is it?", output=str)
        if len(failed) < 3:
            raise RuntimeError("once more")
        return answer

    assert runner.run(ask) == "From the other."
    assert server.count == 3 + 1
    assert len(set(failed)) == 1
    assert failed[0][0] == 500


@BOTH
def test_a_request_that_is_rejected_is_not_tried_again(serve, runner, quick, model):
    server = serve(lambda asked: Fail(400, "There is no such thing.", "invalid_request_error"))

    @runner.task(retry=quick)
    async def ask(ctx: Context) -> str:
        return await ctx.llm(model, "How is it?", output=str)

    with pytest.raises(errors.TaskFailedError, match="There is no such thing") as caught:
        runner.run(ask)
    assert caught.value.error_type == "RequestRejectedError"
    assert server.count == 1


@BOTH
def test_an_answer_comes_back_as_the_type_that_was_asked_for(serve, runner, model):
    place = {"place": "Brest", "metres": 6.5}
    server = serve(
        table(
            {
                "where": Say(calls=(Use("final_result", place),)),
                "how many": Say(calls=(Use("final_result", {"response": [1, 2]}),)),
                "what": "Water.",
            }
        )
    )

    @runner.task
    async def ask(ctx: Context) -> tuple[Tide, list[int], str]:
        tide = await ctx.llm(model, "where", output=Tide)
        return tide, await ctx.llm(model, "how many", output=list[int]), await ctx.llm(
            model, "what", output=str
        )  # fmt: skip

    assert runner.run(ask) == (Tide("Brest", 6.5), [1, 2], "Water.")
    assert server.requests[0].tools == ("final_result",)
    assert server.requests[2].tools == ()


def test_an_answer_of_another_type_is_asked_for_again(serve, runner, no_pause):
    answers = iter(["I don't know.", Say(calls=(Use("final_result", {"place": "Brest"}),))])
    good = Say(calls=(Use("final_result", {"place": "Brest", "metres": 6.5}),))
    server = serve(lambda asked: next(answers, good))

    @runner.task
    async def ask(ctx: Context) -> Tide:
        return await ctx.llm(OPENAI, "where", output=Tide)

    assert runner.run(ask) == Tide("Brest", 6.5)
    assert server.count == 3


def test_messages_may_be_dicts_and_a_handler_may_call_the_tools_itself(serve, runner):
    def script(asked):
        if asked.round == 0:
            return Say(calls=(Use("tide", {"place": "Brest"}),))
        return f"It is {asked.results[0].text} at {asked.results[0].name}."

    server = serve(script)

    @tool(effect="read")
    async def tide(place: str) -> str:
        """Return the tide."""
        return f"high in {place}"

    @runner.task
    async def ask(ctx: Context) -> str:
        asked = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "How is the tide?"},
        ]
        answer = await ctx.llm(CHAT, asked, tools=[tide])
        (call,) = answer.tool_calls
        result = await ctx.tool(tide, **call.args_as_dict())
        called = {"name": call.tool_name, "arguments": call.args_as_json_str()}
        asked += [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": call.tool_call_id, "type": "function", "function": called}],
            },
            {"role": "tool", "tool_call_id": call.tool_call_id, "content": result},
        ]
        return await ctx.llm(CHAT, asked, output=str)

    assert runner.run(ask) == "It is high in Brest at tide."
    assert server.requests[0].tools == ("tide",)
    assert server.requests[1].system == "Be brief."


@pytest.mark.parametrize(
    "messages", [[], [{"role": "wizard", "content": "x"}], [{"role": "tool", "content": "x"}], [3]]
)
def test_what_is_no_message_is_refused_before_anything_is_sent(serve, runner, messages):
    server = serve(lambda asked: "never")

    @runner.task
    async def ask(ctx: Context) -> str:
        return await ctx.llm(OPENAI, messages, output=str)

    with pytest.raises(errors.TaskFailedError, match="Nothing was sent"):
        runner.run(ask)
    assert server.count == 0


@BOTH
def test_the_calls_of_an_attempt_share_their_connections_which_end_with_it(serve, runner, model):
    server = serve(lambda asked: "Yes.")

    @runner.task
    async def ask(ctx: Context) -> None:
        for question in "abc":
            await ctx.llm(model, question)

    runner.run(ask)
    assert (server.count, server.connections) == (3, 1)


# -- what it used ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [OPENAI, CHAT, ANTHROPIC])
def test_cached_tokens_are_counted_once_and_cost_what_the_provider_asks(serve, runner, model):
    serve(lambda asked: Say("Yes.", usage=Tokens(input=1000, output=10, cached=600)))

    @runner.task
    async def ask(ctx: Context) -> str:
        return await ctx.llm(model, "How is it?", output=str)

    runner.run(ask)
    (used,) = usages(runner)
    assert (used.input_tokens, used.output_tokens) == (1000, 10)
    # US dollars per million tokens: sent, read from the cache, received.
    expected = {
        "openai": (400 * 0.25 + 600 * 0.025 + 10 * 2) / 1e6,
        "anthropic": (400 * 1 + 600 * 0.1 + 10 * 5) / 1e6,
    }[model.partition(":")[0].removesuffix("-chat")]
    assert used.cost == pytest.approx(expected)


def test_tokens_written_to_a_cache_are_counted_once(serve, runner):
    serve(
        lambda asked: Say("Yes.", usage=Tokens(input=1000, output=10, cached=600, cache_write=300))
    )

    @runner.task
    async def ask(ctx: Context) -> str:
        return await ctx.llm(ANTHROPIC, "How is it?", output=str)

    runner.run(ask)
    (used,) = usages(runner)
    assert used.input_tokens == 1000
    assert used.cost == pytest.approx((100 + 600 * 0.1 + 300 * 1.25 + 10 * 5) / 1e6)


def test_what_an_unknown_model_costs_is_unknown_and_not_nothing(serve, runner):
    serve(lambda asked: Say("Yes.", usage=Tokens(100, 10)))

    @runner.task
    async def ask(ctx: Context) -> str:
        return await ctx.llm("openai:home-made-7", "How is it?", output=str)

    runner.run(ask)
    assert usages(runner) == [Usage(100, 10, None)]


# -- across runs ----------------------------------------------------------------------------------


def test_answers_are_shared_between_runs_that_ask_for_it_and_not_between_servers(serve, runner):
    here, there = serve(lambda asked: "From here."), serve(lambda asked: "From there.")

    @runner.task
    async def ask(ctx: Context, run: int, url: str) -> str:
        return await ctx.options(reuse=True).llm(OPENAI, "hello", output=str, base_url=url)

    assert runner.run(ask, 1, here.openai_url) == "From here."
    assert runner.run(ask, 2, here.openai_url) == "From here."
    assert runner.run(ask, 3, there.openai_url) == "From there."
    assert (here.count, there.count) == (1, 1)


def test_a_base_url_that_changed_meanwhile_asks_for_nothing_again(serve, runner, quick):
    first, second = serve(lambda asked: "First."), serve(lambda asked: "Second.")
    urls = [first.openai_url, second.openai_url]

    @runner.task(retry=quick)
    async def ask(ctx: Context) -> str:
        answer = await ctx.llm(OPENAI, "hello", output=str, base_url=urls[ctx.attempt - 1])
        if ctx.attempt == 1:
            raise RuntimeError("once more")
        return answer

    assert runner.run(ask) == "First."
    assert (first.count, second.count) == (1, 0)


# -- sync, and without Pydantic AI ----------------------------------------------------------------


def test_a_sync_handler_calls_models_too(serve, runner):
    serve(table({"how": "High.", "stream": "one two three"}))

    @runner.task
    def ask(ctx: SyncContext) -> tuple[str, list[str], str | None]:
        stream = ctx.stream(ANTHROPIC, "stream it")
        return ctx.llm(OPENAI, "how", output=str), list(stream), stream.response.text

    assert runner.run(ask) == ("High.", ["one ", "two ", "three"], "one two three")


WITHOUT = """
import sys
sys.modules["pydantic_ai"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pydantic_ai" else find(name, *rest)
from holdfast import TaskRunner
runner = TaskRunner("sqlite:///holdfast.db")
@runner.task
async def ask(ctx):
    CALL
runner.run(ask)
"""


@pytest.mark.parametrize(
    "call",
    [
        'await ctx.llm("openai:gpt-5-mini", "hello")',
        '[text async for text in ctx.stream("openai:gpt-5-mini", "hello")]',
        "import holdfast.integrations.pydantic_ai",
    ],
)
def test_without_pydantic_ai_the_error_says_how_to_install_it(tmp_path, call):
    program = WITHOUT.replace("CALL", call)
    done = subprocess.run(  # noqa: S603  our own program
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "pip install 'holdfast[agent]'" in done.stderr
    assert "Nothing was sent" in done.stderr


# -- under a budget -------------------------------------------------------------------------------


def test_a_request_reserves_what_it_may_cost_and_then_counts_what_it_did(serve, runner):
    server = serve(lambda asked: Say("Yes.", usage=Tokens(100, 10)))

    @runner.task
    async def ask(ctx: Context) -> str:
        given = {"max_tokens": 1000}
        return await ctx.llm(OPENAI, "How is it?", output=str, settings=given)

    # A thousand tokens of an answer cost 0.002 US dollars: reserved, and given back.
    enough = runner.options(budget=Budget(cost=0.0021)).submit(ask)
    assert enough.run() == "Yes."
    spent = operations.budget_of(runner.store, enough.task_id)
    assert spent.nanos == nanos_of(100 * 0.25e-6 + 10 * 2e-6)
    with pytest.raises(errors.TaskBlockedError, match="budget"):
        runner.options(budget=Budget(cost=0.0019)).submit(ask).run()
    assert server.count == 1


def test_a_model_of_unknown_price_is_refused_under_a_budget_of_money(serve, runner):
    server = serve(lambda asked: "never")

    @runner.task
    async def ask(ctx: Context) -> str:
        return await ctx.llm("openai:home-made-7", "How is it?", output=str)

    with pytest.raises(errors.TaskFailedError, match="costs isn't known"):
        runner.options(budget=Budget(cost=100)).run(ask)
    assert server.count == 0

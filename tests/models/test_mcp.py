"""MCP servers of an agent: a real one over stdio, its tools recorded by what it says of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from support.model_server import Say, Use

from holdfast import Context, TaskRunner, errors
from holdfast.integrations.pydantic_ai import DurableAgent

from .conftest import OPENAI
from .test_agents import entries

SERVER = Path(__file__).with_name("mcp_office.py")
NAMES = ("look_up", "file_away", "send", "send_silently")


def office(folder: Path) -> MCPToolset:
    transport = StdioTransport(sys.executable, [str(SERVER), str(folder)], keep_alive=False)
    return MCPToolset(transport, id="office")


def called(folder: Path) -> list[str]:
    return (folder / "called").read_text().splitlines()


def clerk(asked):
    if asked.round == 0:
        return Say(calls=tuple(Use(name, {"what": "x"}) for name in NAMES))
    return "; ".join(result.text for result in asked.results)


@pytest.fixture
def run(serve, runner: TaskRunner, quick, tmp_path):
    """Run an agent with that server in a handler that fails twice; returns what it said."""

    def start(**settings: object) -> str:
        agent = Agent(OPENAI, toolsets=[office(tmp_path)])

        @runner.task(name="work", retry=quick)
        async def work(ctx: Context) -> str:
            output = (await DurableAgent(agent, **settings).run(ctx, "go")).output
            if ctx.attempt < 3:
                raise RuntimeError("once more")
            return output

        return runner.run(work)

    return start


def test_the_tools_have_the_effects_their_server_hints_at_and_a_replay_needs_no_server(
    serve, runner, run, tmp_path
):
    server = serve(clerk)
    assert run() == "; ".join(f"{name} did x" for name in NAMES)
    effects = {entry.name: entry.effect for entry in entries(runner)}
    assert effects == {
        "look_up": "read", "file_away": "idempotent", "send": "once", "send_silently": "once",
    }  # fmt: skip
    assert server.count == 2
    assert called(tmp_path).count("(started)") == 1  # of three attempts
    for name in NAMES:
        assert called(tmp_path).count(f"{name} x") == 1


def test_the_hints_of_a_server_that_isn_t_trusted_count_for_nothing(serve, runner, run):
    serve(clerk)
    run(trust_hints=False, effects={"look_up": "read"})
    effects = {entry.name: entry.effect for entry in entries(runner)}
    assert effects == {
        "look_up": "read", "file_away": "once", "send": "once", "send_silently": "once",
    }  # fmt: skip


def test_a_call_whose_server_never_answers_is_in_doubt(serve, runner, tmp_path):
    (tmp_path / "silent").touch()
    serve(lambda asked: Say(calls=(Use("send", {"what": "x"}),)))
    transport = StdioTransport(sys.executable, [str(SERVER), str(tmp_path)], keep_alive=False)
    toolset = MCPToolset(transport, id="office", read_timeout=0.3)
    agent = Agent(OPENAI, toolsets=[toolset])

    @runner.task
    async def work(ctx: Context) -> str:
        return (await DurableAgent(agent).run(ctx, "go")).output

    with pytest.raises(errors.TaskBlockedError, match="send"):
        runner.run(work)
    assert called(tmp_path).count("send x") == 1

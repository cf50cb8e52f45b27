"""Types flow from a function to its calls. Checked by basedpyright, never run."""

from __future__ import annotations

from typing import assert_type

from holdfast import Context, SyncContext, TaskRunner, tool

runner = TaskRunner()


@tool(effect="once")
async def send(to: str, *, times: int = 1) -> bool:
    return bool(to) and times > 0


@tool
def count(text: str) -> int:
    return len(text)


async def ask(prompt: str) -> str:
    return prompt


@runner.task
async def part(ctx: Context, n: int) -> list[str]:
    return [ctx.item_id] * n


@runner.task(name="whole")
async def whole(ctx: Context, topic: str) -> float:
    assert_type(await ctx.tool(send, "a", times=2), bool)
    assert_type(await ctx.tool(count, topic), int)
    assert_type(await ctx.llm(ask, topic), str)
    assert_type((await ctx.llm("openai:gpt-5-mini", topic)).text, str | None)
    assert_type(await ctx.llm("openai:gpt-5-mini", topic, output=list[int]), list[int])
    assert_type(await ctx.step(len, topic), int)
    assert_type(await ctx.options(key="k").tool(send, to="a"), bool)
    assert_type(await ctx.child(part, n=1), list[str])
    assert_type(await ctx.gather(ctx.tool(count, "a"), ctx.tool(count, "b")), list[int])
    assert_type(await ctx.map(ask, ["a"]), list[str])
    assert_type(await ctx.restore({"n": 1}), dict[str, int])
    await ctx.tool(send)  # pyright: ignore[reportCallIssue]
    await ctx.tool(send, 1)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.child(part, n="1")  # pyright: ignore[reportArgumentType]
    return 1.0


@runner.task
def sync_whole(ctx: SyncContext, topic: str) -> float:
    assert_type(ctx.tool(send, "a", times=2), bool)
    assert_type(ctx.tool(count, topic), int)
    assert_type(ctx.options(key="k").llm(ask, topic), str)
    assert_type(ctx.llm("openai:gpt-5-mini", topic, output=int), int)
    assert_type(list(ctx.stream("openai:gpt-5-mini", topic)), list[str])
    assert_type(ctx.child(part, n=1), list[str])
    assert_type(ctx.map(count, ["a"]), list[int])
    ctx.options(keys="k")  # pyright: ignore[reportCallIssue]
    return 1.0


def results() -> None:
    assert_type(runner.run(whole, topic="tides"), float)
    assert_type(runner.run(sync_whole, "tides"), float)
    runner.run(whole, topic=1)  # pyright: ignore[reportArgumentType]
    runner.run(whole)  # pyright: ignore[reportCallIssue]


async def async_results() -> None:
    assert_type(await runner.submit(whole, topic="tides").result(), float)
    assert_type(await runner.arun(whole, topic="tides"), float)

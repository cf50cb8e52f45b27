"""Two runs of one handler whose code was edited in between: what still matches is replayed."""

from __future__ import annotations

import asyncio
import json

import pytest

from holdfast import LeaseManager, TaskRunner, ToolLedger, errors, operations, tool
from holdfast.models import RetryPolicy
from holdfast.store import open_store, verbs

ONCE = RetryPolicy(max_attempts=3, initial=0.0)


class World:
    """A handler that can be edited between attempts, and what its calls did."""

    def __init__(self, path):
        self.runner = TaskRunner(f"sqlite:///{path}/h.db", workspace=str(path))
        self.made = []
        self.handler = None

        @self.runner.task(retry=ONCE, name="job")
        async def job(ctx) -> object:
            assert self.handler is not None
            return await self.handler(ctx)

        self.job = job

        @tool(effect="once", name="send")
        async def send(to: object) -> str:
            self.made.append(to)
            return f"sent {to}"

        self.send = send

        async def look(at: str) -> str:
            self.made.append(at)
            return f"saw {at}"

        self.look = look

    def first(self, handler):
        """Run a version that ends in a crash, as far as its item can see."""

        async def crashes(ctx):
            await handler(ctx)
            raise OSError("crash")

        versions = [crashes]
        self.after = versions.append

        async def run(ctx):
            return await versions.pop(0)(ctx)

        self.handler = run

    def then(self, handler):
        self.after(handler)
        return self.runner.run(self.job)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.runner.close()


def test_a_call_added_in_front_is_made_and_the_others_replay(world):
    async def old(ctx):
        return [await ctx.step(world.look, "a"), await ctx.tool(world.send, 1)]

    async def new(ctx):
        return [await ctx.step(world.look, "0"), *await old(ctx)]

    world.first(old)
    assert world.then(new) == ["saw 0", "saw a", "sent 1"]
    assert world.made == ["a", 1, "0"]


def test_two_calls_swapped_both_replay(world):
    async def old(ctx):
        return [await ctx.tool(world.send, 1), await ctx.tool(world.send, 2)]

    async def new(ctx):
        return [await ctx.tool(world.send, 2), await ctx.tool(world.send, 1)]

    world.first(old)
    assert world.then(new) == ["sent 2", "sent 1"]
    assert world.made == [1, 2]


def test_a_removed_effect_is_reported_at_the_end(world):
    seen = []

    async def old(ctx):
        seen.append(ctx.task.task_id)
        await ctx.tool(world.send, 1)
        await ctx.step(world.look, "a")

    async def new(ctx):
        return await ctx.step(world.look, "b")

    world.first(old)
    assert world.then(new) == "saw b"
    told = [
        json.loads(event.data)["entries"]
        for event in world.runner.store.read(verbs.list_events(seen[0]))
        if event.type == "effects_not_asked_for"
    ]
    assert len(told) == 1
    assert told[0][0].startswith("send")
    assert len(told[0]) == 2


def test_edited_arguments_of_a_once_call_are_in_doubt_until_somebody_lets_it_through(world):
    async def old(ctx):
        return await ctx.tool(world.send, 1)

    async def new(ctx):
        return await ctx.tool(world.send, "one")

    world.first(old)
    with pytest.raises(errors.TaskBlockedError) as caught:
        world.then(new)
    assert world.made == [1]
    assert "--new" in caught.value.needs[0]
    entry = caught.value.needs[0].removeprefix("holdfast resolve ").split(": ")[0]
    world.runner.resolve(entry, "new")
    world.after(new)
    assert world.runner.run(world.job) == "sent one"
    assert world.made == [1, "one"]


def test_a_new_once_call_waits_for_a_branch_that_asks_for_the_recorded_one(world):
    async def old(ctx):
        return await ctx.tool(world.send, 1)

    async def new(ctx):
        async def later():
            async with asyncio.timeout(5):
                await ctx.step(world.look, "slowly")
            return await ctx.tool(world.send, 1)

        return await asyncio.gather(later(), ctx.tool(world.send, 2))

    world.first(old)
    assert world.then(new) == ["sent 1", "sent 2"]
    assert world.made == [1, "slowly", 2]


def test_of_200_parallel_once_calls_half_recorded_none_is_flagged(world):
    async def old(ctx):
        async def one(n):
            return await ctx.tool(world.send, n) if n % 2 else None

        await ctx.map(one, range(200))

    async def new(ctx):
        async def one(n):
            return await ctx.tool(world.send, n)

        return len(await ctx.map(one, range(200)))

    world.first(old)
    assert world.then(new) == 200
    assert sorted(world.made) == list(range(200))


def test_a_limited_map_does_not_wait_for_branches_that_cannot_start(world):
    async def old(ctx):
        async def one(n):
            return await ctx.tool(world.send, n) if n >= 6 else None

        await ctx.map(one, range(10))

    async def new(ctx):
        async def one(n):
            return await ctx.tool(world.send, n)

        return len(await ctx.map(one, range(10), limit=3))

    world.first(old)
    with pytest.raises(errors.TaskBlockedError) as caught:  # in doubt, and not hanging
        world.then(new)
    assert len(caught.value.needs) == 3
    assert sorted(world.made) == [6, 7, 8, 9]


def test_alone_a_divergent_once_call_is_in_doubt_at_once(tmp_path):
    made = []

    async def send(to: str) -> None:
        made.append(to)

    async def attempt(to):
        async with LeaseManager(store) as leases, leases.hold("job") as journal:
            await ToolLedger(journal).execute_or_replay(send, to)

    with open_store(f"sqlite:///{tmp_path}/h.db") as store:
        asyncio.run(attempt("a"))
        with pytest.raises(errors.InDoubtError) as caught:
            asyncio.run(attempt("b"))
        asyncio.run(operations.resolve(store, caught.value.entry, "new"))
        asyncio.run(attempt("b"))
    assert made == ["a", "b"]

"""Runs as `python agent_crashes.py` in an empty directory: an agent, killed at every boundary.

It forks, which only a process with one thread may; so it isn't run inside pytest. The provider is
where the environment says.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from pydantic_ai import Agent, RunContext

from holdfast import Context, TaskRunner, errors, idempotency_key, operations
from holdfast.integrations.pydantic_ai import DurableAgent
from holdfast.store import open_store, verbs
from holdfast.store.payload import decode_payload
from holdfast.testing import CrashPlan, Point, Process, open_with_plan

MODELS = ["openai:gpt-5-mini", "anthropic:claude-haiku-4-5"]


STREAMED = MODELS[1]
"""Its answers are read while they come."""


async def read_on(_, events):
    async for _ in events:
        pass


def note(file, line):
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def lines(file):
    return Path(file).read_text().splitlines() if Path(file).exists() else []


def make_agent(model):
    agent = Agent(model, instructions="Be brief.", deps_type=CrashPlan, name="clerk")

    @agent.tool_plain(metadata={"holdfast": "read"})
    async def search(what: str) -> str:
        note("searched", what)
        return f"found {what}"

    @agent.tool_plain(metadata={"holdfast": "idempotent"})
    def file_away(text: str) -> str:
        note("filed", f"{idempotency_key()} {text}")
        return "filed"

    @agent.tool
    async def send(ctx: RunContext[CrashPlan], to: str) -> str:
        with ctx.deps.boundary("effect", f"send {to}"):
            note("outbox", to)
        return f"sent to {to}"

    return DurableAgent(agent)


def run(model, prompt, plan):
    """Run the task to its end, or until it needs a person; returns what came out."""
    store, _ = open_with_plan("holdfast.db", plan)
    runner = TaskRunner(store, lease=5.0)
    durable = make_agent(model)

    @runner.task
    async def clerk(ctx: Context, prompt: str) -> str:
        handler = read_on if model == STREAMED else None
        result = await durable.run(ctx, prompt, deps=plan, event_stream_handler=handler)
        return result.output

    try:
        return {"said": runner.run(clerk, prompt), "counts": dict(plan.counts)}
    except errors.TaskBlockedError as blocked:
        return {"entries": blocked.entries}
    finally:
        runner.close()
        store.close()


def resolve(entry):
    """Settle a doubtful call by what the outbox says."""
    task_id, item_id, number = entry.split(":")
    store = open_store("sqlite:///holdfast.db")
    (intent,) = [
        each for each in store.read(verbs.read_journal(task_id, item_id)) if each.seq == int(number)
    ]
    to = decode_payload(store, task_id, intent.request).arguments["to"]
    how = "done" if to in lines("outbox") else "retry"
    asyncio.run(operations.resolve(store, entry, how, f"sent to {to}"))
    store.close()


def kill_at(root, point):
    """Kill a run there, and start it again until it is done; returns what happened."""
    model, prompt = MODELS[point.number % 2], str(point)
    folder = root / prompt.replace(" ", "-")
    folder.mkdir()
    os.chdir(folder)
    with Process.fork(lambda tell: run(model, prompt, CrashPlan(point, "kill", tell))) as first:
        if first.wait().how != "killed":
            return None
        label = first.messages[-1]
    doubts = 0
    while True:
        with Process.fork(lambda _: run(model, prompt, CrashPlan())) as again:
            ran = again.result()
        if "said" in ran:
            break
        doubts += 1
        (entry,) = ran["entries"]
        with Process.fork(lambda _: resolve(entry)) as person:  # noqa: B023  called at once
            person.result()
    assert ran["said"] == "All done.", (point, ran)
    assert sorted(lines("outbox")) == ["ann", "bob"], (point, lines("outbox"))
    assert len(set(lines("filed"))) == 1, (point, lines("filed"))
    return {"point": prompt, "label": label, "doubts": doubts}


def main():
    root, found = Path.cwd(), []
    for model in MODELS:  # what a run loads, every child begins with
        (root / model).mkdir()
        os.chdir(root / model)
        assert run(model, "a rehearsal", CrashPlan())["said"] == "All done."
    for kind in ("commit", "effect"):
        number = 0
        while True:
            number += 1
            got = [kill_at(root, Point(kind, number, side)) for side in ("before", "after")]
            found += [each for each in got if each is not None]
            if got == [None, None]:
                break
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

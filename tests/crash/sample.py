"""The README's sample as a script, with a model and a mailbox that leave traces."""

from __future__ import annotations

import os
import time
from pathlib import Path

from holdfast import Context, Evidence, TaskRunner, tool

runner = TaskRunner("sqlite:///holdfast.db")


def note(file: str, line: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


async def ask_model(prompt: str) -> str:
    note("paid", prompt)
    return f"Notes: {prompt}"


@tool(effect="once")
async def send_email(to: str, body: str) -> str:
    note("entered", to)
    time.sleep(float(os.environ.get("SLOW_BEFORE", "0")))  # noqa: ASYNC251  it blocks
    note("outbox", f"{to}: {body}")
    time.sleep(float(os.environ.get("SLOW_AFTER", "0")))  # noqa: ASYNC251  it blocks
    return "sent"


@runner.task
async def report(ctx: Context, topic: str, to: str) -> str:
    notes = await ctx.llm(ask_model, f"Write notes on {topic}")
    Path("notes.md").write_text(notes)  # noqa: ASYNC240  as in the README
    await ctx.checkpoint({"notes": notes}, evidence=[Evidence.file("notes.md")])
    return await ctx.tool(send_email, to=to, body=notes)


if __name__ == "__main__":
    print(runner.run(report, topic="tides", to="a@b.c"), flush=True)  # noqa: T201  its output
    time.sleep(float(os.environ.get("LINGER", "0")))

"""An application in a directory of its own, and ways to run `holdfast` on it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from holdfast.cli import main

APPLICATION = """
import asyncio, dataclasses, datetime, os, signal
from pathlib import Path

import pydantic

from holdfast import Context, Evidence, RetryPolicy, Secret, TaskRunner, Usage, WorkItem, tool

runner = TaskRunner("sqlite:///own.db")
nothing = 7
NO_RETRY = RetryPolicy(max_attempts=1)


@dataclasses.dataclass
class Order:
    name: str
    due: datetime.date


class Model(pydantic.BaseModel):
    size: int


@tool(effect="once")
async def send(to: str) -> str:
    with open("outbox", "a") as outbox:
        outbox.write(to + "\\n")
    if os.path.exists("kill"):
        os.remove("kill")
        os.kill(os.getpid(), signal.SIGKILL)
    return "sent"


async def ask(prompt: str) -> dict:
    usage = {"input_tokens": 30, "output_tokens": 40, "cost": 0.25}
    return {"text": f"notes on {prompt}", "usage": usage}


@runner.task
async def report(ctx: Context, topic: str, to: str = "a@b.c") -> str:
    print("a print of the application")
    answer = await ctx.llm(ask, topic)
    Path("notes.md").write_text(answer["text"])
    await ctx.checkpoint({"topic": topic}, evidence=[Evidence.file("notes.md")])
    return await ctx.tool(send, to=to) + " " + topic


@runner.task
async def typed(ctx: Context, order: Order, model: Model, key: Secret[str] | None = None) -> list:
    return [type(order).__name__, order.due, type(model).__name__, order]


@runner.task(retry=NO_RETRY)
async def failing(ctx: Context) -> None:
    if not os.path.exists("mended"):
        raise ValueError("no luck\\nwith password=hunter2hunter2")


@runner.task
async def slow(ctx: Context) -> str:
    Path("started").write_text("yes")
    for _ in range(600):
        if os.path.exists("finish"):
            return "ended by itself"
        await asyncio.sleep(0.05)
    return "too late"


@runner.task
async def waiting(ctx: Context) -> object:
    return await ctx.signal("go")


@runner.task
async def counting(ctx: Context, until: int) -> int:
    state = await ctx.restore({"n": 0})
    while state["n"] < until:
        state = {"n": state["n"] + 1}
        await ctx.checkpoint(state)
    return state["n"]


@tool(effect="once", approve=True)
async def order(what: str, key: Secret[str]) -> str:
    return f"ordered {what}"


@runner.task
async def ordering(ctx: Context, what: str) -> str:
    asked = ctx.options(reserve=Usage(100, 200, cost=0.5))
    answer = await asked.llm(ask, what)
    return await ctx.tool(order, what=answer["text"], key=Secret("key-4711-4711-4711"))


@runner.task
async def part(ctx: Context, n: int) -> int:
    return n * n


@runner.task
async def planned(ctx: Context) -> int:
    return max(ctx.results.values())


@runner.planner(planned)
def plan(task):
    return [WorkItem("one", part, {"n": 1}), WorkItem("two", part, {"n": 2}, after=["one"])]
"""


class Answer(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its one JSON document."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error it printed as JSON, behind whatever the application printed."""
        return json.loads(self.err.splitlines()[-1])["error"]


Cli = Callable[..., Answer]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory with the application, which is where everything runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOLDFAST_DB", "HOLDFAST_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    (tmp_path / "app.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture
def cli(place: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in this process, on the application's own database."""
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    for name in [name for name in sys.modules if name.split(".")[0] in {"app", "broken"}]:
        monkeypatch.delitem(sys.modules, name)

    def run(*words: str, db: str | None = "sqlite:///own.db") -> Answer:
        out, err = io.StringIO(), io.StringIO()
        given = ["--db", db, *words] if db else list(words)
        with redirect_stdout(out), redirect_stderr(err):
            code = main(given)
        answer = Answer(code, out.getvalue(), err.getvalue())
        assert "Traceback" not in answer.out + answer.err
        return answer

    yield run
    for name in [name for name in sys.modules if name.split(".")[0] in {"app", "broken"}]:
        del sys.modules[name]


def _command_line(words: Sequence[str]) -> list[str]:
    program = "import sys; from holdfast.cli import main; sys.exit(main())"
    return [sys.executable, "-c", program, *words]


@pytest.fixture
def real(place: Path) -> Cli:
    """Run the real command to its end, in a process of its own."""

    def run(*words: str, **variables: str) -> Answer:
        ended = subprocess.run(  # noqa: S603  our own program
            _command_line(words), cwd=place, capture_output=True, text=True, timeout=60,
            check=False, env=os.environ | {"HOLDFAST_DB": "sqlite:///own.db"} | variables,
        )  # fmt: skip
        answer = Answer(ended.returncode, ended.stdout, ended.stderr)
        assert "Traceback" not in answer.out + answer.err
        return answer

    return run


@pytest.fixture
def started(place: Path):
    """Start real commands that go on; whatever is left of them at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603  our own program
            _command_line(words), cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"HOLDFAST_DB": "sqlite:///own.db"},
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdout, process.stderr):
            stream.close()
        process.wait()


@pytest.fixture
def until():
    """Wait until something holds; fails after 20 seconds."""

    def wait(holds: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < end, "it never came about"
            time.sleep(0.02)

    return wait

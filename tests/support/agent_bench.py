"""An agent at work: a repository, a model that follows a script, and `holdfast` in this process."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from support.agent_script import make_repository
from support.model_server import Answer, Asked, Fail, ModelServer, Say, Use

from holdfast.cli import main
from holdfast.store import open_store, verbs

MODEL = "openai:gpt-5-mini"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def task_id(self) -> str:
        """The task's id, which is printed before anything is done."""
        found = re.search(r"^task (\S+)$", self.err, re.MULTILINE)
        assert found is not None, self.err
        return found[1]


class Bench:
    """A repository with a bug, a database, and a model."""

    def __init__(self, place: Path, server: ModelServer) -> None:
        self.place = place
        self.server = server
        self.root = make_repository(place / "work")
        self.url = f"sqlite:///{place}/holdfast.db"

    def holdfast(self, *words: str) -> Ended:
        """Run a command."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--db", self.url, *words])
        return Ended(code, out.getvalue(), err.getvalue())

    def agent(self, goal: str = "Fix the bug", *words: str, model: str = MODEL) -> Ended:
        """Run an agent that asks nobody, unless `words` say otherwise."""
        return self.holdfast("agent", *self._words(goal, *words, model=model))

    def _words(self, goal: str, *words: str, model: str = MODEL) -> list[str]:
        given = [goal, "--workspace", str(self.root), "--model", model, "--mode", "implementation"]
        if "--approvals" not in words:
            given += ["--approvals", "autonomous"]
        return [*given, *words]

    def kill_when_asked(self, goal: str, *words: str) -> None:
        """Run an agent in a process of its own, and kill it while the model thinks."""
        program = Path(sys.executable).with_name("holdfast")
        command = [str(program), "--db", self.url, "agent", *self._words(goal, *words)]
        before = self.server.count
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603
        while self.server.count == before and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL

    def resume(self, task_id: str, *words: str) -> Ended:
        """Go on with a task."""
        return self.holdfast("agent", "--task", task_id, *words)

    def documents(self, ended: Ended) -> list[dict[str, Any]]:
        """Return what a command with `--json` printed."""
        return [json.loads(line) for line in ended.out.splitlines()]

    def entries(self, task_id: str) -> list[Any]:
        """Return the journal entries of a task and everything below it."""
        found: list[Any] = []
        with open_store(self.url) as store:
            left = [task_id]
            while left:
                each = left.pop()
                for item in store.read(verbs.list_items(each)):
                    found += store.read(verbs.read_journal(each, item.item_id))
                left += [child.task_id for child in store.read(verbs.list_children(each))]
        return found


RIGHT = ("--gate", "right=grep -q a.+.b calc.py")
"""A gate that passes once the bug is fixed, and takes no time."""

EDIT = Use("edit_file", {"path": "calc.py", "old": "a - b", "new": "a + b"})


def item(name: str, **more: Any) -> dict[str, Any]:
    """Return an item of a plan; its title is its name."""
    given = {"id": name, "title": name, "instructions": f"Do {name}.", "mode": "implementation"}
    return given | more


def plan(*items: dict[str, Any]) -> Say:
    """Return an answer that is a plan."""
    return Say(calls=(Use("final_result", {"summary": "The plan.", "items": list(items)}),))


def scripted(planning: Answer | Sequence[Answer], items: Mapping[str, Sequence[Answer]]):
    """Return a script: what the planner says, round by round, and what each item's worker says."""
    plans = [planning] if isinstance(planning, Say | Fail | str) else planning

    def script(asked: Asked) -> Answer:
        if "final_result" in asked.tools:
            return plans[min(asked.round, len(plans) - 1)]
        for name, answers in items.items():
            if f"Your part: {name}\n" in asked.prompt:
                return answers[min(asked.round, len(answers) - 1)]
        return Fail(400, f"The script has no answer to {asked.prompt!r}.")

    return script

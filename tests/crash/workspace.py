"""Kills inside the workspace tools: run as `python workspace.py NAME` in an empty directory.

A process may only fork while it has one thread, which a test runner hasn't.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from holdfast import TaskRunner, errors
from holdfast.agents.permissions import AllowedCommand, Permissions
from holdfast.agents.workspace_tools import WorkspaceTools
from holdfast.testing import Ended, Process

KILLED = Ended("killed", signal.SIGKILL)

KILLER = """
import os, signal
with open("log", "a") as log:
    print("ran", file=log)
if not os.path.exists("safe"):
    os.kill(os.getppid(), signal.SIGKILL)
"""


def new_workspace(name):
    place = Path.cwd() / name / "work"
    place.mkdir(parents=True)
    (place / "f").write_text("an old text")
    return place


def one_call(work, what):
    """Make one call in a task; run again, that task goes on. Returns the answer, or the need."""
    permissions = Permissions(
        change_files=True, run_commands=True, commands=(AllowedCommand((sys.executable,)),)
    )
    tools = WorkspaceTools(
        work, permissions, sandbox="off", repeatable=[[sys.executable, "repeat.py"]]
    )
    calls = {
        "edit": (tools.edit_file, "f", "old", "new"),
        "write": (tools.write_file, "f", "all new"),
        "create": (tools.write_file, "d/g", "made"),
        "once": (tools.run_command, [sys.executable, "once.py"]),
        "repeat": (tools.run_command, [sys.executable, "repeat.py"]),
    }
    runner = TaskRunner(f"sqlite:///{work.parent}/h.db", workspace=str(work))

    @runner.task
    async def job(ctx) -> str:
        return await ctx.tool(*calls[what])

    try:
        return runner.run(job)
    except errors.TaskBlockedError as blocked:
        return f"blocked: {blocked.needs}"


def die_at(at):
    """Let this process be killed when a new content takes its place: inside, before or after."""
    rename, write = os.rename, os.write

    def dying(*args, **kwargs):
        if at == "after":
            rename(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    def writing(fd, data):
        write(fd, data[:2])
        os.kill(os.getpid(), signal.SIGKILL)

    if at == "inside":
        os.write = writing
    else:
        os.rename = dying


def killed(work, what, at=None):
    def run(tell):
        if at is not None:
            die_at(at)
        return one_call(work, what)

    with Process.fork(run, work.parent / "output") as process:
        assert process.wait() == KILLED, process.messages


def resumed(work, what):
    with Process.fork(lambda _: one_call(work, what), work.parent / "output") as process:
        return process.result()


FILES = {"edit": ("f", "an new text"), "write": ("f", "all new"), "create": ("d/g", "made")}


def a_change_is_made_once_wherever_the_process_was_killed():
    for what, (name, content) in FILES.items():
        for at in ("inside", "before", "after"):
            work = new_workspace(f"{what}-{at}")
            killed(work, what, at)
            there = (work / name).read_text() if (work / name).exists() else None
            assert there == (content if at == "after" else {"f": "an old text"}.get(name))
            assert resumed(work, what).startswith(f"{name} has now sha256 ")
            assert (work / name).read_text() == content
            assert {path.name for path in work.iterdir()} <= {"f", "d", ".holdfast"}


def a_file_that_somebody_else_changed_meanwhile_is_left_to_a_person():
    for at in ("before", "after"):
        work = new_workspace(at)
        killed(work, "edit", at)
        (work / "f").write_text("a third text, old")
        assert resumed(work, "edit").startswith("blocked: ")
        assert (work / "f").read_text() == "a third text, old"


def a_command_runs_again_only_where_the_task_says_that_it_may():
    for what, runs, answer in (("once", 1, "blocked: "), ("repeat", 2, "exit code 0")):
        work = new_workspace(what)
        (work / f"{what}.py").write_text(KILLER)
        killed(work, what)
        (work / "safe").touch()
        assert resumed(work, what).startswith(answer)
        assert (work / "log").read_text() == "ran\n" * runs


if __name__ == "__main__":
    globals()[sys.argv[1]]()

"""Runs as `python pipeline_crashes.py` in an empty directory: a pipeline, killed here and there.

It forks, which only a process with one thread may; so it isn't run inside pytest. The provider is
where the environment says.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from holdfast import ModePipelineRunner, TaskRunner
from holdfast.store import open_store, verbs
from holdfast.testing import CrashPlan, Ended, Point, Process, open_with_plan

POINTS = 4


def run(goal, plan):
    """Run the pipeline to its end; returns what came out, and how many commits that took."""
    store, _ = open_with_plan("holdfast.db", plan)
    runner = TaskRunner(store, workspace="work", lease=5.0)
    pipelines = ModePipelineRunner(runner, model="openai:gpt-5-mini")
    try:
        result = pipelines.run_pipeline(goal, ["implementation", "design"], sandbox="off")
        return {"said": result.output, "counts": dict(plan.counts)}
    finally:
        runner.close()
        store.close()


def die_at_the_edit(side):
    """Let this process be killed just before or after the edited file takes its place."""
    rename = os.rename

    def dying(source, target, **places):
        if target == "f" and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **places)
        if target == "f":
            os.kill(os.getpid(), signal.SIGKILL)

    os.rename = dying


def kill(root, goal, crash, plan):
    folder = root / goal
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "f").write_text("an old text")
    os.chdir(folder)

    def first(tell):
        crash()
        return run(goal, plan(tell))

    with Process.fork(first) as process:
        assert process.wait() == Ended("killed", signal.SIGKILL), process.messages
    with Process.fork(lambda _: run(goal, CrashPlan())) as process:
        assert process.result()["said"] == "Good.", goal
    assert (folder / "work" / "f").read_text() == "a new text"
    assert_edited_once(goal)


def assert_edited_once(goal):
    with open_store("sqlite:///holdfast.db") as store:
        (task,) = store.read(verbs.list_tasks(None, 10))
        entries = store.read(verbs.read_journal(task.task_id, "1-implementation"))
    edits = [entry.status.value for entry in entries if entry.name == "edit_file"]
    assert edits[-1] == "done", (goal, edits)
    assert edits.count("started") - edits.count("released") == 1, (goal, edits)


def main():
    import_module("holdfast.providers.asking")  # takes seconds: once, and not in every child
    root = Path.cwd()
    (root / "rehearsal" / "work").mkdir(parents=True)
    os.chdir(root / "rehearsal")
    Path("work", "f").write_text("an old text")
    with Process.fork(lambda _: run("rehearsal", CrashPlan())) as process:
        commits = process.result()["counts"]["commit"]
    for at in range(POINTS):
        number = 2 + at * (commits - 5) // (POINTS - 1)  # how many there are varies a little
        point = Point("commit", number, ("before", "after")[at % 2])
        kill(
            root,
            f"commit-{number}",
            lambda: None,
            lambda tell, point=point: CrashPlan(point, "kill", tell),
        )
    for side in ("before", "after"):
        kill(root, f"edit-{side}", lambda side=side: die_at_the_edit(side), lambda _: CrashPlan())
    sys.stdout.write(f"{commits}\n")


if __name__ == "__main__":
    main()

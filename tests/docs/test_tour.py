"""The tour of the README is what a terminal shows: its commands are run, its output is compared.

Ids, times and names of workers differ from run to run; everything else must be as it is printed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
TOUR = README.partition("## Sixty seconds")[2].partition("`make demo` does this")[0]
KILL = "python agent.py & sleep 0.8; kill -9 $!"
TASK = re.compile(r"\b01[a-z0-9]{24}\b")


def steps() -> list[tuple[str, list[str]]]:
    """Return the commands of the tour, each with the lines it prints."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", TOUR, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def without_chance(line: str) -> str:
    line = re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "TIME", line)
    return re.sub(r"worker=\S+", "worker=NAME", line)


def kill_it_inside_send_email(where: Path, environment: dict[str, str]) -> None:
    agent = subprocess.Popen(
        [sys.executable, "agent.py"], cwd=where, env=environment, start_new_session=True
    )
    outbox = where / "outbox.txt"
    try:
        until = time.monotonic() + 30
        while not (outbox.exists() and outbox.read_text()) and time.monotonic() < until:
            time.sleep(0.01)
        agent.send_signal(signal.SIGKILL)
    finally:
        agent.kill()
        assert agent.wait() == -signal.SIGKILL


def test_the_tour_of_the_readme_is_what_a_terminal_shows(tmp_path: Path):
    sample = re.search(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert sample is not None
    (tmp_path / "agent.py").write_text(sample[1], "utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONIOENCODING": "utf-8",
    }
    told = TASK.search(TOUR)
    assert told is not None
    task = told[0]
    for command, expected in steps():
        if command == KILL:
            kill_it_inside_send_email(tmp_path, environment)
            continue
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            environment[name] = value
            continue
        command = command.replace(told[0], task).replace(told[0][:8], task)  # noqa: PLW2901
        done = subprocess.run(  # noqa: S602  commands of our own README
            command,
            shell=True,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        blocked = re.search(r"TaskBlockedError: Task (\w+)", done.stdout)
        task = blocked[1] if blocked else task
        printed = {without_chance(line) for line in done.stdout.splitlines()}
        for line in expected:
            told_line = without_chance(line.replace(told[0], task))
            assert told_line in printed, f"$ {command}\n{done.stdout}\n{told_line!r} is missing"

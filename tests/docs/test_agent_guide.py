"""The guide to agents is what a terminal shows, with a scripted model in the provider's place.

Its commands are run in order, in a repository as the page shows it. Ids, times and counts of tokens
may differ; everything else must be as it is printed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from support import agent_script
from support.model_server import Answer, Asked, ModelServer, Say

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "first-agent.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
TASK = re.compile(r"\b01[a-z0-9]{24}\b")
KILL = " & sleep 4; kill -9 $!"


def steps() -> list[tuple[str, list[str]]]:
    """Return the commands of the page, each with the lines it prints."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return [step for step in found if not step[0].startswith("make ")]


def without_chance(line: str) -> str:
    line = re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "TIME", line)
    return re.sub(r"\d[\d,.]*", "N", TASK.sub("ID", line))


def slowly(asked: Asked) -> Answer:
    """Answer as the page's model does; it thinks for a while about the first edit."""
    answer = agent_script.fix(asked)
    if isinstance(answer, Say) and asked.nth == 0 and "edit_file" in str(answer.calls):
        return msgspec.structs.replace(answer, delay=3.0)
    return answer


class Terminal:
    """Runs the page's commands."""

    def __init__(self, place: Path, server: ModelServer) -> None:
        self._place = place
        self._server = server
        kept = {name: v for name, v in os.environ.items() if not name.startswith("HOLDFAST_")}
        self._environment = {
            **kept,
            **server.environment,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONIOENCODING": "utf-8",
        }

    def run(self, command: str) -> str:
        done = subprocess.run(  # noqa: S602  our own page
            command, shell=True, timeout=100, check=False, text=True,
            cwd=self._place, env=self._environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout

    def kill_while_it_asks(self, command: str) -> str:
        """Kill it while the model thinks about the edit."""
        running = subprocess.Popen(  # noqa: S602  our own page
            f"exec {command}", shell=True, text=True,
            cwd=self._place, env=self._environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until = time.monotonic() + 60
            while self._server.count < 6 and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(1.0)  # what happens is shown a moment later; the model thinks for longer
            running.send_signal(signal.SIGKILL)
        finally:
            running.kill()
            said, _ = running.communicate()
        return said


def test_the_guide_to_agents_is_what_a_terminal_shows(tmp_path):
    place = agent_script.make_repository(tmp_path / "shop", watched=False)
    known: dict[str, str] = {}
    with ModelServer(slowly) as server:
        terminal = Terminal(place, server)
        for command, expected in steps():
            told = command
            for theirs, ours in known.items():
                told = told.replace(theirs, ours)
            if told.endswith(KILL):
                said = terminal.kill_while_it_asks(told.removesuffix(KILL))
            else:
                said = terminal.run(told)
            known |= dict(zip(ids("\n".join(expected)), ids(said), strict=False))
            printed = {without_chance(line) for line in said.splitlines()}
            for line in expected:
                shown = line == "…" or without_chance(line) in printed
                assert shown, f"$ {told}\n{said}\n{line!r} is missing"
        planning = [asked for asked in server.requests if "final_result" in asked.tools]
        assert len(planning) == 3  # of two tasks: the second plan came from the cache
        assert server.count == 3 + 2 * 7 + 1  # and one answer that the kill had taken


def ids(text: str) -> list[str]:
    """Return the ids in a text, each once, in order."""
    return list(dict.fromkeys(TASK.findall(text)))


def test_the_readme_shows_a_part_of_the_guide():
    section = README.partition("## An agent in one command")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert blocks
    for line in "".join(blocks).splitlines():
        assert line == "…" or line in GUIDE, line

"""`holdfast agent`, killed at random moments: is everything as if nothing had happened?

    python -m support.agent_campaign [--kills N] [--seed N] [--keep DIR]

Each run fixes a bug in a repository of its own, in a database of its own, with a model of its own
that counts what it is asked (see `support.agent_script`). The process is killed with SIGKILL after
a random while, and started again with the same command, until it ends by itself, or is killed when
its task has ended. A call that a kill has left in doubt is resolved as a person would: the command
is harmless, so it may run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import msgspec
from support import agent_script
from support.model_server import Answer, Asked, Fail, ModelServer, Say, too_many_requests

MODEL = "openai:gpt-5-mini"
BLOCKED = 6
"""The exit code that says that a person is needed."""

_THINKS = 0.15
"""Seconds a model takes for an answer."""

_BY_TIME = 0.4
"""The share of kills whose moment doesn't depend on what the agent does."""

_LOOKS = 2
"""How often the model runs the tests itself, in one run."""

_ENTRY = re.compile(r"holdfast resolve (\S+:\S+:[0-9]+)")
_QUARANTINED = re.compile(r"holdfast retry (\S+): \S+ is quarantined")
_LONGEST = 120.0
"""Seconds after which a run that doesn't end counts as hanging."""


class Report(msgspec.Struct):
    """What a campaign came to; `problems` is empty when every promise was kept."""

    runs: int = 0
    kills: int = 0
    requests: int = 0
    distinct: int = 0
    faults: int = 0
    lost: int = 0
    """Requests made again because a kill had taken their answer."""
    doubts: int = 0
    problems: list[str] = []

    def lines(self) -> list[str]:
        """Return it for people."""
        return [
            f"{self.runs} runs of `holdfast agent`, killed {self.kills} times with SIGKILL",
            f"{self.requests} model requests: one for each of {self.distinct} distinct outputs,",
            f"{self.faults} that were made to fail, {self.lost} whose answer a kill had taken",
            f"{self.doubts} calls in doubt, each reported and resolved; none repeated silently",
            *(f"PROBLEM: {problem}" for problem in self.problems),
            "Everything held." if not self.problems else "Not everything held.",
        ]


class Faults:
    """A script that fails the first time that some requests come, and counts how often it did.

    Args:
        often: the share of requests that fail the first time, from 0 to 1.
        seed: chooses which, by what is asked.
    """

    def __init__(self, often: float, seed: int) -> None:
        self._often = often
        self._seed = seed
        self.given: Counter[str] = Counter()

    def __call__(self, asked: Asked) -> Answer:
        """Answer, or fail."""
        chance = random.Random(f"{self._seed} {asked.digest}")  # noqa: S311  no secret
        if asked.nth == 0 and chance.random() < self._often:
            self.given[asked.digest] += 1
            return chance.choice((Fail(500), too_many_requests(0.2), Say("lost", cut=50), Fail(0)))
        answer = agent_script.fix(asked)
        said = Say(answer) if isinstance(answer, str) else answer
        # A model takes its time, in which its answer can be lost.
        return said if isinstance(said, Fail) else msgspec.structs.replace(said, delay=_THINKS)


class Campaign:
    """Runs agents, and kills them.

    Args:
        place: an empty directory.
        seed: chooses when to kill, and which requests fail.
        faults: the share of requests that fail the first time.
    """

    def __init__(self, place: Path, seed: int, faults: float = 0.2) -> None:
        self._place = place
        self._random = random.Random(seed)  # noqa: S311  no secret
        self._seed = seed
        self._faults = faults
        self._usual = 8.0
        self.report = Report()

    def run(self, kills: int) -> Report:
        """Run agents until so many were killed."""
        while self.report.kills < kills and not self.report.problems:
            number = self.report.runs
            place = self._place / f"run-{number}"
            script = Faults(self._faults, self._seed + number)
            with ModelServer(script) as server:
                _Run(place, server, script, self).until_done(kills - self.report.kills)
            self.report.runs += 1
        return self.report

    def await_moment(self, process: subprocess.Popen[str], server: ModelServer) -> None:
        """Wait until it is time to kill: after a while, or soon after one of the next requests."""
        chance = self._random
        if chance.random() < _BY_TIME:
            _wait(process, chance.uniform(0.0, 1.1) * self._usual)
            return
        target, until = server.count + chance.randint(1, 5), time.monotonic() + _LONGEST
        while process.poll() is None and server.count < target and time.monotonic() < until:
            time.sleep(0.002)
        _wait(process, chance.uniform(0.0, 0.4))

    def took(self, seconds: float) -> None:
        """Learn how long a process takes that isn't killed."""
        self._usual = seconds


class _Run:
    """One agent, killed again and again, until it has reached its goal."""

    def __init__(
        self, place: Path, server: ModelServer, script: Faults, campaign: Campaign
    ) -> None:
        self._place = place
        self._server = server
        self._script = script
        self._campaign = campaign
        self._report = campaign.report
        self._work = agent_script.make_repository(place / "work")
        self._last_at_kill: Counter[str] = Counter()
        self._doubts = 0

    def until_done(self, most_kills: int) -> None:
        """Start it until it ends with success; kill it at random moments, so often at most."""
        kills = 0
        while True:
            before = self._server.count
            started = time.monotonic()
            process = self._start()
            killing = kills < most_kills
            if killing:
                self._campaign.await_moment(process, self._server)
            else:
                _wait(process, _LONGEST)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                _, said = process.communicate()
                if not killing:
                    self._problem(f"it hangs: {said[-2000:]}")
                    return
                kills += 1
                self._report.kills += 1
                if self._server.count > before:
                    self._last_at_kill[self._server.requests[-1].digest] += 1
                if self._is_reached():  # the same command would be a new task
                    self._check()
                    return
                continue
            _, said = process.communicate()
            if process.returncode == BLOCKED and self._resolve(said):
                continue
            if not kills:
                self._campaign.took(time.monotonic() - started)
            break
        if process.returncode:
            self._problem(f"it ended with {process.returncode}: {said[-2000:]}")
        else:
            self._check()

    def _start(self) -> subprocess.Popen[str]:
        words = ["agent", agent_script.GOAL, "--workspace", str(self._work), "--model", MODEL]
        words += ["--approvals", "autonomous", "--mode", "implementation"]
        words += ["--evidence", " ".join(agent_script.TEST)]
        return subprocess.Popen(  # noqa: S603
            self._holdfast(*words),
            cwd=self._place, env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def _holdfast(self, *words: str) -> list[str]:
        database = f"sqlite:///{self._place}/holdfast.db"
        return [str(Path(sys.executable).with_name("holdfast")), "--db", database, *words]

    @property
    def _environment(self) -> dict[str, str]:
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, **self._server.environment, "PATH": tools}

    def _is_reached(self) -> bool:
        """Say whether the kill came between the end of the task and that of the process."""
        listed = self._ask("tasks", "--json")
        tasks = [] if listed.returncode else json.loads(listed.stdout)  # there may be no database
        return any((task["name"], task["status"]) == ("agent", "succeeded") for task in tasks)

    def _resolve(self, said: str) -> bool:
        """Settle what is in doubt as a person would: that command may run again."""
        entries, quarantined = set(_ENTRY.findall(said)), set(_QUARANTINED.findall(said))
        for entry in entries:
            self._call("resolve", entry, "--retry")
            self._doubts += 1
            self._report.doubts += 1
        for task_id in quarantined:  # killed again and again before it could record anything
            self._call("retry", task_id)
        return bool(entries or quarantined)

    def _call(self, *words: str) -> str:
        ended = self._ask(*words)
        if ended.returncode:
            self._problem(f"{' '.join(words)}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = self._holdfast(*words)
        return subprocess.run(  # noqa: S603
            command, env=self._environment, capture_output=True, text=True, check=False
        )

    # -- afterwards ------------------------------------------------------------------------------

    def _check(self) -> None:
        self._check_tree()
        self._check_requests()
        runs = (self._work / ".runs").read_text().splitlines()
        looks = runs.count(" ".join(agent_script.LOOK[1:]))
        if not _LOOKS <= looks <= _LOOKS + self._doubts:
            self._problem(f"the tests were run {looks} times by the model's own calls")
        tasks = json.loads(self._call("tasks", "--json"))
        rounds = sum(task["name"] == "agent-round" for task in tasks)
        if rounds != 1:  # then much is asked again, and this tells why
            agents = [task["task_id"] for task in tasks if task["name"] == "agent"]
            told = "\n".join(self._call("show", task_id, "--journal") for task_id in agents)
            self._problem(f"it took {rounds} rounds, where the first should do:\n{told}")
        for task in tasks:
            self._call("verify", task["task_id"])

    def _check_tree(self) -> None:
        found = {
            line[3:]: (self._work / line[3:]).read_text()
            for line in agent_script.git(self._work, "status", "--porcelain").splitlines()
        }
        if found != {"calc.py": agent_script.FIXED, "NOTES.md": agent_script.NOTES}:
            self._problem(f"the tree is wrong: {found}")

    def _check_requests(self) -> None:
        asked = Counter(request.digest for request in self._server.requests)
        faults = self._script.given
        for digest, count in asked.items():
            again = count - 1 - faults[digest]
            self._report.lost += max(again, 0)
            if again > self._last_at_kill[digest]:
                self._problem(f"a request was made {count} times without a reason")
        self._report.requests += asked.total()
        self._report.distinct += len(asked)
        self._report.faults += faults.total()

    def _problem(self, text: str) -> None:
        self._report.problems.append(f"{self._place}: {text}")


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait so long, or until the process ends; what it says meanwhile fits into its pipe."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def main() -> int:
    """Run a campaign from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="agent_campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave everything there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-agents-") as temporary:
        report = Campaign(given.keep or Path(temporary), given.seed).run(given.kills)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""How the crash tests start processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


class Scripts:
    """Runs Python programs in a directory of the test's own, and leaves none of them running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603  our own scripts
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str | Path, **environment: str) -> str:
        """Run a program to its end; its output is the message when it fails."""
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=110)
        assert process.returncode == 0, output
        sys.stdout.write(output)
        return output

    def scenario(self, name: str, url: str | None = None, **facts: Any) -> str:
        """Run one function of `scenarios.py` in a program with a single thread, which may fork.

        Args:
            name: the function.
            url: of the database; an SQLite file by default.
            facts: its arguments.
        """
        given = [f"{key}={value}" for key, value in facts.items()]
        environment = {} if url is None else {"SCENARIO_URL": url}
        return self.run(HERE / "scenarios.py", name, *given, **environment)

    def lines(self, file: str) -> list[str]:
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def scripts(tmp_path: Path):
    started = Scripts(tmp_path)
    yield started
    started.end()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request) -> str | None:
    """Return the URL of a new PostgreSQL schema, or None for an SQLite file."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else None


@pytest.fixture(params=["sqlite", "postgres"])
def on(request) -> list[str]:
    """Return what to tell the campaign about where to crash."""
    if request.param == "sqlite":
        return []
    return ["--db", request.getfixturevalue("postgres_server_url")]

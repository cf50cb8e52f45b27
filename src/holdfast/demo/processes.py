"""The worker processes of the demo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

STOPPING = 15.0
"""Seconds a worker that was told to stop has before it is killed."""


class WorkerProcess:
    """One worker in a process of its own, and those that replace it when it is killed.

    Args:
        number: from 1.
        directory: of the job; its log goes there.
    """

    def __init__(self, number: int, directory: Path) -> None:
        self.number = number
        self.worker_id = ""
        self.log = directory / f"worker-{number}.log"
        self._directory = directory
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of its present process."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process, or the next one."""
        self._starts += 1
        self.worker_id = f"demo-{self.number}.{self._starts}"
        with self.log.open("ab") as log:
            self._process = _spawn("worker", str(self._directory), self.worker_id, errors=log)

    def kill(self) -> None:
        """Kill the process with SIGKILL and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close_input()

    def ended(self) -> int | None:
        """Return the exit code of a process that ended by itself; None while it runs."""
        return None if self._process is None else self._process.poll()

    def tell_to_stop(self) -> None:
        """Ask the process to hand back what it runs and end."""
        self._close_input()

    def wait(self) -> None:
        """Wait until the process that was told to stop has ended; kill it if it doesn't."""
        if self._process is None:
            return
        try:
            self._process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            self.kill()

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def run_inspection(directory: Path, task_id: str) -> bytes:
    """Run the inspection in a fresh process and return what it printed.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = _command("inspection", str(directory), task_id)
    return subprocess.run(  # noqa: S603  our own program
        command, env=_environment(), check=True, capture_output=True, timeout=120
    ).stdout


def _spawn(module: str, *arguments: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  our own program
        _command(module, *arguments),
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,  # Ctrl-C is for the supervisor, which then stops its workers
    )


def _command(module: str, *arguments: str) -> list[str]:
    # Safe path (-P): what lies about in the working directory must not shadow a module.
    return [sys.executable, "-P", "-m", f"holdfast.demo.{module}", *arguments]


def _environment() -> dict[str, str]:
    """Return our environment, with imports looked up where this process looks them up."""
    paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109  as sys.path has it
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

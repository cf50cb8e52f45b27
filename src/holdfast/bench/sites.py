"""Where databases are made for a benchmark, and what one raw durable commit costs there."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from itertools import count
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, Protocol
from urllib.parse import urlsplit

import apsw
import msgspec

from holdfast.store.sqlite import AUTOCHECKPOINT

PAYLOAD = 200
"""Bytes in each row of the floors, and in each step's result."""

SQLITES_OWN = 1000
"""Pages after which SQLite starts the log anew, when it isn't told otherwise."""

WARM_UP = 6
"""Commits before a clock starts, of the floors and of what is compared with them: psycopg prepares
a statement that it has seen five times."""

CLIENTS = 16
"""Of PostgreSQL's second floor: so many commit at a time, each on a connection of its own."""


class Place(msgspec.Struct, frozen=True):
    """A database that isn't there yet, and a directory beside it."""

    directory: Path
    url: str


class Site(Protocol):
    """A disk, or a server, that is measured.

    Its two floors are named by `floors`, and `heads` stand over how many times slower than them
    something is.
    """

    name: str
    floors: tuple[str, str]
    heads: tuple[str, str]

    def place(self) -> Place:
        """Return a place for one database."""
        ...

    def copy(self, place: Place) -> Place:
        """Return another place with the same database, which nobody may have open."""
        ...

    def run(self, statement: str, place: Place) -> None:
        """Run a statement in a database, whose schema isn't named."""
        ...

    def commits(self, many: int) -> tuple[float, float]:
        """Return the raw commits a second of both floors."""
        ...

    def commits_of_one(self, many: int) -> float:
        """Return the raw commits a second of one client, in a log like that of a step."""
        ...

    def size(self, place: Place) -> int:
        """Return the bytes of a database that nobody has open."""
        ...

    def written(self) -> int | None:
        """Return the bytes that were ever written, where that is known."""
        ...

    def transactions(self, place: Place) -> int | None:
        """Return how many transactions a database has seen, where somebody counts them."""
        ...

    def close(self) -> None:
        """Remove every database."""
        ...


class SqliteSite:
    """A directory."""

    name = "sqlite"
    heads: tuple[str, str] = ("x floor", "x alike")
    floors: tuple[str, str] = (
        "the floor: {:,} raw commits (WAL, synchronous=FULL)",
        f"… alike: the log is started anew after {AUTOCHECKPOINT} pages, as ours",
    )

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def place(self) -> Place:
        """Return a place in a fresh directory."""
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        return Place(directory, f"sqlite:///{directory}/bench.db")

    def copy(self, place: Place) -> Place:
        """Copy the files."""
        other = self.place()
        shutil.copytree(place.directory, other.directory, dirs_exist_ok=True)
        for file in other.directory.iterdir():  # or the first commit would wait for them
            with file.open("rb") as copied:
                os.fsync(copied.fileno())
        return other

    def run(self, statement: str, place: Place) -> None:
        """Run it without a sync."""
        connection = apsw.Connection(place.url.removeprefix("sqlite:///"))
        connection.pragma("synchronous", "off")
        connection.execute(statement)
        connection.close()

    def commits(self, many: int) -> tuple[float, float]:
        """Commit with SQLite's log as it comes, and with one started anew as often as ours."""
        return self.raw_commits(many, autocheckpoint=SQLITES_OWN), self.raw_commits(many)

    def commits_of_one(self, many: int) -> float:
        """Commit in a log started anew as often as ours."""
        return self.raw_commits(many)

    def raw_commits(
        self, many: int, tables: int = 1, autocheckpoint: int = AUTOCHECKPOINT
    ) -> float:
        """Commit rows one by one (WAL, synchronous=FULL) and return commits a second.

        Args:
            many: how many.
            tables: with two, each commit updates a row of the second, and so writes two pages.
            autocheckpoint: pages after which the log is started anew.
        """
        connection = apsw.Connection(str(self.place().directory / "floor.db"))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("wal_autocheckpoint", autocheckpoint)
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB)")
        connection.execute("CREATE TABLE heads (id INTEGER PRIMARY KEY, number INTEGER)")
        connection.execute("INSERT INTO heads VALUES (1, 0)")
        cursor, data = connection.cursor(), os.urandom(PAYLOAD)

        def commit(times: int) -> None:
            for _ in range(times):
                cursor.execute("BEGIN IMMEDIATE")
                cursor.execute("INSERT INTO rows (data) VALUES (?)", (data,))
                if tables > 1:
                    cursor.execute("UPDATE heads SET number = number + 1 WHERE id = 1")
                cursor.execute("COMMIT")

        commit(WARM_UP)
        started = time.perf_counter()
        commit(many)
        seconds = time.perf_counter() - started
        connection.close()
        return many / seconds

    def size(self, place: Place) -> int:
        """Return the size of the file: closing the last connection moved the log into it."""
        return Path(place.url.removeprefix("sqlite:///")).stat().st_size

    def written(self) -> int | None:
        """Return the bytes this process has caused to be written, where the kernel counts them."""
        try:
            lines = Path("/proc/self/io").read_text("ascii").splitlines()
        except OSError:
            return None
        counts = dict(line.split(": ") for line in lines)
        return int(counts["write_bytes"])

    def transactions(self, place: Place) -> int | None:
        """Return nothing: nobody counts them."""
        del place

    def close(self) -> None:
        """Leave the directory to whoever made it."""


class PostgresSite:
    """A server on which databases may be created.

    Args:
        url: of a database there.
        directory: for files that tasks make.
    """

    name = "postgresql"
    heads: tuple[str, str] = ("x floor", f"x {CLIENTS} cl.")
    floors: tuple[str, str] = (
        "the floor: {:,} raw commits of one client (psycopg, prepared)",
        f"… of {CLIENTS} clients at a time, a thread each",
    )

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._directory = directory
        self._names = (f"holdfast_bench_{os.getpid()}_{number}" for number in count(1))
        self._made: list[str] = []
        self._floor: Place | None = None
        self._run("SELECT 1")

    def _run(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(url or self._url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def place(self) -> Place:
        """Create an empty database."""
        return self._create("template0")

    def _create(self, template: str) -> Place:
        name = next(self._names)
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._made.append(name)
        url = urlsplit(self._url)._replace(path=f"/{name}").geturl()
        return Place(Path(tempfile.mkdtemp(dir=self._directory)), url)

    def copy(self, place: Place) -> Place:
        """Create a database like another one, as soon as its last connection is gone."""
        import psycopg

        while True:
            try:
                return self._create(urlsplit(place.url).path.removeprefix("/"))
            except psycopg.errors.ObjectInUse:
                time.sleep(0.05)

    def run(self, statement: str, place: Place) -> None:
        """Run it."""
        self._run(statement, place.url)

    def commits(self, many: int) -> tuple[float, float]:
        """Commit with one client, then with many at a time."""
        return self._commits(many, 1), self._commits(many, CLIENTS)

    def commits_of_one(self, many: int) -> float:
        """Commit with one client."""
        return self._commits(many, 1)

    def _commits(self, many: int, clients: int) -> float:
        self._floor = place = self._floor or self.place()
        self._run("DROP TABLE IF EXISTS rows", place.url)
        self._run("CREATE TABLE rows (id BIGSERIAL PRIMARY KEY, data BYTEA)", place.url)
        barrier = Barrier(clients + 1)
        threads = [
            Thread(target=_insert, args=(place.url, many // clients, barrier))
            for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        barrier.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        return many // clients * clients / (time.perf_counter() - started)

    def size(self, place: Place) -> int:
        """Return what the server says."""
        return self._run("SELECT pg_database_size(current_database())", place.url)[0][0]

    def written(self) -> int | None:
        """Return the position in the write-ahead log."""
        return int(self._run("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0][0])

    def transactions(self, place: Place) -> int | None:
        """Return what the server counts, the reading ones included."""
        counted = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        return int(self._run(counted, place.url)[0][0])

    def close(self) -> None:
        """Drop every database."""
        for name in self._made:
            self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _insert(url: str, many: int, barrier: Barrier) -> None:
    import psycopg

    data = os.urandom(PAYLOAD)
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for _ in range(WARM_UP):
            cursor.execute("INSERT INTO rows (data) VALUES (%b)", (data,))
        barrier.wait()
        for _ in range(many):
            cursor.execute("INSERT INTO rows (data) VALUES (%b)", (data,))

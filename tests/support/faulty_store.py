"""A store on a faulty disk, the reference task on it, and what must hold after a power cut."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import apsw
import msgspec
from faulty_disk import Disk

from holdfast import errors, operations
from holdfast.clock import SystemClock
from holdfast.store import DEADLINE, Store, open_store
from holdfast.store.sqlite import SqliteEngine
from holdfast.testing.checker import check, check_not_repeated, take_snapshot
from holdfast.testing.reference import NOTES, Reference
from holdfast.testing.world import ACKNOWLEDGED, OUTBOX, World

DATABASE = "holdfast.db"
LEASE = 10.0
AUTOCHECKPOINT = 40
"""Pages of the log: few, so that a short run has checkpoints and starts the log anew."""

ROUNDS = 8

_opening = threading.Lock()


class Commit(msgspec.Struct):
    """A transaction: what the database held with it, and when its COMMIT returned, if well."""

    state: bytes
    begun: int
    acknowledged: int | None = None


class RecordedEngine(SqliteEngine):
    """The real engine on a faulty disk. It notes what every commit has to leave behind."""

    def __init__(self, disk: Disk, synchronous: str = "full") -> None:
        self.disk = disk
        self.commits: list[Commit] = []
        self._synchronous = synchronous
        found = state_in(disk.folder)
        super().__init__(str(disk.folder / DATABASE), SystemClock(), DEADLINE)
        # A database that was still to be made, or to be migrated, holds nothing: when that is lost
        # with the power, it is done anew.
        made = state_of(self._writer)
        self.commits.append(Commit(made, 0, 0 if made == found else None))

    def _connect(self) -> apsw.Connection:
        with _opening:
            apsw.set_default_vfs(self.disk.vfs)
            try:
                return super()._connect()
            finally:
                apsw.set_default_vfs("unix")

    def _set_up(self, connection: apsw.Connection) -> None:
        super()._set_up(connection)
        connection.pragma("synchronous", self._synchronous)
        connection.pragma("wal_autocheckpoint", AUTOCHECKPOINT)

    def commit(self) -> None:
        commit = Commit(state_of(self._writer), self.disk.now)
        self.commits.append(commit)
        super().commit()
        commit.acknowledged = self.disk.now


def state_of(connection: apsw.Connection) -> bytes:
    """Return a digest of everything in the database."""
    state = hashlib.sha256()
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
    for (table,) in connection.execute(tables).fetchall():
        rows = sorted(map(repr, connection.execute(f'SELECT * FROM "{table}"')))  # noqa: S608
        state.update(repr((table, rows)).encode())
    return state.digest()


def state_in(folder: Path) -> bytes | None:
    """Return the digest of the database in a folder, if there is one, by way of a copy."""
    if not (folder / DATABASE).exists():
        return None
    with tempfile.TemporaryDirectory() as place:
        copy = shutil.copytree(folder, Path(place, "copy"))
        connection = apsw.Connection(str(copy / DATABASE))
        try:
            return state_of(connection)
        finally:
            connection.close()


class Note(msgspec.Struct):
    """A line of the world's files, and how much was written to the disk before it."""

    moment: int
    file: str
    line: dict[str, Any]


class RecordedWorld(World):
    """The world, on a disk of its own that never fails; lines name the run instead of a process."""

    def __init__(self, root: Path, disk: Disk | None, run: int) -> None:
        super().__init__(root)
        self._disk = disk
        self._run = run
        self._noting = threading.Lock()
        self.notes: list[Note] = []
        self._before = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}

    def note(self, file: str, what: str, **facts: Any) -> None:
        line = {"what": what, "pid": self._run, **facts}
        with self._noting, (self.root / file).open("ab") as target:
            self.notes.append(Note(0 if self._disk is None else self._disk.now, file, line))
            target.write(msgspec.json.encode(line) + b"\n")

    def at(self, moment: int, root: Path) -> None:
        """Write the files as they were after so many changes of the disk."""
        for name, content in self._before.items():
            (root / name).write_bytes(content)
        for note in self.notes:
            if note.moment > moment:
                continue
            with (root / note.file).open("ab") as target:
                target.write(msgspec.json.encode(note.line) + b"\n")
            if note.file == ACKNOWLEDGED and note.line["what"] == "collect:notes":
                # What the task wrote is on a disk that doesn't fail, either.
                (root / NOTES).write_text(note.line["value"], "utf-8")


class Recording(msgspec.Struct):
    """A run of the reference task on a faulty disk."""

    disk: Disk
    world: RecordedWorld
    commits: list[Commit]

    def moments(self, random: Random, writes: int) -> list[int]:
        """Return when to cut the power: around every sync and commit, and between some writes."""
        acknowledged = {c.acknowledged for c in self.commits if c.acknowledged is not None}
        every = range(self.disk.now + 1)
        some = random.sample(every, min(writes, len(every)))
        return sorted({*self.disk.points(), *acknowledged, *some})

    def wrong_at(self, moment: int, left: Path) -> list[str]:
        """Compare what a power cut left in a folder with all that was acknowledged before it.

        Looks at a copy, so that Holdfast is the first to open the files themselves.
        """
        look = shutil.copytree(left, left.with_name("look"))
        done = [
            number
            for number, commit in enumerate(self.commits)
            if commit.acknowledged is not None and commit.acknowledged <= moment
        ]
        connection = apsw.Connection(str(look / DATABASE))
        try:
            sound = connection.pragma("integrity_check")
            if sound != "ok":
                return [f"damaged: {sound}"]
            if not done:
                return []
            allowed = {c.state for c in self.commits[done[-1] :] if c.begun <= moment}
            state = state_of(connection)
        except apsw.Error as error:
            return [f"damaged: {error}"]
        finally:
            connection.close()
        if state in allowed:
            return []
        known = [n for n, c in enumerate(self.commits) if c.state == state] or "none of them"
        return [f"lost: commit {done[-1]} was acknowledged, the file is at {known}"]


def record(root: Path, synchronous: str = "full", run: int = 1) -> Recording:
    """Run the reference task, or go on with it, until it ends or is blocked; close the store."""
    (root / "disk").mkdir(exist_ok=True)
    (root / "world").mkdir(exist_ok=True)
    disk = Disk(root / "disk")
    world = RecordedWorld(root / "world", disk, run)
    engine = RecordedEngine(disk, synchronous)
    store = Store(engine, SystemClock())
    try:
        with suppress(errors.TaskBlockedError):
            Reference(store, world, LEASE, 4).run()
    finally:
        store.close()
        disk.close()
    return Recording(disk, world, engine.commits)


def go_on(root: Path, run: int = 2) -> list[str]:
    """Run the task in `root` on to its end on an engine as it comes; return what is wrong.

    What is in doubt is settled by the outbox, as a person would.
    """
    path = str(root / "disk" / DATABASE)
    wrong: list[str] = []
    for each in range(run, run + ROUNDS):
        world = RecordedWorld(root / "world", None, each)
        with open_store(f"sqlite:///{path}") as store:
            try:
                Reference(store, world, LEASE, 4).run()
            except errors.TaskBlockedError as blocked:
                wrong += settle(store, world, path, blocked.needs)
            else:
                break
        wrong += check_not_repeated(world)
    else:
        return [*wrong, "stuck"]
    return wrong + check(world, take_snapshot(f"sqlite:///{path}"), range(1, each + 1))


def settle(store: Store, world: World, path: str, needs: list[str]) -> list[str]:
    """Settle what is in doubt; return what was reported and isn't, or isn't and should be."""
    reported = {need.split()[2].rstrip(":") for need in needs if " resolve " in need}
    # Of a copy: a second store may write, and past the recorded disk.
    with tempfile.TemporaryDirectory() as folder:
        copy = str(Path(folder, DATABASE))
        connection = apsw.Connection(path)
        connection.execute("VACUUM INTO ?", (copy,))
        connection.close()
        snapshot = take_snapshot(f"sqlite:///{copy}")
    sent = {line["key"] for line in world.lines(OUTBOX)}
    for call in snapshot.calls:
        if call.entry in reported:
            kind, _, name = call.what.partition(":")
            value = f"{'sent to' if kind == 'letter' else 'posted'} {name}"
            how = "done" if call.key in sent else "retry"
            asyncio.run(operations.resolve(store, call.entry, how, value))
    same = reported == snapshot.doubts() and len(reported) == len(needs)
    return [] if same else [f"doubt: reported {needs}, journal has {snapshot.doubts()}"]

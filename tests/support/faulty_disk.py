"""A disk with a volatile cache under SQLite: it records what is written, and can fail.

The files themselves are written at once, through SQLite's own VFS, so the program runs as usual;
shared memory and locks are SQLite's own as well. Beside that, every change is kept in the order it
was made. `Disk.cut` makes the files that a power cut may leave behind: whatever was synced, and of
the rest any part, with writes dropped, reordered and torn at sectors of 512 bytes. A file that was
created or deleted stays so for certain once its directory was synced.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import apsw
import msgspec

SECTOR = 512

_OWN_FOLDER_SYNC = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
"""Files whose first sync is followed by one of their directory (see `unixSync` in os_unix.c)."""


class Change(msgspec.Struct):
    """One call that changed a file or made it durable.

    `what` is write, truncate, sync, create, delete or folder; failed-write or failed-sync for a
    call that failed, of which a failed write leaves nothing.
    """

    what: str
    name: str
    inode: int
    offset: int = 0
    data: bytes = b""


class Disk:
    """Everything that is written in one folder.

    Args:
        folder: where the files are; those in it already are durable.
        fault: called before each write and sync with the kind of call and the file's name; it may
            raise an `apsw.Error` in place of the call.
    """

    _count = 0

    def __init__(self, folder: Path, fault: Callable[[str, str], None] | None = None) -> None:
        Disk._count += 1
        self.vfs = f"faulty{Disk._count}"
        self.folder = folder
        self.changes: list[Change] = []
        self.fault = fault or (lambda what, name: None)
        self._lock = threading.Lock()
        self._inodes: dict[str, int] = {}
        self._base: dict[str, bytes] = {}
        for path in sorted(folder.iterdir()):
            self._base[path.name] = path.read_bytes()
            self._inodes[path.name] = len(self._inodes)
        self._next = len(self._inodes)
        self._registered = _Vfs(self)

    @property
    def now(self) -> int:
        """How many changes there were."""
        return len(self.changes)

    def close(self) -> None:
        """Take the VFS off SQLite's list."""
        self._registered.unregister()

    # -- recording -------------------------------------------------------------------------------

    def note(self, what: str, name: str, offset: int = 0, data: bytes = b"") -> None:
        """Record a change that has just been made."""
        with self._lock:
            if what == "create":
                self._inodes[name] = self._next
                self._next += 1
            inode = self._inodes.get(name, -1)
            if what == "delete":
                self._inodes.pop(name, None)
            self.changes.append(Change(what, name, inode, offset, data))

    # -- the power cut ---------------------------------------------------------------------------

    def points(self) -> list[int]:
        """Return the moments right before and right after every sync."""
        found: set[int] = set()
        for number, change in enumerate(self.changes):
            if change.what in {"sync", "folder", "delete"}:
                found |= {number, number + 1}
        return sorted(found)

    def cut(self, moment: int, random: Random, into: Path) -> None:
        """Write the files that a power cut after so many changes may leave."""
        survives = _Survival(self._base, random)
        for change in self.changes[:moment]:
            survives.take(change)
        for name, content in survives.files():
            (into / name).write_bytes(content)


class _Pending(msgspec.Struct):
    """A change of a file that isn't synced. `cursed`: a sync failed over it, so none will do."""

    change: Change
    cursed: bool = False


class _Survival:
    """What is durable and what isn't, change by change."""

    def __init__(self, base: dict[str, bytes], random: Random) -> None:
        self._random = random
        self._durable = {number: bytearray(base[name]) for number, name in enumerate(sorted(base))}
        self._pending: dict[int, list[_Pending]] = {number: [] for number in self._durable}
        self._names: dict[str, int | None] = {
            name: number for number, name in enumerate(sorted(base))
        }
        self._renamed: list[tuple[str, int | None]] = []

    def take(self, change: Change) -> None:
        match change.what:
            case "create":
                self._durable[change.inode] = bytearray()
                self._pending[change.inode] = []
                self._renamed.append((change.name, change.inode))
            case "delete":
                self._renamed.append((change.name, None))
            case "folder":
                self._names.update(self._renamed)
                self._renamed = []
            case "sync":
                self._sync(change.inode)
            case "failed-sync":
                for each in self._pending[change.inode]:
                    each.cursed = True
            case "failed-write":
                pass
            case _:
                self._pending[change.inode].append(_Pending(change))

    def _sync(self, inode: int) -> None:
        content, left = self._durable[inode], list[_Pending]()
        for each in self._pending[inode]:
            if each.cursed and each.change.what == "write":
                left.append(each)
                continue
            _apply(content, each.change)
            # What a failed sync left behind never comes back over what was written later.
            left = [_Pending(part, cursed=True) for old in left for part in _rest(old, each.change)]
        self._pending[inode] = left

    def files(self) -> list[tuple[str, bytes]]:
        names = dict(self._names)
        chance = self._random.choice((0.0, 0.5, 1.0))
        settled: set[str] = set()
        for name, inode in self._renamed:
            if name not in settled and self._random.random() < chance:
                names[name] = inode
            else:
                settled.add(name)  # and so nothing later either
        return [(name, self._content(inode)) for name, inode in names.items() if inode is not None]

    def _content(self, inode: int) -> bytes:
        content = bytearray(self._durable[inode])
        whole = self._random.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        torn = self._random.choice((0.0, 0.3, 1.0))
        for each in self._pending[inode]:
            if self._random.random() < whole:
                _apply(content, each.change)
            elif each.change.what == "write" and self._random.random() < torn:
                self._tear(content, each.change)
        return bytes(content)

    def _tear(self, content: bytearray, change: Change) -> None:
        """Let some of a write's sectors survive: a prefix, any, or only the file's new length."""
        sectors = range(0, len(change.data), SECTOR)
        kind = self._random.choice(("prefix", "any", "length"))
        prefix = self._random.randrange(len(change.data) + 1) // SECTOR
        _extend(content, change.offset + len(change.data))
        for number, start in enumerate(sectors):
            kept = {"prefix": number < prefix, "any": self._random.random() < 0.5, "length": False}
            if kept[kind]:
                part = change.data[start : start + SECTOR]
                content[change.offset + start : change.offset + start + len(part)] = part


def _extend(content: bytearray, size: int) -> None:
    if size > len(content):
        content.extend(bytes(size - len(content)))


def _apply(content: bytearray, change: Change) -> None:
    if change.what == "truncate":
        _extend(content, change.offset)
        del content[change.offset :]
    else:
        _extend(content, change.offset)
        content[change.offset : change.offset + len(change.data)] = change.data


def _rest(old: _Pending, new: Change) -> list[Change]:
    """Return what is left of an old write where a new change doesn't replace it."""
    change = old.change
    start, end = change.offset, change.offset + len(change.data)
    until = end if new.what == "truncate" else new.offset + len(new.data)
    pieces = ((start, min(end, new.offset)), (max(start, until), end))
    return [
        msgspec.structs.replace(change, offset=left, data=change.data[left - start : right - start])
        for left, right in pieces
        if left < right
    ]


# -- under SQLite ---------------------------------------------------------------------------------


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__(disk.vfs, "unix")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        new = path is not None and not os.path.exists(path)  # noqa: PTH110  a plain string
        file = _File(self._disk, name, flags)
        if new:
            self._disk.note("create", file.name)
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802
        super().xDelete(filename, syncdir)
        self._disk.note("delete", os.path.basename(filename))  # noqa: PTH119
        if syncdir:
            self._disk.note("folder", "")


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.name = os.path.basename(path or "")  # noqa: PTH119
        self._syncs_folder = bool(
            flags[0] & _OWN_FOLDER_SYNC and flags[0] & apsw.SQLITE_OPEN_CREATE
        )
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._may_fail("write")
        super().xWrite(data, offset)
        self._disk.note("write", self.name, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._disk.note("truncate", self.name, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._may_fail("sync")
        super().xSync(flags)
        self._disk.note("sync", self.name)
        if self._syncs_folder:
            self._syncs_folder = False
            self._disk.note("folder", "")

    def _may_fail(self, what: str) -> None:
        try:
            self._disk.fault(what, self.name)
        except apsw.Error:
            self._disk.note(f"failed-{what}", self.name)
            raise

"""Fingerprint: one hash over all that is in a workspace.

It changes when a file is added, removed, renamed, edited, made executable or, for a symbolic link,
led elsewhere. What git ignores, git's own files and Holdfast's own don't count, and neither do
times, owners and empty directories.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable

import msgspec

from holdfast.agents.names import workspace_names
from holdfast.agents.paths import HOLDFAST, OwnFiles
from holdfast.clock import Clock, SystemClock
from holdfast.confined import ConfinedRoot
from holdfast.errors import EvidencePathError

_FORMAT = b"holdfast workspace 1\0"
_CHUNK = 1024 * 1024
# A file system may stamp two writes with the same time; see `holdfast.verifiers.files`.
_RACY_NS = 2_000_000_000
_CACHE = f"{HOLDFAST}/fingerprint"
_EXECUTABLE = 0o100


class Fingerprint(msgspec.Struct, frozen=True):
    """What a workspace contains.

    Args:
        sha256: 64 hexadecimal digits; equal for equal contents, on every machine.
        files: how many files and links it covers.
        hashed: how many of them had to be read; the others hadn't changed since the last time.
    """

    sha256: str
    files: int
    hashed: int


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """A file as it was when its content was hashed."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: bytes


def fingerprint(
    root: str | os.PathLike[str], *, databases: Iterable[str] = (), clock: Clock | None = None
) -> Fingerprint:
    """Return the fingerprint of a workspace.

    In a git checkout the tracked files count and the untracked ones that aren't ignored; elsewhere
    all do. Hashes are kept in `.holdfast/fingerprint`, where that directory is, and an unchanged
    file costs a look at its status. It is no snapshot: what changes meanwhile may count or not.

    Args:
        root: the workspace.
        databases: paths of Holdfast databases that may lie in it, which don't count. Those that
            this process has open are known without.
        clock: measures how long git takes.

    Raises:
        EvidenceUnavailableError: there is no such directory.
    """
    place, ticking = os.fspath(root), clock or SystemClock()
    own = OwnFiles(place, databases)
    names = workspace_names(place, own, ticking)
    with ConfinedRoot(place) as beneath:
        hashes = _Hashes(beneath, own, _read_cache(beneath), int(ticking.now() * 1e9))
        total, files = hashlib.sha256(_FORMAT), 0
        for name in names:
            described = hashes.describe(name)
            if described is not None:
                path = os.fsencode(name)
                total.update(len(path).to_bytes(4) + path + described)
                files += 1
        if hashes.changed:
            _write_cache(beneath, hashes.known)
    return Fingerprint(total.hexdigest(), files, hashes.hashed)


class _Hashes:
    """The contents of one workspace, hashed anew only where they may have changed."""

    def __init__(
        self, beneath: ConfinedRoot, own: OwnFiles, known: dict[bytes, _Known], now_ns: int
    ) -> None:
        self._beneath = beneath
        self._own = own
        self._before = known
        self._now_ns = now_ns
        self.known: dict[bytes, _Known] = {}
        self.hashed = 0

    @property
    def changed(self) -> bool:
        """Whether the next time is served better by these than by those read before."""
        return self.known != self._before

    def describe(self, name: str) -> bytes | None:
        """Return kind and content of a file or link, of one length; None for anything else."""
        try:
            status = self._beneath.status(name)
            if stat.S_ISLNK(status.st_mode):
                parent_fd, last = self._beneath.locate(name)
                target = os.fsencode(os.readlink(last, dir_fd=parent_fd))
                return b"l" + hashlib.sha256(target).digest()
            if not stat.S_ISREG(status.st_mode) or self._own.are(status):
                return None
            kind = b"x" if status.st_mode & _EXECUTABLE else b"f"
            return kind + self._content(name, status)
        except PermissionError:
            return b"?" + bytes(32)
        except (FileNotFoundError, NotADirectoryError, EvidencePathError):
            return None  # gone, or behind a link, which counts itself

    def _content(self, name: str, status: os.stat_result) -> bytes:
        key, known = os.fsencode(name), self._before.get(os.fsencode(name))
        if known is None or (known.inode, *_times(known)) != (status.st_ino, *_times_of(status)):
            known = self._hash(name)
        if max(known.mtime_ns, known.ctime_ns) < self._now_ns - _RACY_NS:
            self.known[key] = known
        return known.sha256

    def _hash(self, name: str) -> _Known:
        self.hashed += 1
        digest = hashlib.sha256()
        with self._beneath.open_file(name) as fd:
            before = os.fstat(fd)
            while data := os.read(fd, _CHUNK):
                digest.update(data)
        return _Known(before.st_ino, *_times_of(before), digest.digest())


def _times(known: _Known) -> tuple[int, int, int]:
    return known.size, known.mtime_ns, known.ctime_ns


def _times_of(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_cache(beneath: ConfinedRoot) -> dict[bytes, _Known]:
    """Return what was known the last time. A cache that can't be read is none."""
    try:
        with beneath.open_file(_CACHE) as fd, os.fdopen(os.dup(fd), "rb") as file:
            return msgspec.msgpack.decode(file.read(), type=dict[bytes, _Known])
    except (OSError, EvidencePathError, msgspec.MsgspecError):
        return {}


def _write_cache(beneath: ConfinedRoot, known: dict[bytes, _Known]) -> None:
    """Keep what is known for the next time. A cache that can't be written is none."""
    draft = f"{_CACHE}.{secrets.token_hex(8)}"
    with contextlib.suppress(OSError, EvidencePathError):
        directory_fd, name = beneath.locate(draft)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory_fd), "wb") as file:
            file.write(msgspec.msgpack.encode(known))
        _, target = beneath.locate(_CACHE)
        os.rename(name, target, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)

"""Reading and writing the files of a workspace, and nothing outside it.

Every path is walked component by component without following links (see `holdfast.confined`). A
file is replaced whole: a crash leaves the old content or the new one, and no other.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple

from holdfast.agents.paths import DRAFT, HOLDFAST, OwnFiles
from holdfast.agents.refusals import Miss, Refusal
from holdfast.clock import Clock, SystemClock
from holdfast.confined import ConfinedRoot
from holdfast.errors import EvidencePathError, EvidenceUnavailableError
from holdfast.workspace import Workspace

_DRAFTS = f"{HOLDFAST}/drafts"
_STALE = 3600.0
"""Seconds after which a draft counts as left behind by a crash."""
_CHUNK = 1024 * 1024


class Content(NamedTuple):
    """A file as it was read: its bytes and its permission bits."""

    data: bytes
    mode: int


class Listed(NamedTuple):
    """One entry of a directory. `size` is in bytes; None for what is no regular file."""

    name: str
    kind: str
    size: int | None


class WorkspaceFiles:
    """The files beneath one directory. Blocking; safe to use from several threads.

    Args:
        root: the directory.
        clock: tells how old a draft is.
    """

    def __init__(self, root: str, clock: Clock | None = None) -> None:
        self.root = root
        self._clock = clock or SystemClock()

    def read(self, path: str, limit: int) -> Content:
        """Return a regular file's content.

        Args:
            path: canonical and relative.
            limit: bytes; a larger file is refused.

        Raises:
            Miss: there is no such file, it is larger, or it can't be read.
            Refusal: it is no regular file, lies behind a link, or is Holdfast's own.
        """
        with self._beneath(path) as beneath:
            status = beneath.stat_file(path)
            self._refuse_own(path, status)
            with beneath.open_file(path) as fd:
                data = _read_all(fd, limit, path)
            return Content(data, stat.S_IMODE(status.st_mode))

    def read_if_there(self, path: str, limit: int) -> Content | None:
        """Do what `read` does, or return None when there is no such file yet."""
        try:
            return self.read(path, limit)
        except Miss as miss:
            if isinstance(miss.__cause__, FileNotFoundError):
                return None
            raise

    def read_all(self, paths: Iterable[str], limit: int) -> Iterator[tuple[str, bytes]]:
        """Yield the content of each file that can be read; the others are passed over."""
        own = OwnFiles(self.root)
        with ConfinedRoot(self.root) as beneath:
            for path in paths:
                with contextlib.suppress(OSError, EvidencePathError, Refusal):
                    status = beneath.stat_file(path)
                    if status.st_size > limit or own.are(status):
                        continue
                    with beneath.open_file(path) as fd:
                        data = _read_all(fd, limit, path)
                    yield path, data

    def write(self, path: str, data: bytes, mode: int | None = None) -> None:
        """Replace a file's content, or make the file and the directories it lies in. Durable.

        Args:
            path: canonical and relative.
            data: the whole content.
            mode: permission bits; those of any new file when None.

        Raises:
            Miss: it can't be written; the old content is still there.
            Refusal: there is something else than a regular file, or the way goes through a link.
        """
        with self._beneath(path) as beneath:
            Workspace.at(self.root)
            self._refuse_what_is_there(beneath, path)
            _make_directories(beneath, path)
            draft = self._place_for_draft(beneath, path)
            self._write_draft(beneath, draft, data, mode)
            _put_in_place(beneath, draft, path)

    def sync(self, path: str) -> None:
        """Make durable that a file is there and what it contains.

        Raises:
            Miss, Refusal: see `read`.
        """
        with self._beneath(path) as beneath, beneath.open_file(path) as fd:
            os.fsync(fd)
            os.fsync(beneath.locate(path)[0])

    def entries(self, path: str) -> list[Listed]:
        """Return what a directory holds, by name; links are told, not followed.

        Raises:
            Miss: there is no such directory.
            Refusal: the way goes through a link.
        """
        with (
            self._beneath(path) as beneath,
            beneath.open_directory(path) as fd,
            os.scandir(fd) as found,
        ):
            return sorted(_listed(entry) for entry in found)

    @contextlib.contextmanager
    def _beneath(self, path: str) -> Generator[ConfinedRoot]:
        try:
            with ConfinedRoot(self.root) as beneath:
                yield beneath
        except EvidencePathError as error:
            raise Refusal(str(error)) from None
        except EvidenceUnavailableError as error:
            raise Miss(str(error)) from error
        except OSError as error:
            raise Miss(f"{path!r}: {error.strerror}.") from error

    def _refuse_own(self, path: str, status: os.stat_result) -> None:
        own = OwnFiles(self.root)
        if own.named(path) or own.are(status):
            raise Refusal(f"{path!r} belongs to git or to Holdfast and is out of reach.")

    def _refuse_what_is_there(self, beneath: ConfinedRoot, path: str) -> None:
        if OwnFiles(self.root).named(path):
            raise Refusal(f"{path!r} belongs to git or to Holdfast and is out of reach.")
        with contextlib.suppress(FileNotFoundError):
            self._refuse_own(path, beneath.stat_file(path))

    def _place_for_draft(self, beneath: ConfinedRoot, path: str) -> str:
        """Return a new path on the same file system as `path`.

        What a crash leaves among Holdfast's own files is in nobody's way, and removed by a later
        write. Where the target is on another file system it has to lie beside that.
        """
        name = secrets.token_hex(16)
        draft = f"{_DRAFTS}/{name}"
        _make_directories(beneath, draft)
        drafts_fd, _ = beneath.locate(draft)
        self._remove_stale(drafts_fd)
        device = os.fstat(drafts_fd).st_dev
        target_fd, _ = beneath.locate(path)
        if os.fstat(target_fd).st_dev == device:
            return draft
        return "/".join([*path.split("/")[:-1], f"{DRAFT}{name}"])

    def _write_draft(
        self, beneath: ConfinedRoot, draft: str, data: bytes, mode: int | None
    ) -> None:
        parent_fd, name = beneath.locate(draft)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o666, dir_fd=parent_fd)
        try:
            try:
                _write_all(fd, data)
                if mode is not None:
                    os.fchmod(fd, mode & 0o777)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=parent_fd)
            raise

    def _remove_stale(self, drafts_fd: int) -> None:
        before = self._clock.now() - _STALE
        with os.scandir(drafts_fd) as found:
            for entry in found:
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        os.unlink(entry.name, dir_fd=drafts_fd)


def _read_all(fd: int, limit: int, path: str) -> bytes:
    parts: list[bytes] = []
    left = limit + 1
    while left > 0 and (data := os.read(fd, min(_CHUNK, left))):
        parts.append(data)
        left -= len(data)
    if left <= 0:
        raise Miss(f"{path!r} is larger than {limit} bytes.")
    return b"".join(parts)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _make_directories(beneath: ConfinedRoot, path: str) -> None:
    """Make the directories a path lies in, each durable before what it is to hold."""
    parts = path.split("/")
    for depth in range(1, len(parts)):
        parent_fd, name = beneath.locate("/".join(parts[:depth]))
        try:
            os.mkdir(name, dir_fd=parent_fd)
        except FileExistsError:
            continue
        os.fsync(parent_fd)


def _put_in_place(beneath: ConfinedRoot, draft: str, path: str) -> None:
    """Rename a draft to where it belongs; both directories are durable then."""
    draft_parent, draft_name = beneath.locate(draft)
    from_fd = os.dup(draft_parent)  # the next `locate` may close it
    try:
        to_fd, name = beneath.locate(path)
        try:
            os.rename(draft_name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(draft_name, dir_fd=from_fd)
            raise
        os.fsync(to_fd)
    finally:
        os.close(from_fd)


def _listed(entry: os.DirEntry[str]) -> Listed:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return Listed(entry.name, "gone", None)
    if stat.S_ISDIR(status.st_mode):
        return Listed(entry.name, "directory", None)
    if stat.S_ISLNK(status.st_mode):
        return Listed(entry.name, "link", None)
    if stat.S_ISREG(status.st_mode):
        return Listed(entry.name, "file", status.st_size)
    return Listed(entry.name, "special", None)

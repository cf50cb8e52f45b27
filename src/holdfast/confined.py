"""Opening what lies beneath a root, and nothing else.

Strings prove nothing about where a path leads. Each component is opened from the directory
before it, without following links, so that neither `..` nor a link planted meanwhile leads out.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator
from types import TracebackType
from typing import Self

from holdfast.errors import EvidencePathError, EvidenceUnavailableError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a fifo that was put in the file's place must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_NAMES = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a fifo"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class ConfinedRoot:
    """A directory beneath which paths are opened component by component.

    It is meant for one batch of work in one thread: it keeps the directory it was last in open,
    so that neighbouring files cost one system call each. Close it, or use it in `with`.

    Args:
        root: the directory. It is opened when first needed; it may itself be a link.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._root_fd = -1
        self._parent: str = ""
        self._parent_fd = -1

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every descriptor."""
        self.close()

    def close(self) -> None:
        """Close every descriptor. It may be called again."""
        self._leave_parent()
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def stat_file(self, path: str) -> os.stat_result:
        """Return the status of a regular file, without opening it.

        Args:
            path: canonical and relative, with `/` between components.

        Raises:
            FileNotFoundError: there is no such file.
            EvidencePathError: it is no regular file, or the way there goes through a link.
            EvidenceUnavailableError: the root isn't there.
        """
        parent_fd, name = self.locate(path)
        status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        _require_regular(status, path)
        return status

    @contextlib.contextmanager
    def open_file(self, path: str) -> Generator[int]:
        """Open a regular file for reading and give its descriptor. Never blocks on a fifo.

        Args and errors are those of `stat_file`.
        """
        parent_fd, name = self.locate(path)
        # Looking first keeps a device from being opened at all; opening it can have effects.
        _require_regular(os.stat(name, dir_fd=parent_fd, follow_symlinks=False), path)
        try:
            fd = os.open(name, _FILE, dir_fd=parent_fd)
        except OSError as error:
            _require_regular(os.stat(name, dir_fd=parent_fd, follow_symlinks=False), path)
            raise error from None
        try:
            _require_regular(os.fstat(fd), path)
            yield fd
        finally:
            os.close(fd)

    def directory(self, path: str) -> str:
        """Return the absolute path of a directory, having walked there without following links.

        Args:
            path: canonical and relative; `.` is the root.

        Raises:
            FileNotFoundError: there is no such directory.
            EvidencePathError: the way there goes through a link.
            EvidenceUnavailableError: the root isn't there.
        """
        root_fd = self._open_root()
        if path == ".":
            return self.root
        parts = _components(path)
        os.close(self._descend(root_fd, parts, path))
        return os.path.join(self.root, *parts)  # noqa: PTH118  text in, text out

    def status(self, path: str) -> os.stat_result:
        """Return the status of whatever is there, a link as itself; opens nothing.

        Args and errors are those of `locate`; FileNotFoundError: there is nothing.
        """
        parent_fd, name = self.locate(path)
        return os.stat(name, dir_fd=parent_fd, follow_symlinks=False)

    @contextlib.contextmanager
    def open_directory(self, path: str) -> Generator[int]:
        """Open a directory and give its descriptor. Args and errors are those of `directory`."""
        root_fd = self._open_root()
        fd = os.dup(root_fd) if path == "." else self._descend(root_fd, _components(path), path)
        try:
            yield fd
        finally:
            os.close(fd)

    def locate(self, path: str) -> tuple[int, str]:
        """Return a descriptor of the directory a path lies in, and its last component.

        The descriptor is this object's own, and good until the next call.

        Args:
            path: canonical and relative, with `/` between components.

        Raises:
            FileNotFoundError, NotADirectoryError: there is no such directory.
            EvidencePathError: the way there goes through a link.
            EvidenceUnavailableError: the root isn't there.
        """
        parent, _, name = path.rpartition("/")
        root_fd = self._open_root()
        if not parent:
            return root_fd, _components(name)[0]
        if self._parent_fd < 0 or parent != self._parent:
            self._leave_parent()
            self._parent_fd = self._descend(root_fd, _components(parent), path)
            self._parent = parent
        return self._parent_fd, _components(name)[0]

    def _descend(self, root_fd: int, parts: list[str], path: str) -> int:
        current = root_fd
        for part in parts:
            try:
                following = _open_directory(part, current, path)
            finally:
                if current != root_fd:
                    os.close(current)
            current = following
        return current

    def _open_root(self) -> int:
        if self._root_fd < 0:
            try:
                self._root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise EvidenceUnavailableError(
                    f"The workspace {self.root!r} isn't on this machine ({error.strerror}).",
                    workspace=self.root,
                ) from error
        return self._root_fd

    def _leave_parent(self) -> None:
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
            self._parent_fd = -1


def _components(path: str) -> list[str]:
    parts = path.split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise EvidencePathError(
            f"The path {path!r} doesn't stay below the workspace. Nothing was checked.", path=path
        )
    return parts


def _open_directory(name: str, parent_fd: int, path: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent_fd)
    except OSError:
        status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            message = (
                f"The path {path!r} goes through the symbolic link {name!r}. "
                "Nothing was read; name the file itself."
            )
            raise EvidencePathError(message, path=path) from None
        raise


def _require_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    found = next((name for is_kind, name in _NAMES if is_kind(status.st_mode)), "something else")
    raise EvidencePathError(
        f"{path!r} is {found}, not a regular file. Nothing was read; name a regular file.",
        path=path,
    )

"""One byte of a lock file for each worker: the kernel frees it the moment the process dies.

POSIX record locks belong to the process, not to the file descriptor: they are not inherited by a
forked child, and closing *any* descriptor of the file drops them. So a process opens a lock file
once and shares it (https://pubs.opengroup.org/onlinepubs/9799919799/functions/fcntl.html).
"""

from __future__ import annotations

import fcntl
import os
import threading

_open_files: dict[tuple[int, int], LockFile] = {}
_opening = threading.Lock()

_CLOSED = -1


class LockFile:
    """The lock file beside a database. Use `open_lock_file`; there is one object a process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._users = 1
        self._held: set[int] = set()
        self._lock = threading.Lock()

    def hold(self, slot: int) -> bool:
        """Take the byte until this process ends or releases it. False when it is taken."""
        with self._lock:
            if slot in self._held or not self._try(slot):
                return False
            self._held.add(slot)
            return True

    def release(self, slot: int) -> None:
        """Give the byte back."""
        with self._lock:
            if slot in self._held:
                self._held.discard(slot)
                self._free(slot)

    def is_held(self, slot: int) -> bool:
        """Say whether any living process, this one included, holds the byte."""
        with self._lock:
            if slot in self._held:
                return True
            if not self._try(slot):
                return True
            self._free(slot)
            return False

    def close(self) -> None:
        """Stop using the file. Its last user closes it, unless a byte is held still.

        A worker holds its own beyond its end while a call of it may still have an effect.
        """
        with _opening:
            self._users -= 1
            if self._users or self._held:
                return
            for key in [key for key, file in _open_files.items() if file is self]:
                del _open_files[key]
            with self._lock:  # the number may be another file's right after
                descriptor, self._descriptor = self._descriptor, _CLOSED
                os.close(descriptor)

    def share(self) -> LockFile:
        """Count one more user."""
        self._users += 1
        return self

    def forget(self) -> None:
        """Know, in a forked child, that the locks stayed with the parent."""
        self._held.clear()
        self._lock = threading.Lock()

    def _free(self, slot: int) -> None:
        if self._descriptor != _CLOSED:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, slot)

    def _try(self, slot: int) -> bool:
        if self._descriptor == _CLOSED:
            return False  # nobody is taken for dead by one who can't see
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:
            return False
        return True


def open_lock_file(path: str) -> LockFile:
    """Return this process's lock file at `path`, created with mode 0600 if need be."""
    with _opening:
        # Looked up before it is opened: closing a second descriptor would drop the locks.
        known = _open_files.get(_identity(path))
        if known is not None:
            return known.share()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        opened = _open_files[_identity(path)] = LockFile(descriptor)
        return opened


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116  a plain string path all along
    except FileNotFoundError:
        return (-1, -1)
    return status.st_dev, status.st_ino


def _after_fork_in_child() -> None:
    global _opening  # noqa: PLW0603  a thread that doesn't exist here may have held it
    _opening = threading.Lock()
    for file in _open_files.values():
        file.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)

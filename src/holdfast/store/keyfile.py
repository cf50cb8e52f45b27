"""The key that secrets are digested with: random, in a file beside the database, for its owner."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress

from holdfast import errors

SIZE = 32
"""Bytes of a key."""


def new_key() -> bytes:
    """Return a key for a database that ends with the process."""
    return secrets.token_bytes(SIZE)


def key_of(database: str) -> bytes:
    """Return the key beside a database, made with mode 0600 when there is none.

    A crash leaves the whole key or none; of several processes that make one at once, all get the
    same.

    Raises:
        StoreOpenError: the file is no key, or can't be read or made.
    """
    path = database + "-key"
    try:
        return _read(path) or _make(path)
    except OSError as error:
        message = (
            f"The key file {path} can't be read or made ({error.strerror}). Without it, stored "
            f"secrets aren't found again. Give this user access to it, and to its directory."
        )
        raise errors.StoreOpenError(message, path=path) from error


def replace_key(database: str, key: bytes) -> None:
    """Make this the key beside a database. A crash leaves the old one or the new one, whole."""
    path = database + "-key"
    draft = _write_draft(path, key)
    os.replace(draft, path)  # noqa: PTH105  a plain string path all along
    _sync_folder(path)


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        key = os.read(descriptor, SIZE + 1) if regular else b""
    finally:
        os.close(descriptor)
    if len(key) != SIZE:
        message = (
            f"{path} is not a key of {SIZE} bytes; it was not touched. Restore it, or move it away "
            f"to have a new one: calls with secrets that were recorded are then not found again."
        )
        raise errors.StoreOpenError(message, path=path)
    return key


def _make(path: str) -> bytes:
    draft = _write_draft(path, new_key())
    try:
        with suppress(FileExistsError):  # somebody else was quicker: theirs counts
            os.link(draft, path)
    finally:
        os.unlink(draft)  # noqa: PTH108  a plain string path all along
    _sync_folder(path)
    key = _read(path)
    if key is None:
        message = f"{path} was removed while it was made. Open the database again."
        raise errors.StoreOpenError(message, path=path)
    return key


def _write_draft(path: str, key: bytes) -> str:
    draft = f"{path}.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    except BaseException:
        os.unlink(draft)  # noqa: PTH108
        raise
    finally:
        os.close(descriptor)
    return draft


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH120
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

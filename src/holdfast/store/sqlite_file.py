"""Looks at a database file without SQLite, so that what is refused stays as it is."""

from __future__ import annotations

import os
import stat

from holdfast import errors
from holdfast.store.migrations import refuse_reader

APPLICATION_ID = 0x484F4C44
"""'HOLD', in the header of every Holdfast database (https://sqlite.org/fileformat.html §1.3.14)."""

_HEADER = 100
_MAGIC = b"SQLite format 3\0"


def check_file(path: str) -> None:
    """Refuse what isn't ours by reading the header only, so that the file stays as it is.

    Raises:
        NotHoldfastError: another kind of file, or somebody else's SQLite database.
        StoreTooNewError: the database needs a newer Holdfast.
        StoreMovedError: its tasks are in another database now.
        ReadOnlyStoreError: the file or its directory can't be written.
    """
    _check_writable(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  a plain path all along
            message = f"{path} is not a regular file; it was not touched. Name another file."
            raise errors.NotHoldfastError(message, path=path)
        with open(path, "rb") as file:  # noqa: PTH123
            header = file.read(_HEADER)
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"{path} can't be read: {error.strerror}. Nothing was changed."
        raise errors.StoreOpenError(message, path=path) from error
    if not header or _is_unfinished_creation(path, header):
        return
    if header[: len(_MAGIC)] != _MAGIC or int.from_bytes(header[68:72]) != APPLICATION_ID:
        message = (
            f"{path} is not a Holdfast database; it was not touched. Name another file: "
            f"Holdfast creates it."
        )
        raise errors.NotHoldfastError(message, path=path)
    refuse_reader(int.from_bytes(header[60:64]), path)


def _check_writable(path: str) -> None:
    folder = os.path.dirname(path) or "."  # noqa: PTH120
    if not os.path.isdir(folder):  # noqa: PTH112
        message = f"{folder} is not a directory. Create it, or name another place."
        raise errors.StoreOpenError(message, path=path)
    # WAL mode makes files beside the database, so the directory matters even for an existing one.
    for place in (folder, path):
        if os.path.exists(place) and not os.access(place, os.W_OK):  # noqa: PTH110
            message = f"{place} can't be written, and a Holdfast database must be. Nothing changed."
            raise errors.ReadOnlyStoreError(message, path=path)


def _is_unfinished_creation(path: str, header: bytes) -> bool:
    # Killed while the first transaction was being written: SQLite rolls it back at the next open.
    return not any(header) and os.path.exists(path + "-journal")  # noqa: PTH110


def identity(path: str) -> tuple[int, int]:
    """Return what tells the file from every other, whatever it is called."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return (-1, -1)
    return status.st_dev, status.st_ino

"""Files that several processes append lines to."""

from __future__ import annotations

import os
from pathlib import Path


def append_line(path: Path, line: bytes) -> None:
    """Append one line, whole and durable, whoever else appends at the same time."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line + b"\n")  # one write: lines of two processes can't mix
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[bytes]:
    """Return the lines of a file; none when it isn't there."""
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []

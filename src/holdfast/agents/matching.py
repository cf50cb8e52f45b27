"""Finding a pattern in the lines of texts.

A regular expression may take longer than anybody lives, and no thread can be stopped. So this file
is also a program, which imports nothing of Holdfast's and can be killed: it reads a pattern and
texts from standard input and writes what it found, a JSON value a line.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO

LINE = 300
"""Characters of a line that are told."""

MEMORY = 1024 * 1024 * 1024
"""Bytes of memory that a search may use."""

SIZE = 4
"""Bytes of a number that says how long what follows is."""

Match = tuple[str, int, str]
"""Where something was found: the path, the number of the line from 1, and the line."""


def matches(
    texts: Iterable[tuple[str, bytes]], finds: Callable[[str], object], most: int
) -> Iterator[Match]:
    """Yield the lines in which something is found, at most so many."""
    found = 0
    for path, data in texts:
        for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
            if not finds(line):
                continue
            yield path, number, line.rstrip("\r")[:LINE]
            found += 1
            if found == most:
                return


def pack(parts: Iterable[bytes], to: BinaryIO) -> None:
    """Write parts, each after its length."""
    to.writelines(len(part).to_bytes(SIZE) + part for part in parts)


def _unpack(source: BinaryIO) -> Iterator[bytes]:
    while size := source.read(SIZE):
        yield source.read(int.from_bytes(size))


def main() -> None:
    """Search the texts on standard input. Says on standard error why a pattern is none."""
    with suppress(OSError, ValueError):  # not every system can
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    parts = _unpack(sys.stdin.buffer)
    try:
        finds = re.compile(next(parts).decode()).search
    except (re.error, OverflowError, RecursionError) as error:
        sys.exit(f"it is no regular expression: {error}.")
    most = int(next(parts))
    texts = ((path.decode("utf-8", "surrogateescape"), next(parts)) for path in parts)
    for match in matches(texts, finds, most):
        sys.stdout.write(json.dumps(match) + "\n")


if __name__ == "__main__":
    main()

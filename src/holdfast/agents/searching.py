"""Searching the files of a workspace for a text or a regular expression, within limits."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator

from holdfast import processes
from holdfast.agents import matching
from holdfast.agents.files import WorkspaceFiles
from holdfast.agents.matching import Match
from holdfast.agents.names import workspace_names
from holdfast.agents.paths import OwnFiles
from holdfast.agents.refusals import Miss
from holdfast.clock import SystemClock

MATCHES = 200
"""Lines that one search tells of."""

FILE = 2 * 1024 * 1024
"""Bytes of the largest file that is searched."""

ALL = 64 * 1024 * 1024
"""Bytes that one search reads."""

PATTERN = 1000
"""Characters of a pattern."""

SECONDS = 10.0
"""What a regular expression may take."""

_LIMITS = processes.Limits(timeout=SECONDS, output_cap=MATCHES * (matching.LINE * 6 + 8192))
_BINARY = 8192


def search(files: WorkspaceFiles, pattern: str, beneath: str, *, regex: bool) -> list[Match]:
    """Return the lines that contain a text or match a regular expression, `MATCHES` at most.

    Files that are ignored by git, binary or larger than `FILE` are passed over.

    Args:
        files: the workspace.
        pattern: what to look for.
        beneath: a file or directory of the workspace; `.` for all of it.
        regex: whether the pattern is a regular expression, as Python has them.

    Raises:
        Miss: the pattern is none, or took longer than `SECONDS`.
    """
    if not pattern or len(pattern) > PATTERN or "\n" in pattern:
        raise Miss(f"a pattern has 1 to {PATTERN} characters and no line break.")
    texts = _texts(files, beneath)
    if not regex:
        return list(matching.matches(texts, lambda line: pattern in line, MATCHES))
    return _search_apart(pattern, texts)


def _texts(files: WorkspaceFiles, beneath: str) -> Iterator[tuple[str, bytes]]:
    left = ALL
    names = workspace_names(files.root, OwnFiles(files.root))
    wanted = (name for name in names if beneath in {".", name} or name.startswith(f"{beneath}/"))
    for path, data in files.read_all(wanted, FILE):
        if b"\0" not in data[:_BINARY]:
            left -= len(data)
            if left < 0:
                return
            yield path, data


def _search_apart(pattern: str, texts: Iterator[tuple[str, bytes]]) -> list[Match]:
    """Search in a process of its own, which is killed when its time is up."""
    with tempfile.TemporaryFile() as given:
        parts = (part for path, data in texts for part in (_encoded(path), data))
        matching.pack([_encoded(pattern), str(MATCHES).encode()], given)
        matching.pack(parts, given)
        given.seek(0)
        ended = processes.run(
            [sys.executable, "-I", "-S", "-W", "ignore", matching.__file__],
            cwd="/",
            env=processes.scrubbed_environment(),
            limits=_LIMITS,
            clock=SystemClock(),
            stdin=given.fileno(),
        )
    if ended.exit_code is None:
        raise Miss(f"the pattern took longer than {SECONDS:g} s. Use a simpler one.")
    if ended.exit_code != 0:
        raise Miss(f"{pattern!a} can't be searched for: {ended.text[-300:].strip()}")
    return [_match(line) for line in ended.text.splitlines()]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _match(line: str) -> Match:
    path, number, text = json.loads(line)
    return path, number, text

"""Paths as a model writes them, and what lies in a workspace that is no tool's business."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

from holdfast.agents.refusals import Refusal
from holdfast.errors import EvidencePathError
from holdfast.evidence.inputs import relative_path
from holdfast.store.sqlite import open_databases

LONGEST = 1024
"""Characters of a path."""

HOLDFAST = ".holdfast"
"""The directory of Holdfast's own in a workspace."""

DRAFT = f"{HOLDFAST}-"
"""How a file begins that is written beside what it is to replace."""

_PROTECTED = frozenset({HOLDFAST, ".git"})
# Characters that can't be seen, or turn the reading direction: controls, formats, separators,
# halves of pairs, and what no version of Unicode has given a meaning.
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_SUFFIXES = ("", "-wal", "-shm", "-journal", "-lock", "-key")


def workspace_path(path: str, *, allow_root: bool = False) -> str:
    """Return a path below the workspace in its one canonical spelling.

    Args:
        path: as the model wrote it.
        allow_root: whether `.` is allowed, which names the workspace itself.

    Raises:
        Refusal: it is absolute, empty or overlong, contains `..` or characters that can't be
            seen, or names what belongs to Holdfast or git.
    """
    if len(path) > LONGEST:
        raise Refusal(f"a path of {len(path)} characters is too long.")
    if any(unicodedata.category(character) in _UNSEEN for character in path):
        raise Refusal(f"the path {path!a} contains characters that can't be seen.")
    try:
        where = relative_path(path, allow_root=allow_root)
    except EvidencePathError as error:
        raise Refusal(str(error)) from None
    if is_protected(where):
        raise Refusal(f"{where!r} belongs to git or to Holdfast and is out of reach.")
    return where


def is_protected(path: str) -> bool:
    """Say whether a relative path leads into what belongs to git or to Holdfast, by its name.

    Capitals and compatible characters don't matter, as they don't to some file systems.
    """
    parts = [unicodedata.normalize("NFKC", part).casefold() for part in path.split("/")]
    return any(part in _PROTECTED or part.startswith(DRAFT) for part in parts)


class OwnFiles:
    """The files of Holdfast's databases that lie in a workspace.

    No tool may write them, and none of this process may even read them: closing any descriptor of
    such a file drops the locks that the process holds on it (https://sqlite.org/howtocorrupt.html
    §2.2). They are known by their names and, against links, by what they are.

    Args:
        root: the workspace.
        databases: their paths; those that this process has open are known without.
    """

    def __init__(self, root: str, databases: Iterable[str] = ()) -> None:
        real = os.path.realpath(root)
        known = {os.path.realpath(path) for path in databases} | set(open_databases())
        files = {f"{path}{suffix}" for path in known for suffix in _SUFFIXES}
        self._identities = frozenset(filter(None, map(_identity, files)))
        inside = f"{real.rstrip('/')}/"
        below = [path.removeprefix(inside) for path in known if path.startswith(inside)]
        self._names = frozenset(f"{path}{suffix}" for path in below for suffix in _SUFFIXES)
        self._drafts = tuple(f"{path}-key." for path in below)

    def named(self, path: str) -> bool:
        """Say whether a relative path is the name of one of them, whether it is there or not."""
        return path in self._names or path.startswith(self._drafts) or is_protected(path)

    def are(self, status: os.stat_result) -> bool:
        """Say whether what has this status is one of them under whatever name."""
        return (status.st_dev, status.st_ino) in self._identities


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  a plain string path all along
    except OSError:
        return None
    return status.st_dev, status.st_ino

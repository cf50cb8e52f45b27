"""Workspace: the directory that agents work in, with an id of its own.

Evidence carries the id. A machine that doesn't have the workspace is told from one where a file
is gone: another directory, even at the same path, has another id.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from holdfast.confined import ConfinedRoot
from holdfast.errors import EvidencePathError, EvidenceUnavailableError
from holdfast.evidence import WorkspaceRef
from holdfast.evidence.inputs import relative_path

_DIRECTORY = ".holdfast"
_MARKER = f"{_DIRECTORY}/workspace"
_ID = re.compile(r"ws-[0-9a-f]{32}")
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory with an id. Get one with `Workspace.at`.

    Args:
        id: its id, the same for every process and machine that shares the directory.
        root: absolute path of the directory.
    """

    id: str
    root: Path

    @classmethod
    def at(cls, root: Path | str, *, create: bool = False) -> Self:
        """Return the workspace at a directory, giving it an id if it has none yet.

        Processes that do so at the same time get the same id, and it survives a power cut. The
        id is in `.holdfast/workspace`, which keeps itself out of git: a clone is another
        workspace.

        Args:
            root: the directory.
            create: whether to make the directory if it isn't there.

        Raises:
            EvidenceUnavailableError: the directory isn't there.
            EvidencePathError: its marker is a link or isn't one that Holdfast wrote.
            OSError: the marker can't be written.
        """
        place = Path(root).absolute()
        if create:
            place.mkdir(parents=True, exist_ok=True)
        if not place.is_dir():
            raise EvidenceUnavailableError(
                f"There is no directory {str(place)!r}. Create it, or pass create=True.",
                workspace=str(place),
            )
        return cls(identify(place) or _mark(place), place)

    @property
    def ref(self) -> WorkspaceRef:
        """The id and the root as a plain value, for verifiers and for the record."""
        return WorkspaceRef(self.id, str(self.root))

    def path(self, relative: str | os.PathLike[str]) -> Path:
        """Return the absolute path of something in the workspace; it need not exist.

        This is a convenience for writing files. What evidence reads is opened beneath the root
        step by step instead, because a path can lead elsewhere a moment later.

        Raises:
            EvidencePathError: the path leads out of the workspace, lexically or through a link.
        """
        where = self.root / relative_path(relative, allow_root=True)
        if not where.resolve().is_relative_to(self.root.resolve()):
            raise EvidencePathError(
                f"{os.fspath(relative)!r} leads out of the workspace through a symbolic link.",
                path=os.fspath(relative),
            )
        return where


def identify(root: Path | str) -> str | None:
    """Return the id of the workspace at a directory, or None if it has none. Writes nothing.

    Raises:
        EvidencePathError: its marker is a link or isn't one that Holdfast wrote.
        EvidenceUnavailableError: the directory isn't there.
    """
    with ConfinedRoot(str(root)) as beneath:
        try:
            with beneath.open_file(_MARKER) as fd:
                text = os.read(fd, _LONGEST).decode("utf-8", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
    if not _ID.fullmatch(text):
        raise EvidencePathError(
            f"{_MARKER} in {str(root)!r} isn't a marker that Holdfast wrote. Evidence made there "
            "can't be told from elsewhere's; restore the file, or delete it to start anew.",
            path=_MARKER,
        )
    return text


def _mark(root: Path) -> str:
    """Give the directory an id, or return the one that another process gave it meanwhile."""
    directory = root / _DIRECTORY
    directory.mkdir(exist_ok=True)
    _write_if_new(directory / ".gitignore", "*\n")
    _write_if_new(root / _MARKER, f"ws-{secrets.token_hex(16)}\n")
    _sync_directory(root)
    written = identify(root)
    if written is None:
        raise EvidencePathError(f"{_MARKER} vanished while it was being written.", path=_MARKER)
    return written


def _write_if_new(target: Path, text: str) -> None:
    """Write a file whole and durably, unless it exists: a link is made by one process only."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""The files of a workspace by name: tracked and untracked, without what is ignored.

In a git checkout git says which; elsewhere they are all there are. Nothing of git's or Holdfast's
own is among them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from holdfast import processes
from holdfast.agents.paths import OwnFiles
from holdfast.clock import Clock, SystemClock
from holdfast.confined import ConfinedRoot
from holdfast.errors import EvidencePathError

_LIMITS = processes.Limits(timeout=60.0, output_cap=256 * 1024 * 1024)
_ENVIRONMENT = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
# A repository's configuration may name programs to run and places to fetch from; whoever writes
# files may have written that.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "protocol.allow=never")
_LIST = ("ls-files", "-z", "-t", "--stage", "--cached", "--others", "--exclude-standard")
_UNTRACKED = b"?"
_SUBMODULE = b"160000"


def workspace_names(root: str, own: OwnFiles, clock: Clock | None = None) -> list[str]:
    """Return the paths of files and symbolic links beneath a directory, sorted.

    A name that isn't UTF-8 has surrogate escapes (`os.fsencode` gives it back). One that git still
    tracks may be gone.

    Args:
        root: the directory.
        own: Holdfast's files in it.
        clock: measures how long git takes.

    Raises:
        EvidenceUnavailableError: there is no such directory.
    """
    with ConfinedRoot(root) as beneath:
        found = _names(beneath, "", clock or SystemClock())
        return sorted({name for name in found if not own.named(name)}, key=os.fsencode)


def _names(beneath: ConfinedRoot, prefix: str, clock: Clock) -> Iterator[str]:
    """Yield names, those of git checkouts inside (submodules among them) as git there has it."""
    listed = _listed_by_git(beneath.directory(prefix or "."), clock)
    if listed is None:
        yield from _walk(beneath, prefix)
        return
    for name in listed:
        path = f"{prefix}/{name}" if prefix else name
        if path.endswith("/"):
            yield from _inside(beneath, path[:-1], clock)
        else:
            yield path


def _inside(beneath: ConfinedRoot, directory: str, clock: Clock) -> Iterator[str]:
    if _is_directory(beneath, directory):
        yield from _names(beneath, directory, clock)


def _listed_by_git(directory: str, clock: Clock) -> list[str] | None:
    """Return what git lists there, checkouts inside it with a slash; None where it is none."""
    try:
        ended = processes.run(
            [*_GIT, "-C", directory, *_LIST],
            cwd=directory,
            env=processes.scrubbed_environment(_ENVIRONMENT),
            limits=_LIMITS,
            clock=clock,
        )
    except OSError:  # there is no git
        return None
    if ended.exit_code != 0 or ended.output_bytes > _LIMITS.output_cap:
        return None
    return [_name(line) for line in ended.output.split(b"\0") if line]


def _name(line: bytes) -> str:
    """Return the name on a line such as `? name`; where it is tracked, facts and a tab precede."""
    mark, _, rest = line.partition(b" ")
    if mark == _UNTRACKED:
        return os.fsdecode(rest)
    facts, _, name = rest.partition(b"\t")
    return os.fsdecode(name + b"/" if facts.startswith(_SUBMODULE) else name)


def _walk(beneath: ConfinedRoot, directory: str) -> Iterator[str]:
    """Yield what lies in a directory and below; links are named, not followed."""
    try:
        with beneath.open_directory(directory or ".") as fd, os.scandir(fd) as found:
            names = [entry.name for entry in found]
    except (OSError, EvidencePathError):
        return  # gone meanwhile, or closed to us
    for name in names:
        path = f"{directory}/{name}" if directory else name
        if _is_directory(beneath, path):
            yield from _walk(beneath, path)
        else:
            yield path


def _is_directory(beneath: ConfinedRoot, path: str) -> bool:
    try:
        return stat.S_ISDIR(beneath.status(path).st_mode)
    except (OSError, EvidencePathError):
        return False

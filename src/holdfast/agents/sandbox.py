"""The sandbox: bubblewrap, where the machine has it (https://github.com/containers/bubblewrap).

Inside, the whole file system is read-only, apart from the workspace where its files may be changed;
the temporary directory is private; there is no network unless it is allowed; other processes can't
be seen, and all ends with the command. Holdfast's own files and git's stay read-only. It can still
read what this user can read, apart from a few places known to hold keys.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from holdfast.agents.paths import HOLDFAST
from holdfast.errors import UsageError
from holdfast.store.sqlite import open_databases

_PROGRAM = "bwrap"
_TEMPORARY = "/tmp"  # noqa: S108  what it hides
_PROBE = 10.0

INSIDE = {"TMPDIR": _TEMPORARY}
"""Variables that a command in a sandbox needs."""

_PRIVATE = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".config/gh",
    ".git-credentials", ".netrc", ".pgpass", ".pypirc", ".npmrc", ".password-store",
)  # fmt: skip
"""Where keys and passwords lie, beneath the home directory."""
_EMPTY = str(Path(__file__).parents[1] / "py.typed")
"""An empty file that is always there, to put in the place of one that is not to be read."""


class Sandbox(StrEnum):
    """Whether commands run in a sandbox."""

    AUTO = "auto"
    """Where bubblewrap works; elsewhere only the commands that a mode lists may run."""
    REQUIRED = "required"
    """In one or not at all."""
    OFF = "off"
    """Never: only the commands that a mode lists may run."""


def works() -> bool:
    """Say whether a sandbox can be had here; found out once."""
    return _program() is not None


@functools.cache
def _program() -> str | None:
    found = shutil.which(_PROGRAM)
    if found is None:
        return None
    probe = [found, "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--", "true"]
    try:
        ended = subprocess.run(probe, capture_output=True, timeout=_PROBE, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if ended.returncode == 0 else None


def is_used(wanted: Sandbox) -> bool:
    """Say whether commands are to run in a sandbox.

    Raises:
        UsageError: one is required, and there is none.
    """
    if wanted is Sandbox.REQUIRED and not works():
        raise UsageError(
            "A sandbox is required, and bubblewrap isn't there or may not make one here. Nothing "
            "was run. Install it, or allow unprivileged user namespaces."
        )
    return wanted is not Sandbox.OFF and works()


def sandboxed(argv: Sequence[str], root: str, *, writable: bool, network: bool) -> list[str]:
    """Return the command that runs another one in a sandbox.

    Args:
        argv: what to run.
        root: the workspace, absolute.
        writable: whether it may change the workspace.
        network: whether it has the network.
    """
    program = _program() or _PROGRAM
    bind = "--bind" if writable else "--ro-bind"
    words = [program, "--die-with-parent", "--unshare-all", *(["--share-net"] if network else [])]
    words += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    # A socket takes messages from a read-only directory, too, and the docker daemon's is in /run.
    words += [*_sockets(network=network), "--tmpfs", _TEMPORARY]
    words += [*_private(), *_this_python(), bind, root, root, *_fixed(root), *_databases(root)]
    return [*words, "--chdir", root, "--cap-drop", "ALL", "--", *argv]


def _sockets(*, network: bool) -> list[str]:
    """Hide where services listen, except for what says how hosts are found by name."""
    words = ["--tmpfs", "/run"]
    if not Path("/var/run").is_symlink() and Path("/var/run").is_dir():
        words += ["--tmpfs", "/var/run"]
    resolving = Path("/run/systemd/resolve")  # where resolv.conf may lead
    return [*words, *_read_only(resolving)] if network and resolving.is_dir() else words


def _this_python() -> list[str]:
    """Show the interpreter this runs in, where it lies among temporary files."""
    prefix = Path(sys.prefix)
    return list(_read_only(prefix)) if prefix.is_relative_to(_TEMPORARY) else []


def _private() -> list[str]:
    home = Path.home()
    words: list[str] = []
    for name in _PRIVATE:
        place = (home / name).resolve()
        if place.is_dir():
            words += ["--tmpfs", str(place)]
        elif place.is_file():
            words += ["--ro-bind", _EMPTY, str(place)]
    return words


def _fixed(root: str) -> list[str]:
    """Keep read-only what programs outside the sandbox would believe."""
    words: list[str] = []
    for name in (HOLDFAST, ".git"):
        place = Path(root, name)
        if place.exists() and not place.is_symlink():
            words += _read_only(place)
    return words


def _databases(root: str) -> list[str]:
    """Keep the databases read-only, and hide the keys of their secrets."""
    words: list[str] = []
    real = os.path.realpath(root)
    for path in map(Path, open_databases()):
        if path.is_relative_to(real):
            # As the workspace is called inside, not as it is called in truth.
            place = Path(root, path.relative_to(real))
            files = [Path(f"{place}{suffix}") for suffix in ("", "-wal", "-shm", "-lock")]
            words += [word for file in files if file.is_file() for word in _read_only(file)]
        elif path.is_relative_to(_TEMPORARY):
            continue  # not there inside
        else:
            place = path
        key = Path(f"{place}-key")
        words += ["--ro-bind", _EMPTY, str(key)] if key.is_file() else []
    return words


def _read_only(file: Path) -> tuple[str, str, str]:
    return "--ro-bind", str(file), str(file)

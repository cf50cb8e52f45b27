"""Which process this is on its machine, so that others there can see that it has ended."""

from __future__ import annotations

import os
from pathlib import Path

ENDED = "ended"
"""Stands for a process that was seen to have ended, where nothing else of it is known any more."""

_PROC = Path("/proc")
_STARTED = 19  # field 22 of /proc/<pid>/stat; the name in field 2 may hold anything
_OVER = ("Z", "X")


def this_process() -> str:
    """Return this boot, this space of process ids, and when this process started.

    Empty where the system doesn't say.
    """
    try:
        here = _here()
        _, started = _state(os.getpid())
    except (OSError, IndexError):
        return ""
    return f"{here}/{started}"


def is_running(pid: int, process: str) -> bool | None:
    """Say whether a process runs; None when it isn't one of this machine and boot."""
    if process == ENDED:
        return False
    here, _, started = process.rpartition("/")
    try:
        if not here or here != _here():
            return None
        state, since = _state(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except (OSError, IndexError):
        return None
    return since == started and state not in _OVER


def _here() -> str:
    boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    # Containers on one machine have the same boot, but not the same process ids.
    return f"{boot}/{(_PROC / 'self/ns/pid').stat().st_ino}"


def _state(pid: int) -> tuple[str, str]:
    fields = (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return fields[0], fields[_STARTED]

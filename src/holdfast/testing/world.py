"""The world outside: what the reference task does to it, kept in files that survive any crash."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from holdfast.testing.crash import CrashPlan

OUTBOX = "outbox.jsonl"
"""What `once` tools sent: must hold each thing that is due exactly once."""
RECORDS = "records.jsonl"
"""What the idempotent tool put; a receiver would tell repetitions by their key."""
PROVIDER = "provider.jsonl"
"""What the model was paid for."""
ACKNOWLEDGED = "acknowledged.jsonl"
"""What calls returned to the handler: none of it may be lost or come out differently later."""


class World:
    """Files that stand for everything a task does to the world.

    Each line is appended with one `write` and synced, and names the process that wrote it.

    Args:
        root: an empty directory.
        plan: has a boundary around every effect.
    """

    def __init__(self, root: Path, plan: CrashPlan | None = None) -> None:
        self.root = root
        self._plan = plan or CrashPlan()

    def effect(self, file: str, what: str, **facts: Any) -> None:
        """Do something to the world that a crash may fall before or after."""
        with self._plan.boundary("effect", what):
            self.note(file, what, **facts)

    def note(self, file: str, what: str, **facts: Any) -> None:
        """Append one line, durable when this returns."""
        line = msgspec.json.encode({"what": what, "pid": os.getpid(), **facts}) + b"\n"
        descriptor = os.open(self.root / file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lines(self, file: str) -> list[dict[str, Any]]:
        """Return the lines of a file, oldest first."""
        path = self.root / file
        if not path.exists():
            return []
        return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]

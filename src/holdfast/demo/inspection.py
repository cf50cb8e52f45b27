"""A process that saw nothing of the run checks it: evidence and hash chains, all of them.

`python -m holdfast.demo.inspection DIRECTORY TASK` prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter

import msgspec

from holdfast import operations
from holdfast.demo.job import DATABASE, new_runner


class Inspection(msgspec.Struct, frozen=True):
    """What checking everything again gave.

    Args:
        evidence: how many claims there are, by what became of them: `verified`; `historic`, which
            is how the verdict of a command that ran once stands; or a failure.
        failures: one line for each claim that doesn't hold.
        entries: journal entries whose hash chain was checked.
        broken: one line for each chain or payload that was altered.
    """

    evidence: dict[str, int]
    failures: list[str]
    entries: int
    broken: list[str]


async def inspect(task_id: str) -> Inspection:
    """Check the evidence and the hash chains of a task."""
    runner = new_runner(f"sqlite:///{DATABASE}")
    try:
        found = await runner.collect_evidence(task_id)
        checked = (*found.holding, *found.failed, *found.unavailable)
        counts = Counter(verdict.status.value for _, verdict in checked)
        chains = operations.verify_chains(runner.store, task_id)
    finally:
        runner.close()
    failures = found.explain().splitlines()
    return Inspection(counts, failures, chains.entries, [*chains.broken, *chains.damaged])


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(inspect(sys.argv[2]))))

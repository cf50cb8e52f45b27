"""Moving to another database: take back what the dead held, copy, compare, check the chains."""

from __future__ import annotations

import msgspec

from holdfast.operations import verify_chains
from holdfast.store import Store, verbs
from holdfast.store.copying import Copied, Tell, copy_database
from holdfast.sweep import RecoverySweep

_TASKS = 500


class Moved(msgspec.Struct, frozen=True):
    """What moving a database gave.

    Args:
        copied: what is the same on both sides.
        tasks: whose chains were checked in the target.
        entries: how many journal entries that were.
        damaged: a line for each broken chain and each damaged payload. They were so before: the
            target holds what the source held.
    """

    copied: Copied
    tasks: int
    entries: int
    damaged: tuple[str, ...]


async def move(source: Store, target: Store, tell: Tell, *, seal: bool = True) -> Moved:
    """Move everything in a database to an empty one, and check that nothing differs.

    What dead workers held is taken back first, as by any other worker: who is there to see that
    they are dead is this machine, and not the target. Reservations in the LLM cache are dropped.

    Args:
        source: nobody is at work on it.
        target: empty, or what a call that was killed made of it.
        tell: called with what is being done now.
        seal: whether no Holdfast is to open the source any more.

    Raises:
        UsageError: somebody is at work on either, or the target holds something else. Nothing was
            copied.
        StoreCorruptError: what arrived isn't what was sent. Nothing was kept.
        StoreError: a database failed. A crash and a failure leave the target as it was, or with
            everything in it; call again.
    """
    for store in (source, target):
        await RecoverySweep(store).scan_and_recover()
    copied = copy_database(source, target, tell, seal=seal)
    tell("checking hash chains")
    tasks, entries, damaged = 0, 0, list[str]()
    after = ""
    while names := target.read(verbs.tasks_after(after, _TASKS)):
        for name in names:
            report = verify_chains(target, name)
            entries += report.entries
            damaged += (*report.broken, *report.damaged)
        tasks += len(names)
        after = names[-1]
    return Moved(copied, tasks, entries, tuple(damaged))

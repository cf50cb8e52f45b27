"""`copy`: everything in one database into another."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from holdfast import errors
from holdfast.cli.failures import OTHER
from holdfast.cli.output import status, table
from holdfast.cli.plain import clean, one_line
from holdfast.cli.session import Session, command, require_database
from holdfast.moving import Moved, move
from holdfast.store import open_store
from holdfast.store.postgres_url import hide

DEADLINE = 60.0
"""Seconds that one call to either database may take: thousands of rows, or one large payload."""


@command("copy")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("--keep-source", is_flag=True, help="Leave the source open for use.")
def copy_command(session: Session, source: str, target: str, *, keep_source: bool) -> int:
    """Move everything to another database, and compare.

    SOURCE and TARGET are URLs. TARGET is made if it isn't there; it must be empty. Nobody may be
    at work on either. TARGET gets everything in one transaction, or nothing. What arrived is read
    back and compared before that; hash chains and payloads are checked afterwards.

    No Holdfast opens SOURCE again: two databases with the same tasks would do everything twice.
    Killed in between, call it again.
    """
    if source == target:
        message = "SOURCE and TARGET are one database. Nothing was done."
        raise errors.UsageError(message)
    require_database(source)
    with (
        open_store(source, deadline=DEADLINE) as old,
        open_store(target, deadline=DEADLINE) as new,
    ):
        moved = session.run(move(old, new, session.output.note, seal=not keep_source))
    document = {"source": hide(source), "target": hide(target), **msgspec.to_builtins(moved)}
    session.output.answer(document, _lines(moved, hide(source), hide(target)))
    return OTHER if moved.damaged else 0


def _lines(moved: Moved, source: str, target: str) -> Iterator[str]:
    copied = moved.copied
    yield from table(
        ("table", "rows", "sha-256 of both sides"),
        [(each.table, f"{each.rows:,}", each.digest[:16]) for each in copied.tables],
    )
    for line in moved.damaged:
        yield f"{status('problem'.ljust(11))} {clean(one_line(line))}"
    chains = "broken, as before" if moved.damaged else "unbroken"
    tasks = f"{moved.tasks:,} task{'s' * (moved.tasks != 1)}"
    yield f"Hash chains of {moved.entries:,} journal entries in {tasks}: {chains}."
    done = "had arrived before; nothing was copied" if copied.before else "is there"
    yield f"Nothing differs: everything in {clean(source)} {done}."
    yield f"Use {clean(target)} from now on."
    if not copied.sealed:
        yield "The source can still be used. Two databases with the same tasks do everything twice."

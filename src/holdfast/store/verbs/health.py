"""Verbs that examine the database itself."""

from __future__ import annotations

from holdfast.store.verb import Steps, run, verb

_SYNCHRONOUS = {0: "off", 1: "normal", 2: "full", 3: "extra"}


@verb()
def read_settings() -> Steps[tuple[str, str]]:
    """Return (journal mode, synchronous) of the connection this is run on.

    Commit it rather than read it: the write connection is the one that matters.
    """
    rows = yield from run("health.settings")
    mode, level = rows[0]
    return str(mode), _SYNCHRONOUS.get(int(level), str(level))


@verb()
def find_damage() -> Steps[list[str]]:
    """Return what is wrong with the database file, a line each; reads all of it."""
    rows = yield from run("health.damage")
    lines = [str(row[0]) for row in rows]
    return [] if lines == ["ok"] else lines

"""The tables of a database as its catalogue has them, and what of each goes along when it moves."""

from __future__ import annotations

from typing import NamedTuple

COPIED = (
    "tasks", "work_items", "work_item_edges", "journal", "checkpoints", "claims", "blobs",
    "llm_cache", "signals", "events", "schedules", "queues", "queue_starts", "approvals",
    "budgets", "reservations", "counters",
)  # fmt: skip
"""Tables whose rows are copied, in that order."""

NOT_COPIED = {
    "migrations": "each database has its own",
    "meta": "the reader version is the database's own; the key of secrets is moved by itself",
    "writers": "settles the unknown commits of programs that have the old database open",
    "workers": "none may be at work; who was, and that it has ended, is kept for calls in doubt",
}
"""Tables whose rows stay behind, and why."""

_SIZED = ("text", "blob", "bytea")


class Column(NamedTuple):
    """One column. `place` is its place in the primary key; None where it isn't part of it."""

    name: str
    type: str
    place: int | None


class Table(NamedTuple):
    """One table that can be read and written in the order of its primary key."""

    name: str
    columns: tuple[Column, ...]

    @property
    def key(self) -> tuple[int, ...]:
        """Where in a row the columns of its key stand, the first one first."""
        places = [(column.place, index) for index, column in enumerate(self.columns)]
        return tuple(index for _, index in sorted(each for each in places if each[0] is not None))

    def parts(self, *, typed: bool) -> dict[str, str]:
        """Return what stands for the table in the queries of `copying.sql`.

        Args:
            typed: whether a parameter says its type, as PostgreSQL needs it.
        """
        key = [self.columns[index] for index in self.key]
        sizes = [
            f"coalesce(octet_length({_quoted(column)}), 0)"
            for column in self.columns
            if column.type in _SIZED
        ]
        return {
            "table": f'"{self.name}"',
            "columns": ", ".join(map(_quoted, self.columns)),
            "values": ", ".join(_value(column, typed=typed) for column in self.columns),
            "key": ", ".join(map(_quoted, key)),
            "key_values": ", ".join(_value(column, typed=typed) for column in key),
            "size": " + ".join(sizes) or "0",
        }


def _quoted(column: Column) -> str:
    return f'"{column.name}"'


def _value(column: Column, *, typed: bool) -> str:
    return f":{column.name}::{column.type}" if typed else f":{column.name}"

"""The raw floor: what one durable commit costs with nothing around it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import apsw

from holdfast.bench.figures import Bench
from holdfast.store.sqlite import AUTOCHECKPOINT

PAYLOAD = 200
"""Bytes in each row of the floor, and in each step's result."""


SQLITES_OWN = 1000
"""Pages after which SQLite starts the log anew, when it isn't told otherwise."""


def raw_commits(
    directory: Path, count: int, tables: int = 1, autocheckpoint: int = SQLITES_OWN
) -> float:
    """Commit rows one by one (WAL, synchronous=FULL) and return commits a second.

    Args:
        directory: where; it must be empty.
        count: how many.
        tables: with two, each commit updates a row of the second, and so writes two pages.
        autocheckpoint: pages after which the log is started anew.
    """
    connection = apsw.Connection(str(directory / "floor.db"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("wal_autocheckpoint", autocheckpoint)
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB)")
    connection.execute("CREATE TABLE heads (id INTEGER PRIMARY KEY, number INTEGER)")
    connection.execute("INSERT INTO heads VALUES (1, 0)")
    cursor, data = connection.cursor(), os.urandom(PAYLOAD)
    started = time.perf_counter()
    for _ in range(count):
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("INSERT INTO rows (data) VALUES (?)", (data,))
        if tables > 1:
            cursor.execute("UPDATE heads SET number = number + 1 WHERE id = 1")
        cursor.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return count / seconds


class Compared:
    """Rates of something, each with both floors measured right before and after it.

    One floor is SQLite as it comes; the other starts its log anew as often as Holdfast does.

    Args:
        bench: how and where to measure.
        measure: given a fresh directory, returns a rate.
        commits: how many the floor makes. In the first thousands the log still grows, which makes
            each slower, so the number should be that of the steps compared.
    """

    def __init__(self, bench: Bench, measure: Callable[[Path], float], commits: int) -> None:
        self.floors: list[float] = []
        self.alike: list[float] = []
        self.rates: list[float] = []

        def measure_floors() -> None:
            self.floors.append(raw_commits(bench.place(), commits))
            self.alike.append(raw_commits(bench.place(), commits, autocheckpoint=AUTOCHECKPOINT))

        for _ in range(bench.rounds):
            measure_floors()
            self.rates.append(measure(bench.place()))
        measure_floors()

    @property
    def ratio(self) -> float:
        """How many times slower than the floors before and after it; the median of the rounds."""
        return self._times(self.floors)

    @property
    def ratio_alike(self) -> float:
        """The same with the floors whose log is started anew as often as ours."""
        return self._times(self.alike)

    def _times(self, floors: list[float]) -> float:
        around = [(before + after) / 2 for before, after in pairwise(floors)]
        return statistics.median(
            floor / rate for floor, rate in zip(around, self.rates, strict=True)
        )

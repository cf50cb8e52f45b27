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

PAYLOAD = 200
"""Bytes in each row of the floor, and in each step's result."""


def raw_commits(directory: Path, count: int, tables: int = 1) -> float:
    """Commit rows one by one (WAL, synchronous=FULL) and return commits a second.

    With two tables each commit updates a row of the second, and so writes two pages.
    """
    connection = apsw.Connection(str(directory / "floor.db"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
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
    """Rates of something, each with the floor measured right before and after it.

    Args:
        bench: how and where to measure.
        measure: given a fresh directory, returns a rate.
        commits: how many the floor makes. In the first thousands the log still grows, which makes
            each slower, so the number should be that of the steps compared.
    """

    def __init__(self, bench: Bench, measure: Callable[[Path], float], commits: int) -> None:
        self.floors: list[float] = []
        self.rates: list[float] = []
        for _ in range(bench.rounds):
            self.floors.append(raw_commits(bench.place(), commits))
            self.rates.append(measure(bench.place()))
        self.floors.append(raw_commits(bench.place(), commits))

    @property
    def ratio(self) -> float:
        """How many times slower than the floors before and after it; the median of the rounds."""
        around = [(before + after) / 2 for before, after in pairwise(self.floors)]
        return statistics.median(
            floor / rate for floor, rate in zip(around, self.rates, strict=True)
        )

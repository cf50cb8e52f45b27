"""Rates beside the raw floors of their site."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise

from holdfast.bench.figures import Bench
from holdfast.bench.sites import Place

SHORT = 1000
"""Commits up to which a round takes a part of a second: a shared machine is slow or quick in it."""

MORE = 5
"""Times as many rounds are made of short ones, so that their median says something."""


class Compared:
    """Rates of something, each with both floors measured right before and after it.

    Args:
        bench: how and where to measure.
        measure: given a place, returns a rate.
        commits: how many the floors make. In the first thousands SQLite's log still grows, which
            makes each slower, so the number should be that of the steps compared.
    """

    def __init__(self, bench: Bench, measure: Callable[[Place], float], commits: int) -> None:
        self.floors: list[tuple[float, float]] = []
        self.rates: list[float] = []
        for _ in range(bench.rounds * (MORE if commits <= SHORT else 1)):
            self.floors.append(bench.site.commits(commits))
            self.rates.append(measure(bench.place()))
        self.floors.append(bench.site.commits(commits))

    @property
    def ratio(self) -> float:
        """How many times slower than the first floor around it; the median of the rounds."""
        return self._times(0)

    @property
    def ratio_alike(self) -> float:
        """The same with the second floor."""
        return self._times(1)

    def _times(self, which: int) -> float:
        around = [(before[which] + after[which]) / 2 for before, after in pairwise(self.floors)]
        return statistics.median(
            floor / rate for floor, rate in zip(around, self.rates, strict=True)
        )

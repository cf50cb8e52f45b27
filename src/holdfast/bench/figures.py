"""What a benchmark found out, and how figures are summed up."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import msgspec

from holdfast.bench.sites import Place, Site


class Figure(msgspec.Struct, frozen=True):
    """One line of the table.

    Args:
        row: the benchmark it belongs to.
        what: was measured.
        unit: of median, low and high.
        median: over the rounds (or what `what` says).
        low: the smallest value of any round.
        high: the largest.
        ratio: how many times slower than the first raw floor, measured in the same rounds.
        ratio_alike: the same with the second floor.
        aim: what Holdfast aims at.
        reached: whether this run reached it.
        peers: the best of comparable systems, measured elsewhere.
    """

    row: str
    what: str
    unit: str
    median: float
    low: float
    high: float
    ratio: float | None = None
    ratio_alike: float | None = None
    aim: str = ""
    reached: bool | None = None
    peers: str = ""


class Bench(msgspec.Struct, frozen=True):
    """How and where to measure.

    Args:
        site: where the databases go; its disk is what is measured.
        rounds: how often each figure is taken.
        quick: smaller amounts, for a first look.
        tell: called with what is being measured now.
    """

    site: Site
    rounds: int
    quick: bool
    tell: Callable[[str], None]

    def place(self) -> Place:
        """Return a place for one database."""
        return self.site.place()

    def size(self, full: int) -> int:
        """Return how many of something to do: a tenth when it is to be quick."""
        return max(10, full // 10) if self.quick else full


def figure(
    row: str,
    what: str,
    unit: str,
    values: Sequence[float],
    *,
    ratio: float | None = None,
    ratio_alike: float | None = None,
    at_most: float | None = None,
    at_least: float | None = None,
    aim: str = "",
    peers: str = "",
) -> Figure:
    """Sum up the values of the rounds.

    Args:
        row: see `Figure`; so are `what`, `unit`, `aim` and `peers`.
        what: see `Figure`.
        unit: see `Figure`.
        values: one of each round.
        ratio: how many times slower than the floor.
        ratio_alike: see `Figure`.
        at_most: the aim for the median.
        at_least: the aim for the median.
        aim: how the aim reads, where it isn't one of the two.
        peers: see `Figure`.
    """
    median = statistics.median(values)
    reached = None
    if at_most is not None:
        aim, reached = aim or f"≤ {at_most:,g} {unit}", median <= at_most
    if at_least is not None:
        aim, reached = aim or f"≥ {at_least:,g} {unit}", median >= at_least
    low, high = min(values), max(values)
    return Figure(row, what, unit, median, low, high, ratio, ratio_alike, aim, reached, peers)


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that a part (0 to 1) of the values doesn't exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]

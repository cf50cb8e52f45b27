"""Writes and syncs that fail: nothing is acknowledged that isn't kept, and work goes on.

`python tests/support/io_faults.py --fault full --sample 0` makes every one of them fail.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "support" / "io_faults.py"
SAMPLE = 6
"""Writes and syncs that fail, of some five hundred."""
SAMPLE_OF_CONTROL = 16


def figures(output: str) -> tuple[int, int, int, int]:
    """Return (points, failed calls, commits not acknowledged, violations) of a campaign."""
    found = re.search(
        r": (\d+) of \d+ points, (\d+) failed calls, (\d+) commits not acknowledged: "
        r"\d+ lost, (\d+) violations$",
        output,
        re.MULTILINE,
    )
    assert found, output
    points, failed, refused, violations = map(int, found.groups())
    return points, failed, refused, violations


@pytest.mark.parametrize("fault", ["error", "sync", "burst", "full"])
def test_whatever_write_or_sync_fails_the_worker_goes_on_by_itself_and_nothing_is_lost(
    scripts, fault
):
    output = scripts.run(PROGRAM, "--fault", fault, "--sample", SAMPLE)
    points, failed, refused, violations = figures(output)
    assert violations == 0, output
    assert points == SAMPLE
    assert failed >= SAMPLE // 2
    assert refused > 0


def test_an_engine_that_takes_a_failed_commit_for_a_good_one_is_caught(scripts):
    # The control: a campaign that can't fail proves nothing.
    output = scripts.run(PROGRAM, "--careless", "--sample", SAMPLE_OF_CONTROL)
    assert figures(output)[-1] > 0

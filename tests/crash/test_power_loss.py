"""Power cuts: what was synced is there, the rest in any part, dropped, reordered and torn.

`python tests/support/power_loss.py --subsets 20 --writes 700 --ended 150` is the long campaign.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "support" / "power_loss.py"
SUBSETS = 5
"""Power cuts at each point; each leaves another part of what wasn't synced."""
ENDED = 6
"""Power cuts after which the task is run to its end."""
TWICE = 4
"""Power cuts that are followed by another one while the task is run on."""


def figures(output: str) -> tuple[int, int, int, int]:
    """Return (points, lost, damaged, violations) of a campaign."""
    found = re.search(
        r": (\d+) points, .*: (\d+) lost, (\d+) damaged, (\d+) violations$", output, re.MULTILINE
    )
    assert found, output
    points, lost, damaged, violations = map(int, found.groups())
    return points, lost, damaged, violations


@pytest.mark.parametrize("seed", [1, 2])
def test_a_power_cut_at_any_moment_loses_damages_and_repeats_nothing(scripts, seed):
    output = scripts.run(
        PROGRAM, "--subsets", SUBSETS, "--ended", ENDED, "--twice", TWICE, "--seed", seed
    )
    points, *wrong = figures(output)
    assert wrong == [0, 0, 0], output
    assert points >= 150


def test_with_weaker_syncing_the_same_power_cuts_do_lose_what_was_acknowledged(scripts):
    # The control: a campaign that can't fail proves nothing.
    _, lost, damaged, _ = figures(scripts.run(PROGRAM, "--synchronous", "normal"))
    assert lost > 0
    assert damaged == 0  # weaker syncing loses the newest commits, but never breaks the file

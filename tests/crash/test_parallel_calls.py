"""Two hundred calls side by side in one handler, killed half way."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("how", ["map", "gather", "plain"])
def test_finished_calls_are_replayed_and_exactly_the_unfinished_once_calls_are_in_doubt(
    scripts, how
):
    scripts.scenario("two_hundred_calls", how=how)

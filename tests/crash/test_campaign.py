"""Crashes at the write boundaries of the reference task, by real signals to real processes.

`make crash` runs every arm at every point, `make crash ARGS='--db postgresql://…'` on PostgreSQL.
Here the process is killed at every point on SQLite and at every commit on PostgreSQL; what happens
around an effect is the same there. The other arms are sampled.
"""

from __future__ import annotations

import re

import pytest

SHARDS = 4
SAMPLE = (16, 12)
"""Scenarios of an arm, on SQLite and on PostgreSQL."""


def figures(output: str) -> tuple[int, int]:
    """Return (points reached, doubtful calls) of a campaign without violations."""
    found = re.search(
        r"^all +(\d+) points: 0 lost, 0 repeated, 0 other violations; (\d+) doubtful",
        output,
        re.MULTILINE,
    )
    assert found, output
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("shard", range(SHARDS))
def test_killed_at_every_boundary_nothing_is_lost_or_repeated(scripts, on, shard):
    output = scripts.run(
        "-m", "holdfast.testing.campaign", "--arms", "kill", "--jobs", "4", *on,
        "--shard", f"{shard}/{SHARDS}", *(["--commits"] if on else []),
    )  # fmt: skip
    points, _ = figures(output)
    assert points >= (20 if on else 30)


def test_killed_inside_a_once_call_without_reconcile_it_is_reported(scripts):
    output = scripts.run(
        "-m", "holdfast.testing.campaign", "--arms", "parallel", "--jobs", "2", "--sample", "40"
    )
    _, doubts = figures(output)
    assert doubts > 0


@pytest.mark.parametrize("arm", ["zombie", "second", "double"])
def test_zombies_second_workers_and_double_faults_do_no_harm(scripts, on, arm):
    output = scripts.run(
        "-m", "holdfast.testing.campaign", "--arms", arm, "--jobs", "6", *on,
        "--sample", str(SAMPLE[bool(on)]), "--seed", "7",
    )  # fmt: skip
    # With another worker about, the one to be hit may not come as far as its point.
    assert figures(output)[0] >= SAMPLE[bool(on)] // 4


def test_the_campaign_sees_an_effect_that_is_repeated(scripts):
    # The same campaign on a program that declares a `once` tool idempotent has to fail.
    assert "repeated" in scripts.scenario("a_wrong_effect_class_is_caught")

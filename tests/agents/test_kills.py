"""`holdfast agent` killed at random moments; `make crash-agents` does it more often."""

from __future__ import annotations

from support.agent_campaign import Campaign


def test_an_agent_killed_at_random_moments_loses_and_repeats_nothing(tmp_path):
    report = Campaign(tmp_path, seed=7).run(kills=3)
    assert not report.problems, "\n".join(report.lines())
    assert report.kills == 3
    assert report.distinct == 10 * report.runs

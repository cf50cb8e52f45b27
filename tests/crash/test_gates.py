"""A task with a budget, an approval, and a mail that must be approved, killed everywhere."""

from __future__ import annotations

from pathlib import Path

SCENARIOS = Path(__file__).with_name("scenarios.py")
SCENARIO = "a_mail_that_must_be_approved_at_every_boundary"


def test_killed_at_every_boundary_nothing_is_sent_twice_or_unapproved_or_spent_uncounted(scripts):
    points = doubts = 0
    for shard in (0, 1):
        (scripts.folder / str(shard)).mkdir()
    started = [
        scripts.start(SCENARIOS, SCENARIO, f"shard={shard}", f"folder={shard}") for shard in (0, 1)
    ]
    for process in started:
        output, _ = process.communicate(timeout=110)
        assert process.returncode == 0, output
        reached, doubtful = map(int, output.split())
        points, doubts = points + reached, doubts + doubtful
    assert points >= 20
    assert doubts == 2  # after the intent was recorded, and after the mail was sent

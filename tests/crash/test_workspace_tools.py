"""A process killed inside a workspace tool: the next one finds out what it did, or asks."""

from __future__ import annotations

from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "workspace.py"
SCENARIOS = [
    "a_change_is_made_once_wherever_the_process_was_killed",
    "a_file_that_somebody_else_changed_meanwhile_is_left_to_a_person",
    "a_command_runs_again_only_where_the_task_says_that_it_may",
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_after_a_kill(scripts, scenario):
    scripts.run(PROGRAM, scenario)

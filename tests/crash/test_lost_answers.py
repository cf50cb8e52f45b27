"""The connection is cut at the commits of the reference task: nothing is lost, nothing doubled.

`python tests/support/lost_answers.py --sample 0` cuts at each of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "support" / "lost_answers.py"
CUT = (("deliver", "drop", "late"), 6)
HELD = (("held", "lasting"), 2)
"""Ways to lose an answer, and at how many of some forty-five commits it is lost in each."""


@pytest.mark.parametrize(("faults", "sample"), [CUT, HELD], ids=["cut", "held"])
def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_doubled(scripts, faults, sample):
    pytest.importorskip("psycopg")
    given = [part for fault in faults for part in ("--fault", fault)]
    output = scripts.run(PROGRAM, *given, "--sample", sample)
    found = re.findall(
        r"^(\w+): (\d+) of \d+ commits cut, \d+ attempts ended, \d+ doubts, 0 violations$",
        output,
        re.MULTILINE,
    )
    assert tuple(fault for fault, _ in found) == faults, output
    # With several items side by side, the last of the counted commits may not come.
    assert all(int(cut) >= sample // 2 for _, cut in found), output

"""Cuts the power under the reference task, everywhere, and looks at what is left.

`python tests/support/power_loss.py --subsets 20 --ended 2000` is the long way.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from faulty_store import Recording, go_on, record


class Campaign:
    """One recorded run, cut at every moment that matters.

    Args:
        root: an empty folder.
        random: what is drawn from.
        synchronous: `full` as Holdfast has it, or `normal`, which has to lose something.
    """

    def __init__(self, root: Path, random: Random, synchronous: str) -> None:
        self.root = root
        self.random = random
        self.recording = record(root, synchronous)
        self.points = self.cuts = self.ended = self.twice = 0
        self.wrong: list[str] = []

    def cut_everywhere(self, subsets: int, writes: int) -> None:
        """Cut at every moment, several times, and compare the database with what was promised."""
        for moment in self.recording.moments(self.random, writes):
            self.points += 1
            for _ in range(subsets):
                self._in_folder(lambda at, moment=moment: self._cut(self.recording, moment, at))

    def end_some(self, number: int) -> None:
        """Cut at some moments and run the task on to its end."""
        moments = self.recording.moments(self.random, 0)
        for moment in self._some(moments, number):
            self.ended += 1
            self._in_folder(lambda at, moment=moment: self._end(moment, at))

    def cut_twice(self, number: int) -> None:
        """Cut once more while the task is run on, then run it to its end."""
        moments = self.recording.moments(self.random, 0)
        for moment in self._some(moments, number):
            self.twice += 1
            self._in_folder(lambda at, moment=moment: self._cut_again(moment, at))

    def _some(self, moments: list[int], number: int) -> list[int]:
        return sorted(self.random.choices(moments, k=number))

    def _in_folder(self, look) -> None:
        at = Path(tempfile.mkdtemp(dir=self.root))
        try:
            self.wrong += look(at)
        finally:
            shutil.rmtree(at)

    def _cut(self, recording: Recording, moment: int, at: Path) -> list[str]:
        (at / "disk").mkdir()
        (at / "world").mkdir()
        recording.disk.cut(moment, self.random, at / "disk")
        recording.world.at(moment, at / "world")
        self.cuts += 1
        return recording.wrong_at(moment, at / "disk")

    def _end(self, moment: int, at: Path) -> list[str]:
        return self._cut(self.recording, moment, at) or go_on(at)

    def _cut_again(self, moment: int, at: Path) -> list[str]:
        wrong = self._cut(self.recording, moment, at)
        if wrong:
            return wrong
        again = record(at, run=2)
        second = self.random.choice(again.moments(self.random, 10))
        (at / "again").mkdir()
        return self._cut(again, second, at / "again") or go_on(at / "again", run=3)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--synchronous", default="full", choices=("full", "normal"))
    options.add_argument("--subsets", type=int, default=3)
    options.add_argument("--writes", type=int, default=60)
    options.add_argument("--ended", type=int, default=0)
    options.add_argument("--twice", type=int, default=0)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    random = Random(given.seed)  # noqa: S311  the same each time
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), random, given.synchronous)
        campaign.cut_everywhere(given.subsets, given.writes)
        campaign.end_some(given.ended)
        campaign.cut_twice(given.twice)
    kinds = Counter(text.partition(":")[0] for text in campaign.wrong)
    sys.stdout.write("\n".join(campaign.wrong[:20]) + "\n")
    sys.stdout.write(
        f"synchronous={given.synchronous}: {campaign.points} points, {campaign.cuts} power cuts, "
        f"{campaign.ended} run to the end, {campaign.twice} cut twice: {kinds['lost']} lost, "
        f"{kinds['damaged']} damaged, {len(campaign.wrong)} violations\n"
    )


if __name__ == "__main__":
    main()

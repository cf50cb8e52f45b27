"""The crash campaign: every point of the reference task, in every arm.

`python -m holdfast.testing.campaign` runs all of it and ends with a line that counts the points and
what went wrong. It exits with 1 when anything did.
"""

from __future__ import annotations

import argparse
import gc
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import msgspec

from holdfast.testing import arms
from holdfast.testing.arms import Outcome, Ran
from holdfast.testing.crash import CrashPlan, Point
from holdfast.testing.processes import Process, Tell
from holdfast.testing.site import Site

ARMS = ("kill", "parallel", "double", "second", "zombie")

MARGIN = 2
"""Points beyond the last boundary of a run without a crash: another run may need a few more."""

DOUBLES = 200
"""Pairs of points in the `double` arm: all of them would take hours."""

Run = Callable[[Site], Outcome]


class Job(msgspec.Struct, frozen=True):
    """One scenario to run."""

    name: str
    run: Run


def count_points(site: Site, concurrency: int) -> list[Point]:
    """Run the reference task once without a crash and return every point of it."""

    def dry(_: Tell) -> object:
        return arms.run_reference(site, CrashPlan(), concurrency=concurrency)

    with Process.fork(dry) as process:
        ran = msgspec.convert(process.result(), Ran)
    if ran.status != "succeeded":
        raise RuntimeError(f"The reference task doesn't even succeed without a crash: {ran}")
    site.clear()
    return [
        Point(kind, number, side)
        for kind in ("commit", "effect")
        for number in range(1, ran.counts[kind] + 1 + (MARGIN if kind == "commit" else 0))
        for side in ("before", "after")
    ]


def jobs_of(
    arm: str, one_by_one: Sequence[Point], together: Sequence[Point], chance: random.Random
) -> list[Job]:
    """Return the scenarios of an arm.

    Args:
        arm: one of `ARMS`.
        one_by_one: the points of a run that executes one item at a time.
        together: those of a run that executes several.
        chance: draws the pairs of the `double` arm.
    """
    match arm:
        case "kill":
            return [Job(arm, partial(_kill_alone, point=point)) for point in one_by_one]
        case "parallel":
            return [Job(arm, partial(arms.kill, point=point)) for point in together]
        case "double":
            pairs = [(chance.choice(together), chance.choice(together)) for _ in range(DOUBLES)]
            return [Job(arm, partial(arms.double, point=a, then=b)) for a, b in pairs]
        case "second":
            return [Job(arm, partial(arms.second, point=point)) for point in together]
        case _:
            return [Job(arm, partial(arms.zombie, point=point)) for point in together]


def _kill_alone(site: Site, point: Point) -> Outcome:
    return arms.kill(site, point, concurrency=1)


def run_jobs(
    root: Path,
    jobs: Sequence[Job],
    workers: int,
    report: Callable[[Outcome], None],
    db: str | None = None,
) -> list[Outcome]:
    """Run scenarios, some side by side; each is reported as it ends."""
    outcomes: list[Outcome] = []
    shards = [
        Process.fork(partial(_run_shard, root, jobs, number, workers, db), lifetime=3600)
        for number in range(min(workers, len(jobs)))
    ]
    seen = [0] * len(shards)
    try:
        running = True
        while running:
            running = any(shard.pause() is None for shard in shards)
            for number, shard in enumerate(shards):
                for message in shard.messages[seen[number] :]:
                    if isinstance(message, dict):
                        outcomes.append(msgspec.convert(message, Outcome))
                        report(outcomes[-1])
                seen[number] = len(shard.messages)
        for shard in shards:
            shard.result()
    finally:
        for shard in shards:
            shard.kill()
    return outcomes


def _run_shard(  # noqa: PLR0917  bound one by one, but for the last
    root: Path, jobs: Sequence[Job], number: int, workers: int, db: str | None, tell: Tell
) -> None:
    for index in range(number, len(jobs), workers):
        site = Site.at(root / f"{jobs[index].name}-{index}", db)
        try:
            outcome = jobs[index].run(site)
        except (RuntimeError, TimeoutError) as error:  # a process that ended otherwise than it may
            outcome = Outcome(
                jobs[index].name, str(jobs[index].run), violations=[f"ended: {error}"]
            )
        if not outcome.violations:
            site.clear()
        tell(outcome)


class Summary(msgspec.Struct):
    """The campaign in figures: points reached, and what went wrong in how many of them."""

    points: int = 0
    unreached: int = 0
    lost: int = 0
    repeated: int = 0
    other: int = 0
    doubts: int = 0
    unreported: int = 0
    failures: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        """Count one scenario."""
        self.points += outcome.reached
        self.unreached += not outcome.reached
        self.doubts += outcome.doubts
        kinds = {text.partition(":")[0] for text in outcome.violations}
        self.unreported += "doubt" in kinds
        self.lost += "lost" in kinds
        self.repeated += bool(kinds & {"repeated", "paid again"})
        self.other += bool(kinds - {"lost", "repeated", "paid again"})
        if outcome.violations:
            self.failures.append(outcome)

    def line(self) -> str:
        """Return the figures as one line."""
        return (
            f"{self.points} points: {self.lost} lost, {self.repeated} repeated, {self.other} other "
            f"violations; {self.doubts} doubtful calls, {self.unreported or 'none'} unreported"
            + (f"; {self.unreached} points beyond the end" if self.unreached else "")
        )


def campaign(options: Options, say: Callable[[str], None] = print) -> Summary:
    """Run the campaign and return its figures."""
    root = Path(options.keep or tempfile.mkdtemp(prefix="holdfast-crash-"))
    chance = random.Random(options.seed)  # noqa: S311  draws a sample; nothing secret
    total = Summary()
    try:
        one_by_one, together = (
            count_points(Site.at(root / f"dry-{number}", options.db), number) for number in (1, 10)
        )
        if options.commits:
            one_by_one, together = (
                [point for point in points if point.kind == "commit"]
                for points in (one_by_one, together)
            )
        say(
            f"The reference task has {len(one_by_one)} points; {len(together)} with items together."
        )
        for arm in options.arms:
            jobs = jobs_of(arm, one_by_one, together, chance)
            if options.sample and options.sample < len(jobs):
                jobs = chance.sample(jobs, options.sample)
            jobs = jobs[options.shard :: options.shards]
            summary = Summary()

            def report(outcome: Outcome, summary: Summary = summary) -> None:
                summary.add(outcome)
                total.add(outcome)
                for text in outcome.violations:
                    say(f"  VIOLATION {outcome.arm}, {outcome.point} ({outcome.label}): {text}")

            run_jobs(root, jobs, options.jobs, report, options.db)
            say(f"{arm:9} {summary.line()}")
    finally:
        if not total.failures and not options.keep:
            shutil.rmtree(root)
    say(f"{'all':9} {total.line()}")
    if total.failures:
        say(f"What the violations left behind is in {root}")
    return total


class Options(msgspec.Struct, frozen=True):
    """How much of the campaign to run.

    Args:
        arms: some of `ARMS`.
        sample: scenarios an arm, drawn at random; all when 0.
        seed: of the drawing.
        jobs: scenarios side by side.
        shard: run only this part of every arm, of
        shards: so many.
        commits: leave out the boundaries of effects, which are the same on every database.
        keep: directory to work in and to leave as it is; a temporary one when None.
        db: URL of a PostgreSQL database to work on, a schema for each scenario; files when None.
    """

    arms: tuple[str, ...] = ARMS
    sample: int = 0
    seed: int = 0
    jobs: int = 4
    shard: int = 0
    shards: int = 1
    commits: bool = False
    keep: str | None = None
    db: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.testing.campaign",
        description="Crash the reference task at every write boundary and check every promise.",
    )
    parser.add_argument("--arms", default=",".join(ARMS), help="some of " + ", ".join(ARMS))
    parser.add_argument("--sample", type=int, default=0, help="scenarios an arm; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=4, help="scenarios side by side")
    parser.add_argument("--shard", default="0/1", help="run part I of N: I/N")
    parser.add_argument("--commits", action="store_true", help="no crashes inside effects")
    parser.add_argument("--keep", help="directory to work in and to leave as it is")
    parser.add_argument("--db", help="postgresql://… to crash on; SQLite files by default")
    given = parser.parse_args(arguments)
    chosen = tuple(given.arms.split(","))
    if unknown := set(chosen) - set(ARMS):
        parser.error(f"no such arm: {', '.join(sorted(unknown))}. There are: {', '.join(ARMS)}")
    shard, _, shards = given.shard.partition("/")
    options = Options(
        chosen, given.sample, given.seed, given.jobs, int(shard), int(shards or 1), given.commits,
        given.keep, given.db,
    )  # fmt: skip
    if given.db:
        import_module("holdfast.store.postgres")  # once, and not in every child
    gc.freeze()  # children share what is imported; their collector would copy it page by page
    return 1 if campaign(options, _say).failures else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

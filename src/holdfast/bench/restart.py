"""Restarts: from the start of a new process to its first new step."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO

import msgspec

from holdfast.bench.child import CHECKPOINT_EVERY
from holdfast.bench.figures import Bench, Figure, figure
from holdfast.bench.sites import Place
from holdfast.bench.steps import work
from holdfast.context import Context
from holdfast.errors import HoldfastError
from holdfast.runner import TaskRunner

LONG = 10_000
MEGABYTE = 1024 * 1024


class Restart(msgspec.Struct, frozen=True):
    """One restart. `seconds` from its spawn, `imported` of them until everything was imported.

    `memory` is the peak of the process in bytes.
    """

    seconds: float
    imported: float
    memory: int


@contextmanager
def child(program: str, place: Place, count: int) -> Generator[IO[str]]:
    """Start a program of `holdfast.bench.child`, give its output, and kill it in the end."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "holdfast.bench.child", program]
    command += [place.url, str(place.directory), str(count)]
    process = subprocess.Popen(  # noqa: S603  our own interpreter and module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None  # noqa: S101  asked for above
    try:
        yield process.stdout
    finally:
        process.kill()
        process.communicate()


def expect(lines: IO[str], word: str) -> list[str]:
    """Return the words of the next line, which begins with `word`.

    Raises:
        HoldfastError: the program said something else, or ended.
    """
    words = lines.readline().split()
    if words[:1] != [word]:
        message = f"A benchmark's process said {' '.join(words)!r} instead of {word!r}."
        raise HoldfastError(message)
    return words


def run_until_last_step(place: Place, program: str, count: int) -> Restart:
    """Run a task in a process of its own until its last step begins, and kill it there."""
    started = time.perf_counter()
    with child(program, place, count) as lines:
        expect(lines, "imported")
        imported = time.perf_counter() - started
        memory = expect(lines, "reached")[1]
        return Restart(time.perf_counter() - started, imported, int(memory))


def restarts(bench: Bench, place: Place, program: str, count: int) -> list[Restart]:
    """Leave a task at its last step, then start a process that goes on, once a round.

    Each round starts from the database as the first kill left it.
    """
    run_until_last_step(place, program, count)
    copies = (bench.site.copy(place) for _ in range(bench.rounds))
    return [run_until_last_step(copy, program, count) for copy in copies]


def restart(bench: Bench) -> list[Figure]:
    """Measure restarts after more and more steps, with `restore` and replaying everything."""
    figures: list[Figure] = []
    for program, how in (
        ("restoring", f"with restore (a checkpoint every {CHECKPOINT_EVERY} steps)"),
        ("replaying", "replaying all"),
    ):
        for full in (100, 1000, LONG):
            count = bench.size(full)
            bench.tell(f"restart after {count:,} steps, {how}")
            found = restarts(bench, bench.place(), program, count)
            aim = 0.35 if program == "restoring" else 1.0
            peers = "Absurd 0.56 s + lease" if full == LONG else ""
            figures.append(
                figure(
                    "restart", f"first new step after {count:,}, {how}", "s",
                    [each.seconds for each in found],
                    at_most=aim, peers=peers,
                )
            )  # fmt: skip
            memory = [each.memory / MEGABYTE for each in found]
            figures.append(figure("restart", "… and its memory", "MB", memory))
    figures.append(figure("restart", "… of each: until imported", "s", [r.imported for r in found]))
    return figures


def history(bench: Bench) -> list[Figure]:
    """Measure what finished tasks in the database cost a restart: time and memory."""
    figures: list[Figure] = []
    for full in (0, 5_000):
        finished = full and bench.size(full)
        bench.tell(f"restart beside {finished:,} finished tasks")
        place = bench.place()
        if finished:
            asyncio.run(finish_tasks(place, finished))
        found = restarts(bench, place, "restoring", 100)
        what = f"restart beside {finished:,} finished tasks"
        figures += [
            figure("history", f"{what}: time", "s", [each.seconds for each in found]),
            figure("history", f"{what}: memory", "MB", [r.memory / MEGABYTE for r in found]),
        ]
    return figures


async def finish_tasks(place: Place, count: int) -> None:
    """Run tasks of two steps to their end."""
    runner = TaskRunner(place.url, workspace=str(place.directory))

    @runner.task
    async def done(ctx: Context, name: int) -> int:
        await ctx.step(work, 1)
        await ctx.step(work, 2)
        return name

    worker = runner.new_worker(concurrency=100)
    await worker.start()
    handles = await asyncio.gather(*(runner.asubmit(done, name=n) for n in range(count)))
    for handle in handles:
        await handle.result()
    await worker.stop()
    runner.close()

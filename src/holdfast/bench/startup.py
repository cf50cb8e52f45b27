"""Starting up: importing, and the first task of a new process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from holdfast.bench.figures import Bench, Figure, figure
from holdfast.bench.restart import child, expect
from holdfast.bench.sites import Place


def run_python(statement: str) -> float:
    """Run a statement in a new interpreter; return the seconds until it ended."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)  # noqa: S603
    return time.perf_counter() - started


def first_task(place: Place, number: int) -> float:
    """Return the seconds from the start of a process to the result of its first task."""
    started = time.perf_counter()
    with child("first", place, number) as lines:
        expect(lines, "imported")
        expect(lines, "finished")
        return time.perf_counter() - started


def startup(bench: Bench) -> list[Figure]:
    """Measure importing and first tasks, each in new processes."""
    run_python("import holdfast")  # writes the bytecode where it is missing
    bare: list[float] = []
    whole: list[float] = []
    empty: list[float] = []
    existing: list[float] = []
    for _ in range(bench.rounds):
        bare.append(run_python("pass"))
        whole.append(run_python("import holdfast"))
        place = bench.place()
        empty.append(first_task(place, 1))
        existing.append(first_task(place, 2))
    peers = ("Absurd 0.31 s", "Absurd 0.35 s", "Absurd 0.32 s")
    return [
        figure("startup", "python, importing nothing", "s", bare),
        figure("startup", "python -c 'import holdfast'", "s", whole, at_most=0.12, peers=peers[0]),
        figure("startup", "first task, empty store", "s", empty, at_most=0.25, peers=peers[1]),
        figure("startup", "first task, store exists", "s", existing, at_most=0.25, peers=peers[2]),
    ]

"""Lets writes and syncs fail under the reference task, and looks at what was acknowledged.

`python tests/support/io_faults.py --fault error --sample 0` makes each of them fail in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random

import apsw
import msgspec
from faulty_disk import Disk
from faulty_store import DATABASE, LEASE, RecordedEngine, RecordedWorld, Recording, settle

from holdfast import errors, execution
from holdfast.clock import SystemClock
from holdfast.states import FINAL_TASK, TaskStatus
from holdfast.store import Store, verbs
from holdfast.testing.checker import check, check_not_repeated, take_snapshot
from holdfast.testing.reference import KEY, Reference

CUTS = 6
"""Power cuts in what a run with faults has written: nothing may be acknowledged by mistake."""

AFTER = 6
"""Acknowledged commits after each failure that the power is cut right behind."""

FULL_FOR = 0.3
"""Seconds a full disk stays full."""

BURST = 5
"""Calls in a row that fail."""

PATIENCE = 30.0
"""Seconds after which a task that doesn't end counts as stuck."""


class Faults:
    """Which writes and syncs fail, counted from `arm` on.

    Args:
        kind: `error` (one call: EIO), `sync` (one sync: EIO, and what it was to make durable never
            will be), `burst` (several calls: EIO), or `full` (every write for a while: ENOSPC).
        number: the call it begins with; None never.
    """

    def __init__(self, kind: str, number: int | None) -> None:
        self._kind = kind
        self._number = number
        self._lock = threading.Lock()
        self._until = 0.0
        self.armed = False
        self.seen = 0
        self.failed = 0

    def __call__(self, what: str, name: str) -> None:
        with self._lock:
            if not self.armed or (self._kind == "sync" and what != "sync"):
                return
            self.seen += 1
            if self._number is None or self.seen < self._number:
                return
            if not self._fails(what):
                return
            self.failed += 1
        if self._kind == "full":
            message = f"no space for {name}"
            raise apsw.FullError(message)
        message = f"{what} of {name} failed"
        raise apsw.IOError(message)

    def _fails(self, what: str) -> bool:
        if self._kind == "full":
            self._until = self._until or time.monotonic() + FULL_FOR
            return what == "write" and time.monotonic() < self._until
        return self.failed < (BURST if self._kind == "burst" else 1)


class CarelessEngine(RecordedEngine):
    """Takes a COMMIT that failed for one that went well. The campaign has to notice."""

    def commit(self) -> None:
        try:
            super().commit()
        except errors.StoreError:
            self.rollback()
            self.commits[-1].acknowledged = self.disk.now


class Ran(msgspec.Struct):
    """What one run gave."""

    seen: int = 0
    failed: int = 0
    refused: int = 0
    """Commits that were not acknowledged."""
    wrong: list[str] = []


async def until_settled(reference: Reference, faults: Faults, task_id: str) -> TaskStatus:
    """Run one worker, to which nobody comes to help, until the task has ended or is blocked."""
    worker = reference.runner.new_worker()
    await worker.start()
    faults.armed = True
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                status = reference.store.read(verbs.get_task(task_id)).status
                if status in FINAL_TASK or (status is TaskStatus.BLOCKED and not worker.busy):
                    return status
                await asyncio.sleep(0.01)
    finally:
        await worker.stop()


def run(
    root: Path, kind: str, number: int | None, random: Random, engine_type: type[RecordedEngine]
) -> Ran:
    """Run the task while something fails, then cut the power here and there in what was written."""
    for name in ("disk", "world"):
        (root / name).mkdir()
    faults = Faults(kind, number)
    disk = Disk(root / "disk", faults)
    world = RecordedWorld(root / "world", disk, 1)
    ran = Ran()
    engine = engine_type(disk)
    with Store(engine, SystemClock()) as store:
        reference = Reference(store, world, LEASE, 4)
        task_id = reference.runner.options(key=KEY).submit(reference.whole, "tides").task_id
        try:
            status = asyncio.run(until_settled(reference, faults, task_id))
            while status is TaskStatus.BLOCKED:
                ran.wrong += settle(
                    store, world, str(root / "disk" / DATABASE), needs_of(reference, task_id)
                )
                status = asyncio.run(until_settled(reference, faults, task_id))
        except TimeoutError:
            items = store.read(verbs.list_items(task_id))
            ran.wrong.append(f"stuck: {[(i.item_id, i.status, i.error) for i in items]}")
        faults.armed = False
    disk.close()
    ran.seen, ran.failed = faults.seen, faults.failed
    ran.refused = sum(c.acknowledged is None for c in engine.commits[1:])
    ran.wrong += check_not_repeated(world)
    # A commit that failed may cost several branches an answer each, unlike a crash of one.
    ran.wrong += [
        text
        for text in check(world, take_snapshot(f"sqlite:///{root / 'disk' / DATABASE}"), [1])
        if not text.startswith("paid in vain")
    ]
    recording = Recording(disk, world, engine.commits)
    ran.wrong += cut_here_and_there(recording, root, random)
    return ran


def needs_of(reference: Reference, task_id: str) -> list[str]:
    task = reference.store.read(verbs.get_task(task_id))
    try:
        reference.runner.outcome(task)
    except errors.TaskBlockedError as blocked:
        return blocked.needs
    return []


def cut_here_and_there(recording: Recording, root: Path, random: Random) -> list[str]:
    wrong: list[str] = []
    acknowledged = [c.acknowledged for c in recording.commits if c.acknowledged is not None]
    moments = random.choices(recording.moments(random, 0), k=CUTS)
    for number, change in enumerate(recording.disk.changes):
        if change.what.startswith("failed"):
            # Here it would show that something was acknowledged which isn't there.
            moments += [moment for moment in acknowledged if moment > number][:AFTER]
    for moment in sorted({*moments, recording.disk.now}):
        at = Path(tempfile.mkdtemp(dir=root))
        (at / "disk").mkdir()
        recording.disk.cut(moment, random, at / "disk")
        wrong += recording.wrong_at(moment, at / "disk")
        shutil.rmtree(at)
    return wrong


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--fault", default="error", choices=("error", "sync", "burst", "full"))
    options.add_argument("--sample", type=int, default=20, help="points; 0 for all of them")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--careless", action="store_true", help="the control: must fail")
    given = options.parse_args()
    engine = CarelessEngine if given.careless else RecordedEngine
    execution.OUTAGE_PAUSE = 0.05  # these outages are short, and there are many
    logging.disable(logging.CRITICAL)  # what fails is told by the hundred
    random = Random(given.seed)  # noqa: S311  the same each time
    with tempfile.TemporaryDirectory() as folder:
        dry = Path(folder, "dry")
        dry.mkdir()
        every = range(1, run(dry, given.fault, None, random, engine).seen + 1)
        points = (
            sorted(random.sample(every, min(given.sample, len(every))))
            if given.sample
            else list(every)
        )
        done: list[Ran] = []
        for point in points:
            at = Path(folder, str(point))
            at.mkdir()
            done.append(run(at, given.fault, point, random, engine))
            for text in done[-1].wrong:
                sys.stdout.write(f"at {point}: {text}\n")
            shutil.rmtree(at)
            if given.careless and done[-1].wrong:
                break  # it was noticed
    total = Counter(failed=sum(r.failed for r in done), refused=sum(r.refused for r in done))
    wrong = [text for each in done for text in each.wrong]
    sys.stdout.write(
        f"{given.fault}: {len(done)} of {len(every)} points, {total['failed']} failed calls, "
        f"{total['refused']} commits not acknowledged: "
        f"{sum(text.startswith('lost') for text in wrong)} lost, {len(wrong)} violations\n"
    )


if __name__ == "__main__":
    main()

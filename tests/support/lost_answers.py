"""Cuts the connection to PostgreSQL at each write of the reference task, in every way.

`python tests/support/lost_answers.py --sample 0` does so at each of them.

- `deliver`: COMMIT arrives, its answer doesn't. The task goes on as if nothing had happened.
- `drop`: COMMIT never arrives.
- `late`: COMMIT arrives after the connection was given up.
- `held`: as `deliver`, while a synchronous standby keeps the commit waiting; it is back soon enough
  for the question what became of the commit to be answered.
- `lasting`: the same, and it isn't.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.proxy import DELAY, DELIVER, DROP, Proxy

from holdfast import errors, operations
from holdfast.needs import find_needs
from holdfast.states import FINAL_TASK, TaskStatus
from holdfast.store import verbs
from holdfast.testing import CrashPlan, Point, PostgresServer, open_with_plan
from holdfast.testing.checker import check, check_not_repeated, take_snapshot
from holdfast.testing.reference import KEY, Reference
from holdfast.testing.site import Site
from holdfast.testing.world import OUTBOX, World

FAULTS = {"deliver": DELIVER, "drop": DROP, "late": DELAY, "held": DELIVER, "lasting": DELIVER}

COMMITTING = (b"commit\0", b"COMMIT", b"engine.append")
"""What the bytes hold that a transaction is committed with."""

LEASE = 6.0
DEADLINE = 2.0

LATE = 0.4
"""Seconds after the cut at which a delayed COMMIT arrives."""

BACK = {"held": 0.8, "lasting": 3.5}
"""Seconds after which the standby goes on."""

PATIENCE = 45.0
"""Seconds after which a task that doesn't end counts as stuck."""


class Ran(msgspec.Struct):
    """What one run gave."""

    cut: bool = False
    label: str = ""
    ended: int = 0
    """Attempts that the database's failure ended."""
    doubts: int = 0
    wrong: list[str] = []


class Trial:
    """One run of the reference task, through a proxy, with one cut.

    Args:
        fault: one of `FAULTS`.
        server: where the database is.
        standby: what holds its commits up, if anything does.
    """

    def __init__(self, fault: str, server: PostgresServer, standby: PostgresServer | None) -> None:
        self.fault = fault
        self._server = server
        self._standby = standby

    def run(self, root: Path, number: int | None) -> tuple[Ran, int]:
        """Cut at the commit of that number; return what came of it, and how many there were."""
        site = Site.at(root, self._server.url)
        proxy = Proxy(self._server.port)
        timers: list[threading.Timer] = []

        def cut() -> None:
            proxy.once(FAULTS[self.fault], *COMMITTING)
            if self.fault == "late":
                timers.append(threading.Timer(LATE, proxy.release))
            if self._standby is not None:
                self._standby.freeze()
                timers.append(threading.Timer(BACK[self.fault], self._standby.thaw))
            for timer in timers:
                timer.start()

        plan = CrashPlan(number and Point("commit", number, "before"), cut)
        url = site.url.replace(f":{self._server.port}/", f":{proxy.port}/")
        try:
            ran = asyncio.run(_run(f"{url}&listen=off", site, plan))
        finally:
            for timer in timers:
                timer.join()
            proxy.close()
        ran.cut = bool(proxy.hits)
        commits = [label for label in plan.labels if label.startswith("commit")]
        ran.label = commits[number - 1] if number and plan.reached else ""
        self._check(ran, site)
        if not ran.wrong:
            site.clear()
        return ran, plan.counts["commit"]

    def _check(self, ran: Ran, site: Site) -> None:
        world, snapshot = World(site.root), take_snapshot(site.url)
        settled = self.fault in {"deliver", "held"}
        # What was kept and found to be kept costs nobody anything.
        wrong = check(world, snapshot, [] if settled else [_pid(world)])
        # An attempt that is ended may cost several branches an answer each, unlike a crash of one.
        ran.wrong += [text for text in wrong if settled or not text.startswith("paid in vain")]
        if settled and (ran.doubts or ran.ended):
            ran.wrong.append(f"kept, but {ran.doubts} doubts and {ran.ended} attempts ended")


def _pid(world: World) -> int:
    return next(line["pid"] for line in world.lines(OUTBOX))


async def _run(url: str, site: Site, plan: CrashPlan) -> Ran:
    """Run the task to its end with one worker, to which nobody comes to help."""
    ran, world = Ran(), World(site.root, plan)
    store, _ = open_with_plan(url, plan, deadline=DEADLINE)
    try:
        reference = Reference(store, world, LEASE, 10)
        task_id = await _submitted(reference)
        worker = reference.runner.new_worker()
        await _patiently(worker.start)
        try:
            async with asyncio.timeout(PATIENCE):
                while (status := await _settled(reference, worker, task_id)) is TaskStatus.BLOCKED:
                    ran.doubts += await _resolve(reference, world, site, task_id)
        except TimeoutError:
            items = store.read(verbs.list_items(task_id))
            ran.wrong.append(f"stuck: {[(i.item_id, i.status, i.error) for i in items]}")
        else:
            ran.wrong += [] if status is TaskStatus.SUCCEEDED else [f"stuck: the task is {status}"]
        finally:
            await worker.stop()
        events = store.read(verbs.list_events(task_id))
        ran.ended = sum(event.type == "handed_back" for event in events)
        ran.wrong += check_not_repeated(world)
    finally:
        await asyncio.to_thread(store.close)
    return ran


async def _patiently(call: Any) -> Any:
    """Do what a program does that the database failed: the same again."""
    for _ in range(5):
        try:
            return await call()
        except errors.StoreUnavailableError:
            await asyncio.sleep(0.2)
    return await call()


async def _submitted(reference: Reference) -> str:
    async def submit() -> Any:
        return await reference.runner.options(key=KEY).asubmit(reference.whole, "tides")

    return (await _patiently(submit)).task_id


async def _settled(reference: Reference, worker: Any, task_id: str) -> TaskStatus:
    while True:
        status = reference.store.read(verbs.get_task(task_id)).status
        if status in FINAL_TASK or (status is TaskStatus.BLOCKED and not worker.busy):
            return status
        await asyncio.sleep(0.02)


async def _resolve(reference: Reference, world: World, site: Site, task_id: str) -> int:
    """Settle what is in doubt by the outbox, as a person would."""
    needs = find_needs(reference.store, task_id)
    snapshot = await asyncio.to_thread(take_snapshot, site.url)
    calls = {call.entry: call for call in snapshot.calls}
    sent = {line["key"] for line in world.lines(OUTBOX)}
    for need in needs:
        call = calls[need.entry]
        kind, _, name = call.what.partition(":")
        value = f"{'sent to' if kind == 'letter' else 'posted'} {name}"
        how = "done" if call.key in sent else "retry"

        async def resolve(entry: str = call.entry, how: str = how, value: str = value) -> None:
            await operations.resolve(reference.store, entry, how, value)

        await _patiently(resolve)
    return len(needs)


# -- all of them ----------------------------------------------------------------------------------


def campaign(root: Path, trial: Trial, sample: int, jobs: int, random: Random) -> str:
    """Cut at every commit, or at some, and return the figures as a line."""
    _, commits = trial.run(root / "dry", None)
    numbers = list(range(1, commits + 1))
    if sample:
        numbers = sorted(random.sample(numbers, min(sample, commits)))
    with ThreadPoolExecutor(jobs) as pool:
        ran = list(pool.map(lambda n: trial.run(root / str(n), n)[0], numbers))
    total: Counter[str] = Counter()
    for number, each in zip(numbers, ran, strict=True):
        total["cut"] += each.cut
        total["ended"] += each.ended
        total["doubts"] += each.doubts
        total["wrong"] += len(each.wrong)
        for text in each.wrong:
            sys.stdout.write(f"  VIOLATION {trial.fault}, commit {number} ({each.label}): {text}\n")
    return (
        f"{trial.fault}: {total['cut']} of {commits} commits cut, {total['ended']} attempts ended, "
        f"{total['doubts']} doubts, {total['wrong']} violations"
    )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--fault", action="append", choices=tuple(FAULTS))
    options.add_argument("--sample", type=int, default=6)
    options.add_argument("--jobs", type=int, default=6)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    random = Random(given.seed)  # noqa: S311  the same each time
    faults = given.fault or list(FAULTS)
    with PostgresServer() as server, ExitStack() as stack:
        standby = None
        for fault in sorted(faults, key=BACK.__contains__):
            jobs = given.jobs
            if fault in BACK:
                standby = standby or stack.enter_context(server.standby())
                jobs = 1  # there is one standby to hold up
            with tempfile.TemporaryDirectory() as folder:
                trial = Trial(fault, server, standby)
                line = campaign(Path(folder), trial, given.sample, jobs, random)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

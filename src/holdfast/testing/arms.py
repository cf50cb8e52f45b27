"""The arms of the campaign: what happens to a process at a point, and what must come of it.

- `kill`: the process is killed there; another goes on. With several items at a time (`parallel`)
  commits share transactions; with one at a time each stands alone.
- `double`: the one that goes on is killed, too.
- `second`: a second worker runs on the same database all the while.
- `zombie`: the process is stopped there. Another takes over and finishes; then the first one goes
  on, and everything it still tries to write must be refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from holdfast import errors, operations
from holdfast.store import open_store
from holdfast.testing.checker import (
    Snapshot,
    check,
    check_not_repeated,
    count_refused,
    take_snapshot,
)
from holdfast.testing.crash import Action, CrashPlan, Point, open_with_plan
from holdfast.testing.processes import Process, Tell
from holdfast.testing.reference import Reference
from holdfast.testing.site import Site
from holdfast.testing.world import OUTBOX, PROVIDER, RECORDS, World

LEASE = 30.0
"""Seconds. A killed process is seen by its lock, so the length doesn't matter."""

SHORT_LEASE = 0.5
"""Seconds, where a stopped process has to lose its lease by time."""

SHORT_LEASE_REMOTE = 1.2
"""The same where that is the server's time, and a third of it is the deadline of every call."""

ROUNDS = 6
"""Times a task is run on before it counts as stuck; each may end in doubt once more."""


class Outcome(msgspec.Struct):
    """What one scenario gave."""

    arm: str
    point: str
    reached: bool = False
    label: str = ""
    doubts: int = 0
    violations: list[str] = []


class Ran(msgspec.Struct, frozen=True):
    """How one run of the reference task ended in a process that lived to tell."""

    status: str
    result: Any = None
    needs: list[str] = []
    accepted: int = 0
    refused: int = 0
    counts: dict[str, int] = {}


def run_reference(site: Site, plan: CrashPlan, lease: float = LEASE, concurrency: int = 10) -> Ran:
    """Run the reference task in this process, or go on with it."""
    deadline = min(5.0, lease / 3)
    try:
        store, engine = open_with_plan(site.url, plan, deadline=deadline)
    except errors.StoreError as error:
        return Ran("locked out", str(error))
    status, result, needs = "succeeded", None, list[str]()
    try:
        result = Reference(store, World(site.root, plan), lease, concurrency).run()
    except errors.TaskBlockedError as blocked:
        status, needs = "blocked", list(blocked.needs)
    except errors.StoreUnavailableError as error:
        status, result = "locked out", str(error)
    try:
        store.close()
    except errors.StoreError as error:
        status, result = "locked out", str(error)
    return Ran(status, result, needs, engine.accepted, engine.refused, dict(plan.counts))


class Scenario:
    """One database and one world, and the processes that work on them.

    Args:
        site: an empty directory and a new database.
        arm: for the report.
        point: where the first process crashes.
        lease: seconds.
        concurrency: items at a time in the process that crashes.
    """

    def __init__(
        self, site: Site, arm: str, point: Point, lease: float = LEASE, concurrency: int = 10
    ) -> None:
        self.site = site
        self.world = World(site.root)
        self.outcome = Outcome(arm, str(point))
        self.crashed: set[int] = set()
        self._lease = lease
        self._concurrency = concurrency
        self._log = site.root / "log"
        self._results: list[Any] = []

    def start(self, point: Point | None, action: Action = "kill") -> Process:
        """Start a process that runs the task, and crashes at a point if one is given."""

        def run(tell: Tell) -> object:
            plan = CrashPlan(point, action, tell)
            return run_reference(self.site, plan, self._lease, self._concurrency)

        return Process.fork(run, self._log)

    def crash(self, process: Process, how: str) -> bool:
        """Wait until a process has crashed; False when it never came to its point."""
        ended = process.wait()
        if ended.how == how:
            self.crashed.add(process.pid)
            self.outcome.reached = True
            self.outcome.label = str(process.messages[0])
            return True
        self.wrong_unless(
            ended.how == "exited" and ended.number == 0, f"{ended}: {process.messages}"
        )
        return False

    def in_child(self, function: Callable[[], object]) -> Any:  # noqa: ANN401  plain data
        """Run something on the database in a process of its own, and return what it gave."""
        with Process.fork(lambda _: function(), self._log) as process:
            return process.result()

    def snapshot(self) -> Snapshot:
        """Read the database in a process of its own."""
        return msgspec.convert(self.in_child(lambda: take_snapshot(self.site.url)), Snapshot)

    def refused(self) -> int:
        """Return how many refused writes the timelines tell of."""
        return self.in_child(lambda: count_refused(self.site.url))

    def wrong_unless(self, condition: object, text: str) -> None:
        """Note a violation unless the condition holds."""
        if not condition:
            self.outcome.violations.append(text)

    def finish(self) -> None:
        """Run the task on until it has succeeded, settling what is in doubt as a person would."""
        for _ in range(ROUNDS):
            with self.start(None) as process:
                ran = self.ended(process)
            if ran.status == "succeeded":
                return
            self.settle(ran)
        self.wrong_unless(False, f"stuck: {self.snapshot().items}")  # noqa: FBT003

    def ended(self, process: Process) -> Ran:
        """Wait for a process that isn't to crash, and return what it says."""
        ran = msgspec.convert(process.result(), Ran)
        if ran.status == "succeeded":
            self._results.append(ran.result)
            self.wrong_unless(ran.result == self._results[0], f"lost: results {self._results}")
        self.outcome.violations += check_not_repeated(self.world)
        return ran

    def settle(self, ran: Ran) -> None:
        """Check that exactly what is in doubt was reported, and settle it by the outbox."""
        if ran.status != "blocked":
            return
        reported = {need.split()[2].rstrip(":") for need in ran.needs if " resolve " in need}
        snapshot = self.snapshot()
        self.wrong_unless(
            reported == snapshot.doubts() and len(reported) == len(ran.needs),
            f"doubt: reported {ran.needs}, the journal has {sorted(snapshot.doubts())}",
        )
        self.outcome.doubts += len(reported)
        sent = {line["key"] for line in self.world.lines(OUTBOX)}
        for call in snapshot.calls:
            if call.entry in reported:
                self.in_child(
                    lambda call=call: self._resolve(call.entry, call.what, call.key in sent)
                )

    def _resolve(self, entry: str, what: str, happened: bool) -> None:  # noqa: FBT001
        kind, _, name = what.partition(":")
        value = f"{'sent to' if kind == 'letter' else 'posted'} {name}"
        store = open_store(self.site.url)
        try:
            call = operations.resolve(store, entry, "done" if happened else "retry", value)
            asyncio.run(call)
        finally:
            store.close()

    def check(self) -> Outcome:
        """Compare everything with what is due, now that the task has ended."""
        self.outcome.violations += check(self.world, self.snapshot(), self.crashed)
        return self.outcome


# -- the arms -------------------------------------------------------------------------------------


def kill(site: Site, point: Point, concurrency: int = 10) -> Outcome:
    """Kill a process at the point; another one goes on."""
    scenario = Scenario(
        site, "kill" if concurrency == 1 else "parallel", point, concurrency=concurrency
    )
    with scenario.start(point) as first:
        scenario.crash(first, "killed")
    scenario.finish()
    return scenario.check()


def double(site: Site, point: Point, then: Point) -> Outcome:
    """Kill a process at one point, and the one that goes on at another."""
    scenario = Scenario(site, "double", point)
    scenario.outcome.point = f"{point}, then {then}"
    for each in (point, then):
        with scenario.start(each) as process:
            if not scenario.crash(process, "killed"):
                scenario.settle(scenario.ended(process))
    scenario.finish()
    return scenario.check()


def second(site: Site, point: Point) -> Outcome:
    """Kill a process at the point while another one works on the same task."""
    scenario = Scenario(site, "second", point)
    with scenario.start(point) as first, scenario.start(None) as other:
        scenario.crash(first, "killed")
        scenario.settle(scenario.ended(other))
    scenario.finish()
    return scenario.check()


def zombie(site: Site, point: Point) -> Outcome:
    """Stop a process at the point, let another one take over, and let the first go on."""
    lease = SHORT_LEASE_REMOTE if site.is_remote else SHORT_LEASE
    scenario = Scenario(site, "zombie", point, lease=lease)
    with scenario.start(point, "stop") as first:
        if scenario.crash(first, "stopped"):
            if _can_be_taken_over(scenario, point):
                _take_over_and_continue(scenario, first)
            else:
                _continue_beside(scenario, first, point)
    scenario.finish()
    return scenario.check()


def _can_be_taken_over(scenario: Scenario, point: Point) -> bool:
    """Say whether another process can finish the task while the first one is stopped.

    Stopped inside a transaction it holds locks. A server ends that transaction for whoever takes
    over from the worker; what is no worker yet, and SQLite's write lock, nobody can take over.
    """
    if point.kind == "effect":
        return False
    registering = scenario.outcome.label.partition("(")[2].startswith(("task.put", "worker.put"))
    return point.side == "after" or (scenario.site.is_remote and not registering)


def _take_over_and_continue(scenario: Scenario, first: Process) -> None:
    """Let another process finish the task: the first one may then do nothing to the world."""
    before = scenario.refused()
    scenario.finish()
    world = _traces(scenario, first)
    first.resume()
    ran = scenario.ended(first)
    did = sorted((_traces(scenario, first) - world).elements())
    scenario.wrong_unless(not did, f"zombie: it still did {did}")
    scenario.wrong_unless(
        not ran.accepted, f"zombie: {ran.accepted} of its writes were accepted after the takeover"
    )
    events = scenario.refused() - before
    scenario.wrong_unless(
        events == ran.refused, f"zombie: {ran.refused} writes refused, {events} events"
    )


def _continue_beside(scenario: Scenario, first: Process, point: Point) -> None:
    """Let the first process go on while another one tries.

    Stopped inside a transaction it holds a lock, and nobody can write past it; stopped inside an
    effect, nobody knows whether it will still happen. What must hold: nobody else does it.
    """
    with scenario.start(None) as other:
        locked = point.kind == "commit"
        if locked:
            with suppress(TimeoutError):
                other.wait(1.5)
        else:
            scenario.wrong_unless(
                scenario.ended(other).status != "succeeded" or _may_be_settled(point, scenario),
                f"doubt: the task succeeded while {scenario.outcome.label} was under way",
            )
        first.resume()
        ran = scenario.ended(first)
        scenario.settle(scenario.ended(other) if locked else ran)


def _may_be_settled(point: Point, scenario: Scenario) -> bool:
    """Say whether others may know what became of the effect a process was stopped in.

    It isn't `once`; or it is a letter that was sent, which reconcile finds in the outbox.
    """
    label = scenario.outcome.label
    return not ("notice:" in label or ("letter:" in label and point.side == "before"))


def _traces(scenario: Scenario, process: Process) -> Counter[str]:
    """Return everything a process did to the world."""
    return Counter(
        f"{file}: {line['what']}"
        for file in (OUTBOX, RECORDS, PROVIDER)
        for line in scenario.world.lines(file)
        if line["pid"] == process.pid
    )

"""Servers and workers that die under load: `python -m holdfast.testing.failover`.

Three arms, each with real worker processes:

- `kill`: of a synchronous pair of PostgreSQL servers the primary is killed, the standby promoted,
  and the old one rebuilt as the new standby, again and again;
- `freeze`: the primary is stopped instead. The workers must stop by themselves before their leases
  are over. Its standby is promoted, and then the old one wakes and still takes itself for primary;
- `fleet`: four workers on one server are killed and stopped at random, and replaced.

It ends with a line for each arm, and exits with 1 when any promise was broken.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from holdfast.clock import SystemClock
from holdfast.testing.fleet import Fleet, Mail, until
from holdfast.testing.load import ACKNOWLEDGED, NOTICES, OUTBOX, PULSES, Load, Notes
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.trial import BATCH, Result, Trial

ARMS = ("kill", "freeze", "fleet")

PAIR = (
    "synchronous_standby_names=pair", "cluster_name=pair", "wal_keep_size=256MB",
    "wal_retrieve_retry_interval=200ms",
)  # fmt: skip
"""Settings of both servers: a commit is answered only once it is on the other one, too.

The name is what a standby calls itself. `*` would count a base backup that is being taken as one.
"""

_WORKERS = 4

_CLOCK = SystemClock()

Say = Callable[[str], object]


def kill(root: Path, rounds: int, seed: int, say: Say, workers: int = 3) -> Result:
    """Kill the primary of a pair and promote its standby, so many times."""
    chance = _drawn_from(seed)
    moments: list[float] = []
    with (
        PostgresServer(*PAIR) as first,
        PostgresServer(*PAIR, primary=first) as second,
        Trial(root, (first, second), 30.0, workers) as trial,
    ):
        primary, standby = first, second
        for number in range(rounds):
            trial.flows_after(_CLOCK.boottime())
            time.sleep(chance.uniform(0.2, 1.0))
            primary.kill()
            killed = _CLOCK.boottime()
            standby.promote()
            promoted = _CLOCK.boottime()
            primary.follow(standby)
            rebuilt = _CLOCK.boottime()
            primary, standby = standby, primary
            flows = trial.flows_after(rebuilt)
            moments.append(killed)
            say(
                f"kill {number + 1}: promoted after {promoted - killed:.1f} s, a standby again "
                f"after {rebuilt - killed:.1f} s, writes after {_CLOCK.boottime() - killed:.1f} s"
            )
            if not flows:
                break
        return trial.conclude("kill", moments)


def freeze(root: Path, rounds: int, seed: int, say: Say, workers: int = 2) -> Result:
    """Freeze the primary of a pair, promote its standby, and let the old one wake beside it."""
    chance = _drawn_from(seed)
    lease, moments, wrong = 4.0, list[float](), list[str]()
    with (
        PostgresServer(*PAIR) as first,
        PostgresServer(*PAIR, primary=first) as second,
        PostgresServer(*PAIR, primary=first) as third,
        Trial(root, (first, second, third), lease, workers) as trial,
    ):
        primary, standby, spare = first, second, third
        spare.kill()
        for number in range(rounds):
            trial.flows_after(_CLOCK.boottime())
            until(lambda: trial.last(PULSES) > _CLOCK.boottime() - 1)
            time.sleep(chance.uniform(0.2, 1.0))
            primary.freeze()
            frozen = _CLOCK.boottime()
            time.sleep(lease + 1)
            for file in (OUTBOX, ACKNOWLEDGED, PULSES):
                after = trial.last(file) - frozen
                if after > lease:
                    wrong.append(f"fence: {file} got a line {after:.1f} s after the freeze")
            stopped = max(trial.last(file) for file in (OUTBOX, PULSES)) - frozen
            standby.promote()
            spare.follow(standby)
            ready = _CLOCK.boottime()
            trial.flows_after(ready)
            again = _CLOCK.boottime()
            primary.thaw()  # it still takes itself for the primary, and is the first in the URL
            time.sleep(lease)
            if not trial.flows_after(_CLOCK.boottime()):
                wrong.append("stuck: nothing was acknowledged beside the old primary")
                break
            moments.append(frozen)
            say(
                f"freeze {number + 1}: everything stopped after {max(stopped, 0):.1f} s of a lease "
                f"of {lease:g} s, a new pair after {ready - frozen:.1f} s, writes after "
                f"{again - frozen:.1f} s, and beside the old primary"
            )
            primary.kill()
            primary, standby, spare = standby, spare, primary
        result = trial.conclude("freeze", moments)
    result.violations += wrong
    return result


def fleet(root: Path, items: int, hits: int, seed: int, url: str | None = None) -> Result:
    """Kill and stop workers of one server at random, and replace them.

    Args:
        root: where notes go.
        items: letters to send, whose calls can't be reconciled.
        hits: how many workers are killed or stopped.
        seed: draws which, when and how.
        url: the database; a server of its own when None.
    """
    lease, wrong = 2.0, list[str]()
    load = Load(Notes(root))
    mail = Mail(load)
    with ExitStack() as stack:
        url = url or stack.enter_context(PostgresServer()).url
        load.runner.use(url, lease=lease)
        stack.callback(load.runner.close)
        with Fleet(url, load.notes, lease) as workers:
            for _ in range(_WORKERS):
                workers.start()
            _hit(workers, mail, items=items, hits=hits, lease=lease, seed=seed)
            if not mail.wait():
                wrong.append("stuck: tasks neither end nor say what they need")
        account = mail.account()
        result = Result("fleet", hits, account=account, violations=account.violations)
        mail.settle()  # nobody is left who could send anything
        with Fleet(url, load.notes, lease) as workers:
            workers.start()
            if not mail.wait() or mail.unfinished():
                wrong.append(f"stuck: {len(mail.unfinished())} tasks after settling")
        if mail.unsent():
            wrong.append(f"lost: {mail.unsent()[:20]} aren't in the outbox once")
        wrong += mail.account().violations
    result.violations += wrong
    return result


def _hit(workers: Fleet, mail: Mail, *, items: int, hits: int, lease: float, seed: int) -> None:
    """Submit letters, and kill or stop a worker that is at them now and then."""
    chance = _drawn_from(seed)
    asleep: dict[int, float] = {}
    for part in (items * (number + 1) // hits for number in range(hits)):
        while mail.due < part:
            mail.submit(NOTICES, min(BATCH, part - mail.due))
        victim = _at_work(workers, mail, chance)
        if chance.random() < 0.5:  # noqa: PLR2004  as often as not
            workers.kill(victim)
        else:
            workers.stop(victim)
            asleep[victim.pid] = _CLOCK.boottime()
        for each in tuple(workers.stopped):
            if _CLOCK.boottime() - asleep[each.pid] > lease + 1:
                workers.resume(each)
        while len(workers.running) < _WORKERS:
            workers.start()
    for each in tuple(workers.stopped):
        time.sleep(max(0.0, asleep[each.pid] + lease + 1 - _CLOCK.boottime()))
        workers.resume(each)


def _at_work(workers: Fleet, mail: Mail, chance: random.Random) -> subprocess.Popen[bytes]:
    """Return a worker that has sent something just now."""
    since = _CLOCK.boottime()
    busy: list[subprocess.Popen[bytes]] = []

    def look() -> bool:
        pids = {line["pid"] for line in mail.notes.lines(OUTBOX) if line["at"] > since}
        busy[:] = [worker for worker in workers.running if worker.pid in pids]
        return bool(busy)

    until(look)
    time.sleep(chance.uniform(0.0, 0.05))
    return chance.choice(busy or workers.running)


def _drawn_from(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  draws victims and moments; nothing secret


# -- the command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the arms from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.testing.failover",
        description="Kill and freeze PostgreSQL servers and workers under load.",
    )
    parser.add_argument("--arms", default=",".join(ARMS), help="some of " + ", ".join(ARMS))
    parser.add_argument("--kills", type=int, default=20, help="of the primary")
    parser.add_argument("--freezes", type=int, default=5, help="of the primary")
    parser.add_argument("--items", type=int, default=2000, help="of the fleet")
    parser.add_argument("--hits", type=int, default=40, help="on its workers")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--keep", help="directory to leave the notes in")
    given = parser.parse_args(arguments)
    chosen = given.arms.split(",")
    if unknown := set(chosen) - set(ARMS):
        parser.error(f"no such arm: {', '.join(sorted(unknown))}. There are: {', '.join(ARMS)}")
    logging.getLogger("holdfast").addHandler(logging.NullHandler())  # the workers' logs are counted
    root = Path(given.keep or tempfile.mkdtemp(prefix="holdfast-failover-"))
    runs: dict[str, Callable[[Path], Result]] = {
        "kill": lambda folder: kill(folder, given.kills, given.seed, _say),
        "freeze": lambda folder: freeze(folder, given.freezes, given.seed, _say),
        "fleet": lambda folder: fleet(folder, given.items, given.hits, given.seed),
    }
    results: list[Result] = []
    for arm in ARMS:
        if arm in chosen:
            folder = root / arm
            folder.mkdir(parents=True)
            results.append(runs[arm](folder))
            for text in results[-1].violations:
                _say(f"  VIOLATION {arm}: {text}")
    for result in results:
        _say(f"{result.arm:9} {result.line()}")
    broken = any(result.violations for result in results)
    if broken:
        _say(f"What the violations left behind is in {root}")
    elif not given.keep:
        shutil.rmtree(root)
    return int(broken)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

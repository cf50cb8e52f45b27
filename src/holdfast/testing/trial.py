"""Workers under load on a pair of servers, and what their work came to."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from holdfast.testing.fleet import Account, Fleet, Mail, until
from holdfast.testing.load import ACKNOWLEDGED, LETTERS, SAID, Load, Notes
from holdfast.testing.postgres import PostgresServer

BATCH = 20
"""Letters a task sends."""

OPEN = 400
"""Letters under way at a time."""

_NEXT = "\n" + 10 * " "


class Result(msgspec.Struct):
    """What an arm gave.

    Args:
        arm: which.
        rounds: failures of a server, or of a worker.
        gaps: seconds without an acknowledged write, for each failure of a server.
        kept: commits whose answer was lost and that were found to be kept.
        undone: those that were found not to be.
        unsettled: attempts that ended because that couldn't be found out.
        fenced: workers that stopped what they ran because they couldn't renew.
        helped: tasks that needed a person.
        account: what was sent and acknowledged.
        violations: what is not as promised.
    """

    arm: str
    rounds: int = 0
    gaps: list[float] = []
    kept: int = 0
    undone: int = 0
    unsettled: int = 0
    fenced: int = 0
    helped: int = 0
    account: Account = msgspec.field(default_factory=Account)
    violations: list[str] = []

    def line(self) -> str:
        """Return the figures as text."""
        kinds = [text.partition(":")[0] for text in self.violations]
        lost, repeated = kinds.count("lost"), kinds.count("repeated")
        text = (
            f"{self.rounds} failures: {lost} lost of {self.account.acknowledged} acknowledged, "
            f"{repeated} repeated of {self.account.sent} sent, "
            f"{len(kinds) - lost - repeated} other violations; {self.account.doubts} in doubt"
        )
        if self.gaps:
            text += (
                f"{_NEXT}commits cut off: {self.kept} found kept, {self.undone} found not kept, "
                f"{self.unsettled} left to the next attempt; {self.helped} tasks needed help"
                f"{_NEXT}writes stood still for {statistics.median(self.gaps):.1f} s (median), "
                f"{max(self.gaps):.1f} s at most"
            )
        if self.fenced:
            text += f"; {self.fenced} times a worker stopped by itself"
        return text


class Pressure(threading.Thread):
    """Keeps letters coming, so that a failure always meets some under way."""

    def __init__(self, mail: Mail, notes: Notes) -> None:
        super().__init__(daemon=True)
        self._mail = mail
        self._notes = notes
        self._ending = threading.Event()

    def run(self) -> None:
        """Submit until told to end."""
        seen = done = 0
        while not self._ending.wait(0.02):
            path = self._notes.folder / ACKNOWLEDGED
            if path.exists():
                with path.open("rb") as file:
                    file.seek(seen)
                    new = file.read()
                seen, done = seen + len(new), done + new.count(b":stamped")
            if self._mail.due - done < OPEN and not self._mail.submit(LETTERS, BATCH):
                return  # the database doesn't come back, which the end will show

    def end(self) -> None:
        """Submit nothing more."""
        self._ending.set()
        self.join()


class Trial:
    """Workers under load on a pair of servers.

    Args:
        root: where notes go.
        servers: primary first; the URL names all of them.
        lease: seconds.
        workers: processes.
    """

    def __init__(
        self, root: Path, servers: Sequence[PostgresServer], lease: float, workers: int
    ) -> None:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        self.url = f"postgresql://holdfast@{hosts}/postgres"
        self.notes = Notes(root)
        self.load = Load(self.notes)
        self.load.runner.use(self.url, lease=lease)
        self.mail = Mail(self.load)
        self.fleet = Fleet(self.url, self.notes, lease)
        self._workers = workers
        self._pressure = Pressure(self.mail, self.notes)

    def __enter__(self) -> Self:
        """Start the workers, and the load."""
        try:
            for _ in range(self._workers):
                self.fleet.start()
        except BaseException:
            self.fleet.end()
            raise
        self._pressure.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pressure.end()
        self.fleet.end()
        self.load.runner.close()

    def last(self, file: str = ACKNOWLEDGED) -> float:
        """Return the boot time of the newest line of a file."""
        return max((line["at"] for line in self.notes.lines(file)), default=0.0)

    def flows_after(self, moment: float) -> bool:
        """Wait until something was acknowledged after a moment."""
        return until(lambda: self.last() > moment)

    def conclude(self, arm: str, since: Sequence[float]) -> Result:
        """Let everything end, and compare. `since` are the moments of the failures."""
        self._pressure.end()
        result = Result(arm, len(since))
        if not self.mail.wait():
            result.violations.append("stuck: tasks neither end nor say what they need")
        result.account = self.mail.account()
        result.violations += result.account.violations
        result.helped = len(self.mail.unfinished())
        if result.account.doubts:
            self.fleet.end()
            self.mail.settle()
            self.fleet.start()
            if not self.mail.wait() or self.mail.unfinished():
                result.violations.append(f"stuck: {self.mail.unfinished()} after settling")
        unsent = self.mail.unsent()
        if unsent:
            result.violations.append(f"lost: letters {unsent[:20]} aren't in the outbox once")
        said = [line["what"] for line in self.notes.lines(SAID)]
        result.kept = sum("it was kept" in text for text in said)
        result.undone = sum("it was not kept" in text for text in said)
        result.unsettled = sum("can't be found out" in text for text in said)
        result.fenced = sum("lost its leases" in text for text in said)
        result.gaps = [self._gap(moment) for moment in since]
        return result

    def _gap(self, moment: float) -> float:
        times = sorted(line["at"] for line in self.notes.lines(ACKNOWLEDGED))
        before = max((at for at in times if at <= moment), default=moment)
        # What was on its way when the server died may still have been noted a moment later.
        pairs = zip([before, *times], [*times, moment], strict=False)
        return max((b - a for a, b in pairs if a >= before and a < moment + 1), default=0.0)

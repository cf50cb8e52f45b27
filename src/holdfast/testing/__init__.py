"""Tools for testing that work survives a crash, of Holdfast and of what is built on it.

::

    def work(tell):
        store = crash_at("agent.db", Point("commit", 7, "after"))
        TaskRunner(store)...

    with Process.fork(work) as process:
        assert process.wait().how == "killed"

Crashes are real: a signal to a real process at a chosen boundary (`CrashingEngine`). Time is a
value that a test moves (`ManualClock`). `PostgresServer` is a real PostgreSQL of the test's own.

`python -m holdfast.testing.campaign` crashes a reference task at every boundary and checks what is
promised.
"""

from holdfast.testing.clock import ManualClock
from holdfast.testing.crash import CrashingEngine, CrashPlan, Point, crash_at, open_with_plan
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.processes import Ended, Process

__all__ = [
    "CrashPlan",
    "CrashingEngine",
    "Ended",
    "ManualClock",
    "Point",
    "PostgresServer",
    "Process",
    "crash_at",
    "open_with_plan",
]

"""Two machines, and a network that lets one of them no longer reach the database, or be reached."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from support.proxy import Proxy

from holdfast import Context, TaskRunner, errors
from holdfast.clock import SystemClock
from holdfast.testing import PostgresServer
from holdfast.testing.fleet import Fleet, until
from holdfast.testing.load import PULSES, Notes

LEASE = 2.0
TAKEOVER = LEASE + 2

HERE = str(Path(__file__).parents[1])
CLOCK = SystemClock()

WRITES = """
SELECT min(pg_xact_commit_timestamp(xmin)), max(pg_xact_commit_timestamp(xmin))
FROM {0}.journal WHERE position(convert_to(%s, 'UTF8') IN outcome) > 0
"""
LEASES = "SELECT expires_at FROM {0}.workers WHERE pid = %s AND status = 'gone'"
ALIVE = "SELECT count(*) FROM {0}.workers WHERE pid = %s AND status = 'alive'"


@pytest.fixture(scope="module")
def server():
    try:
        own = PostgresServer("track_commit_timestamp=on")
    except errors.StoreOpenError as reason:
        pytest.skip(f"NO POSTGRESQL: {reason}")
    yield own
    own.stop()


class Machine:
    """A worker on a machine of its own, behind a link to the database."""

    def __init__(self, name: str, server: PostgresServer, schema: str, notes: Notes) -> None:
        self.name = name
        self.link = Proxy(server.port)
        url = f"postgresql://holdfast@127.0.0.1:{self.link.port}/postgres?schema={schema}"
        self.fleet = Fleet(url, notes, LEASE, concurrency=1, app="support.isolated:runner")
        self._notes = notes

    def start(self) -> None:
        self.pid = self.fleet.start(HOLDFAST_TEST_MACHINE=self.name, PYTHONPATH=HERE).pid

    def pulses(self) -> list[float]:
        """Return when its work was seen to run, by the boot clock."""
        return [line["at"] for line in self._notes.lines(PULSES) if line["what"] == self.name]

    def runs_after(self, moment: float) -> bool:
        return until(lambda: any(at > moment for at in self.pulses()), 30)

    def close(self) -> None:
        self.fleet.end()
        self.link.close()


@pytest.mark.parametrize(
    ("up", "down"), [(True, True), (True, False), (False, True)],
    ids=["both ways", "to the server", "from the server"],
)  # fmt: skip
def test_who_is_cut_off_stops_in_time_and_another_machine_takes_over(server, tmp_path, up, down):
    notes = Notes(tmp_path)
    schema = f"cut_{int(up)}{int(down)}"
    runner = TaskRunner(f"{server.url}?schema={schema}")

    @runner.task(name="wander")
    async def wander(ctx: Context) -> None: ...

    def ask(query, value):
        with psycopg.connect(server.url) as connection:
            return connection.execute(query.format(schema), (value,)).fetchone()

    with (
        closing(runner),
        closing(Machine("north", server, schema, notes)) as north,
        closing(Machine("south", server, schema, notes)) as south,
    ):
        runner.submit(wander)
        north.start()
        assert north.runs_after(0)
        south.start()
        assert until(lambda: ask(ALIVE, south.pid)[0], 30)

        cut = CLOCK.boottime()
        north.link.cut(up=up, down=down)
        assert south.runs_after(cut)
        took = south.pulses()[0] - cut
        assert took < TAKEOVER, f"taken over after {took:.1f} s"
        stopped = north.pulses()[-1] - cut
        assert stopped < LEASE, f"still running after {stopped:.1f} s"

        # By the server's clock: before the lease was over, and after.
        over = ask(LEASES, north.pid)
        north.link.heal()  # what it sent meanwhile arrives now
        assert until(lambda: ask(ALIVE, north.pid)[0], 30)  # under a new name
        assert until(lambda: ask(WRITES, "at south")[0], 30)
        assert ask(WRITES, "at north")[1] < over[0] < ask(WRITES, "at south")[0]

        healed = CLOCK.boottime()
        runner.options(key="second").submit(wander)
        assert north.runs_after(healed)

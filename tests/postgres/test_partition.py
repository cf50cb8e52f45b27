"""Two machines, and a network that lets one of them no longer reach the database, or be reached."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from support.links import NamespaceNetwork, ProxyNetwork
from support.namespaces import what_is_missing
from support.schemas import new_schema

from holdfast import Context, TaskRunner, errors
from holdfast.clock import SystemClock
from holdfast.states import TaskStatus
from holdfast.store.postgres_url import parse_url
from holdfast.testing.fleet import Fleet, until
from holdfast.testing.load import OUTBOX, PULSES, Notes

LEASE = 2.0
TAKEOVER = LEASE + 2

STEPS, ENOUGH = "steps.jsonl", "enough"  # as `support.isolated` has them
HERE = str(Path(__file__).parents[1])
CLOCK = SystemClock()

WRITES = """
SELECT min(pg_xact_commit_timestamp(xmin)), max(pg_xact_commit_timestamp(xmin))
FROM {0}.journal WHERE position(convert_to(%s, 'UTF8') IN outcome) > 0
"""
LEASES = "SELECT expires_at FROM {0}.workers WHERE pid = %s AND status = 'gone'"
ALIVE = "SELECT count(*) FROM {0}.workers WHERE pid = %s AND status = 'alive'"


@pytest.fixture(scope="module", params=[ProxyNetwork, NamespaceNetwork], ids=["proxy", "hosts"])
def network(request):
    if request.param is NamespaceNetwork and (reason := what_is_missing()):
        pytest.skip(f"NO NETWORK NAMESPACES: {reason}")
    try:
        between = request.param("track_commit_timestamp=on")
    except errors.StoreOpenError as reason:
        pytest.skip(f"NO POSTGRESQL: {reason}")
    yield between
    between.close()


class Machine:
    """A worker on a machine of its own, behind a link to the database."""

    def __init__(self, name: str, network, schema: str, notes: Notes) -> None:
        self.name = name
        self.link = network.link()
        url = f"{self.link.url}?schema={schema}"
        self.fleet = Fleet(url, notes, LEASE, concurrency=1, app="support.isolated:runner")
        self._notes = notes

    def start(self) -> None:
        with self.link.inside():
            self.pid = self.fleet.start(HOLDFAST_TEST_MACHINE=self.name, PYTHONPATH=HERE).pid

    def noted(self, file: str, item: str) -> list[dict]:
        lines = self._notes.lines(file)
        return [line for line in lines if (line["machine"], line["what"]) == (self.name, item)]

    def steps(self, item: str) -> list[int]:
        """Return the steps it made, whether they were recorded or not."""
        return [line["number"] for line in self.noted(STEPS, item)]

    def close(self) -> None:
        self.fleet.end()
        self.link.close()


@pytest.mark.parametrize(
    ("up", "down"), [(True, True), (True, False), (False, True)],
    ids=["both ways", "to the server", "from the server"],
)  # fmt: skip
def test_who_is_cut_off_stops_in_time_and_another_machine_takes_over(network, tmp_path, up, down):
    notes = Notes(tmp_path)
    url = new_schema(network.url)
    runner = TaskRunner(url)

    @runner.task(name="wander")
    async def wander(ctx: Context, name: str) -> int: ...

    schema = parse_url(url).schema

    def ask(query, value):
        with psycopg.connect(network.url) as connection:
            return connection.execute(query.format(schema), (value,)).fetchone()

    with (
        closing(runner),
        closing(Machine("north", network, schema, notes)) as north,
        closing(Machine("south", network, schema, notes)) as south,
    ):
        first = runner.submit(wander, "first")
        north.start()
        assert until(lambda: ask(WRITES, "first at north")[0], 30)
        south.start()
        assert until(lambda: ask(ALIVE, south.pid)[0], 30)

        cut = CLOCK.boottime()
        north.link.cut(up=up, down=down)
        assert until(lambda: len(south.steps("first")) > 5, 30)
        took = south.noted(PULSES, "first")[0]["at"] - cut
        assert took < TAKEOVER, f"taken over after {took:.1f} s"
        (over,) = ask(LEASES, north.pid)
        last = north.noted(PULSES, "first")[-1]
        late = last["wall"] - over.timestamp()  # all hosts have one clock
        assert last["ended"], f"still running, last seen {late:.1f} s after its lease"
        assert late < 0, f"stopped {late:.1f} s after its lease"

        north.link.heal()  # what it sent meanwhile may still arrive
        assert until(lambda: ask(ALIVE, north.pid)[0], 30)  # under a new name
        second = runner.submit(wander, "second")
        assert until(lambda: ask(WRITES, "second at north")[0], 30)
        (tmp_path / ENOUGH).touch()
        assert until(lambda: {first.status, second.status} == {TaskStatus.SUCCEEDED}, 30)

        # By the server's clock: before the lease was over, and after.
        assert ask(WRITES, "first at north")[1] < over < ask(WRITES, "first at south")[0]

        # Only the step whose outcome couldn't be recorded was made again, and no `once` call was.
        sent = [line["what"] for line in notes.lines(OUTBOX)]
        assert sent == ["first", "second"]
        before, after = north.steps("first"), south.steps("first")
        assert [*dict.fromkeys(before + after)] == [*range(first.run() + 1)]
        assert {*before} & {*after} <= {before[-1]}

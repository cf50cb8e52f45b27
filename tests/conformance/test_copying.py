"""Moving everything to another database, from each engine to the other."""

from __future__ import annotations

import os
import threading

import apsw
import pytest
from support.schemas import drop_schema

from holdfast import errors
from holdfast.liveness import Heartbeat
from holdfast.models import MAIN
from holdfast.states import EntryStatus, ItemStatus
from holdfast.store import copying, open_store, verbs
from holdfast.store.copying import copy_database
from holdfast.store.payload import encode_payload, read_blob
from holdfast.store.verbs import CacheEntry, Parked

LARGE = encode_payload(os.urandom(5000))


ROWS = (
    """INSERT INTO {}.approvals (task_id, item_id, seq, name, scope, digest, text, status,
    requested_at) SELECT task_id, item_id, 1, 'a', '', chain_head, 't', 'waiting', 0.5
    FROM {}.work_items""",
    "INSERT INTO {}.budgets (task_id, token_limit) SELECT task_id, 9 FROM {}.tasks",
    "INSERT INTO {}.reservations SELECT task_id, 'a:b:1', 1, 2 FROM {}.tasks",
)

# What makes a database alter what is put into it.
MEDDLERS = {
    "sqlite": (
        """CREATE TRIGGER meddle AFTER INSERT ON signals BEGIN
        UPDATE signals SET name = 'stop' WHERE signal_id = new.signal_id; END""",
    ),
    "postgresql": (
        """CREATE FUNCTION {}.meddle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN new.name = 'stop'; RETURN new; END $$""",
        """CREATE TRIGGER meddle BEFORE INSERT ON {}.signals
        FOR EACH ROW EXECUTE FUNCTION {}.meddle()""",
    ),
}


@pytest.fixture
def url(url):
    """Drop the schema after each test: one that is sealed or altered isn't new when it is empty."""
    yield url
    if url.startswith("postgres"):
        drop_schema(url)


@pytest.fixture
def target_url(url, request, tmp_path, postgres_server_url):
    if url.startswith("postgres"):
        return f"sqlite:///{tmp_path}/target.db"
    return request.getfixturevalue("postgres_url")


def _statement(url, text, *params):
    """Run a statement of the test's own; `{}` stands in front of a table's name."""
    if url.startswith("sqlite"):
        connection = apsw.Connection(url.removeprefix("sqlite:///"))
        connection.execute(text.replace("{}.", "").replace("%s", "?"), params)
        connection.close()
        return
    import psycopg

    server, _, schema = url.partition("?schema=")
    with psycopg.connect(server) as connection:
        connection.execute(text.replace("{}", schema), params or None)


def _fill(world):
    """Put something into every table, and an item into every state but running."""
    world.do(verbs.limit_queue("default", None, 100, 1.0))
    ended = world.task()
    worker = world.worker()
    lease = world.claim_one(worker).lease
    world.record(lease, {"name": "größer", "usage": b"\xff\0", "outcome": LARGE.column})
    world.commit_checkpoint(lease, 1, "file:x", state=LARGE)
    world.finish(lease)
    for status in (ItemStatus.IN_DOUBT, ItemStatus.QUARANTINED, ItemStatus.WAITING):
        world.now += 1
        parked = Parked(status, error="a zero \0 character", wake_at=world.now + 0.1 + 0.2)
        world.task()
        lease = world.claim_one(worker).lease
        world.record(lease, {"status": EntryStatus.STARTED, "effect": "once", "keyed": True})
        world.do(verbs.park_work_item(lease, world.append(lease), parked, world.now))
    world.now += 1
    world.task({"first": (), "second": ("first",), MAIN: ("second",)})
    world.fail(world.claim_one(worker).lease)
    world.do(verbs.cancel_task(world.task(key="k"), "enough", world.now))
    world.task({"first": (), MAIN: ("first",)}, priority=3, workspace="/nowhere")
    world.do(verbs.send_signal(ended, "s1", "go", LARGE, world.now))
    world.do(verbs.look_up("n", b"k", "m", worker, world.now))
    world.do(verbs.fill("n", b"k", worker, CacheEntry(b"output", cost=0.1, ttl=9e9), world.now))
    world.do(verbs.look_up("n", b"reserved", "m", worker, world.now))
    world.do(verbs.add_counts(worker, {"hits": 1.5}))
    world.do(verbs.retire_worker(worker, world.now))
    for text in ROWS:
        _statement(world.url, text)
    _statement(
        world.url,
        "INSERT INTO {}.schedules (name, task, input, cron, timezone, next_at) "
        "VALUES (%s, %s, %s, %s, %s, %s)",
        "s", "t", b"i", "* * * * *", "UTC", 0.1,
    )  # fmt: skip
    return ended


def _copy(world, target_url, **options):
    with open_store(target_url) as target:
        return copy_database(world.store, target, lambda _: None, **options)


def test_everything_arrives_as_it_was(world, target_url, monkeypatch):
    monkeypatch.setattr(copying, "PAGE_ROWS", 3)
    ended = _fill(world)
    copied = _copy(world, target_url, seal=False)
    assert [each.table for each in copied.tables if not each.rows] == []
    with open_store(target_url) as target:
        assert target.secret_key == world.store.secret_key
        assert target.read(read_blob(ended, LARGE.digest)) == LARGE.data
        source, world.store = world.store, target
        arrived = world.contents(), world.events(ended)
        world.store = source
    # PostgreSQL can't hold a zero character: it is shown.
    sent = repr((world.contents(), world.events(ended)))
    assert repr(arrived) == sent.replace("a zero \\x00", "a zero \u2400")


def test_the_source_is_not_opened_again_once_everything_is_in_the_target(world, target_url):
    world.task()
    assert _copy(world, target_url).sealed
    world.store.close()
    with pytest.raises(errors.StoreMovedError, match="moved to another database"):
        open_store(world.url)


def test_a_worker_that_is_started_while_everything_is_moved_away_is_refused(world, target_url):
    other = world.other()
    said = []

    def register():
        heart = Heartbeat(other, lease=30.0)
        try:
            heart.start()
        except errors.StoreError as error:
            said.append(error)
        else:
            heart.stop()

    starting = threading.Thread(target=register)

    def tell(what):
        if what == "comparing":
            starting.start()
            starting.join(0.5)

    with open_store(target_url) as target:
        copy_database(world.store, target, tell)
    starting.join()
    assert [type(each) for each in said] == [errors.StoreMovedError]
    assert world.read(verbs.list_workers()) == []


def test_a_database_is_not_copied_into_itself_under_another_name(world):
    again = world.url.replace("sqlite:///", "sqlite:////./")
    with open_store(again) as other, pytest.raises(errors.UsageError, match="are one database"):
        copy_database(world.store, other, lambda _: None)


def test_a_second_call_only_compares_and_seals(world, target_url):
    _fill(world)
    first = _copy(world, target_url, seal=False)
    second = _copy(world, target_url)
    assert (first.before, second.before, second.sealed) == (False, True, True)
    assert first.tables == second.tables


def test_a_difference_planted_in_the_target_is_found(world, target_url):
    _fill(world)
    _copy(world, target_url, seal=False)
    for change, *values in (
        ("UPDATE {}.journal SET outcome = %s WHERE seq = 1", b"altered"),
        ("UPDATE {}.work_items SET error = 'other'",),
        ("DELETE FROM {}.events WHERE type = 'claimed'",),
        ("INSERT INTO {}.counters VALUES ('more', 'w', 1)",),
    ):
        _statement(target_url, change, *values)
        table = change.split("{}.")[1].split()[0]
        with pytest.raises(errors.UsageError, match=table):
            _copy(world, target_url)


def test_a_difference_that_arises_on_the_way_is_found_and_nothing_is_kept(world, target_url):
    _fill(world)
    open_store(target_url).close()
    for text in MEDDLERS[target_url.partition(":")[0]]:
        _statement(target_url, text)
    with pytest.raises(errors.StoreCorruptError, match="signals"):
        _copy(world, target_url)
    with open_store(target_url) as target:
        assert target.read(verbs.count_rows())["journal"] == 0
        assert target.secret_key != world.store.secret_key
    open_store(world.url).close()


def test_a_target_with_tasks_of_its_own_is_refused_and_left_alone(world, target_url):
    world.task()
    with open_store(target_url) as target:
        world.do(verbs.add_counts("w", {"theirs": 1}), target)
        key = target.secret_key
    with pytest.raises(errors.UsageError, match="isn't empty"):
        _copy(world, target_url)
    with open_store(target_url) as target:
        assert target.read(verbs.read_counters()) == {"theirs": 1}
        assert target.secret_key == key


def test_a_source_with_a_worker_is_refused(world, target_url):
    world.task()
    lease = world.claim_one(name := world.worker()).lease
    with pytest.raises(errors.UsageError, match=f"At work on the source: {name}.*SIGTERM"):
        _copy(world, target_url)
    world.finish(lease)
    assert world.do(verbs.retire_worker(name, world.now))
    _copy(world, target_url)


def test_a_target_with_a_worker_is_refused(world, target_url):
    with open_store(target_url) as target:
        name = world.worker(target)
    with pytest.raises(errors.UsageError, match="At work on the target"):
        _copy(world, target_url)
    assert name


def test_a_table_or_column_of_a_newer_holdfast_is_not_left_behind(world, target_url):
    _statement(world.url, "CREATE TABLE {}.later (id INTEGER PRIMARY KEY)")
    with pytest.raises(errors.StoreTooNewError, match="later"):
        _copy(world, target_url)
    _statement(world.url, "DROP TABLE {}.later")
    _statement(world.url, "ALTER TABLE {}.signals ADD COLUMN later INTEGER")
    with pytest.raises(errors.StoreTooNewError, match="later"):
        _copy(world, target_url)


def test_a_process_that_was_seen_to_have_ended_is_known_to_have_ended_in_the_target(
    world, target_url
):
    worker = world.worker()
    world.do(verbs.retire_worker(worker, world.now))
    _copy(world, target_url)
    with open_store(target_url) as target:
        moved = target.read(verbs.get_worker(worker))
        if world.url.startswith("sqlite"):
            assert target.engine.alive(moved) is False
        else:  # its row doesn't say which process it was
            assert moved is None or target.engine.alive(moved) is None

"""Who is alive, and who hears of what, when several programs share a PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from support.schemas import drop_schema, new_schema
from support.writes import worker_in

from holdfast import TaskRunner, errors
from holdfast.final_check import FinalChecks
from holdfast.liveness import Heartbeat, Observer
from holdfast.models import MAIN, WorkerRecord
from holdfast.store import open_store, verbs
from holdfast.store.engine import NotKeptError
from holdfast.store.payload import encode_payload
from holdfast.store.processes import ENDED, is_running, this_process
from holdfast.store.rounds import drive
from holdfast.store.verbs import Append, ClaimFilter, NewItem, NewTask
from holdfast.tool import Tool
from holdfast.under_way import watched
from holdfast.verifiers import EvidenceVerifier
from holdfast.worker import Worker

PROGRAM = """
import sys, time
from pathlib import Path
from holdfast import SyncContext, TaskRunner

runner = TaskRunner(sys.argv[1], workspace=sys.argv[2])

def note(word):
    with open(sys.argv[2] + "/notes", "a") as file:
        file.write(word + "\\n")
    return word

@runner.task
def job(ctx: SyncContext) -> str:
    ctx.step(note, "first")
    ctx.step(hang if sys.argv[3] == "hang" else note, "second")
    return "done"

def hang(word):
    note("hanging")
    time.sleep(600)

print(runner.options(key="k").run(job))
"""


@pytest.fixture
def store(postgres_url):
    with open_store(f"{postgres_url}&listen=off") as opened:
        yield opened


@contextmanager
def _connected(store):
    place = store.engine._place  # noqa: SLF001
    with psycopg.connect(place.server, options=f"-c search_path={place.schema}") as connection:
        yield connection


def _claim(store, worker):
    empty = encode_payload({})
    item = NewItem(MAIN, "work", empty, "default", 0, b"", 3)
    store.commit(verbs.create_task(NewTask("01a", "work", empty, (item,)), 1.0)).wait()
    wanted = ClaimFilter(("work",), ("default",))
    return store.commit(verbs.claim_work_items(worker, wanted, 1, store.now())).wait()


def test_a_worker_is_overdue_by_the_servers_clock_whatever_an_observer_counts(store):
    heart = Heartbeat(store, lease=30.0)
    heart.start()
    try:
        worker = heart.worker_id
        _claim(store, worker)
        (record,) = store.read(verbs.list_workers())
        assert store.read(verbs.watched_workers("")) == []
        expired = verbs.expire_worker(worker, record.renewals, store.now())
        assert store.commit(expired).wait() == []
    finally:
        heart.stop()


def test_a_worker_that_does_not_renew_is_taken_back_after_its_lease(store):
    heart = Heartbeat(store, lease=30.0)
    heart.start()
    worker = heart.worker_id
    heart._stopping.set()  # noqa: SLF001  alive, but silent from now on
    heart._thread.join()  # noqa: SLF001
    _claim(store, worker)
    with _connected(store) as connection:
        connection.execute("UPDATE workers SET expires_at = now() - interval '1 s'")
    taken = asyncio.run(Observer(store, 0.5).look())
    assert [each.item_id for each in taken] == [MAIN]


def test_a_look_at_fifty_workers_asks_as_often_as_one_at_two(store, monkeypatch):
    read, asked = store.engine.read, []
    monkeypatch.setattr(store.engine, "read", lambda each: asked.append(each.query) or read(each))
    observer = Observer(store, 0.5)

    def look_at(many):
        for slot in range(many):
            store.commit(verbs.register_worker(worker_in(len(asked) * 100 + slot))).wait()
        asked.clear()
        asyncio.run(observer.look())
        return len(asked)

    look_at(0)  # the first one looks at more
    assert look_at(2) == look_at(48) > 0


def test_a_worker_tells_other_machines_that_nothing_of_it_runs(store):
    heart = Heartbeat(store, lease=30.0)
    heart.start()
    call = watched(Tool(lambda: None), "key", heart.worker_id)
    heart.stop()
    assert _process(store, heart.worker_id) == this_process()
    call()
    heart = Heartbeat(store, lease=30.0)
    heart.start()
    heart.stop()
    assert _process(store, heart.worker_id) == ENDED


@pytest.mark.parametrize("taken_for_dead", ["before", "after"])
def test_who_sees_that_a_process_has_ended_tells_other_machines(store, taken_for_dead):
    heart = Heartbeat(store, lease=30.0)
    with subprocess.Popen(["sleep", "60"]) as process:  # noqa: S607
        started = (Path("/proc") / str(process.pid) / "stat").read_text().split()[21]
        here = this_process().rpartition("/")[0]
        record = WorkerRecord(
            heart.worker_id, 1, platform.node(), process.pid, "1", 30.0, 0, "alive", 1.0, 1.0,
            f"{here}/{started}",
        )  # fmt: skip
        assert store.commit(verbs.register_worker(record)).wait()
        if taken_for_dead == "before":
            with _connected(store) as connection:
                connection.execute("UPDATE workers SET expires_at = now() - interval '1 s'")
        asyncio.run(Observer(store, 0.5).look())
        assert _process(store, heart.worker_id) == record.process
        process.kill()
    asyncio.run(Observer(store, 0.5).look())
    gone = store.read(verbs.get_worker(heart.worker_id))
    assert (gone.status, gone.process) == ("gone", ENDED)


def test_a_worker_that_was_cut_off_tells_of_its_old_id_once_the_database_answers(
    postgres_url, monkeypatch
):
    runner = TaskRunner(f"{postgres_url}&listen=off")

    async def main():
        worker = Worker(runner.store, runner.handlers, lease=0.6, worker_id="mine")
        await worker.start()
        commit = runner.store.commit

        def refuse(verb):
            raise errors.StoreUnavailableError("gone")

        monkeypatch.setattr(runner.store, "commit", refuse)
        await asyncio.sleep(1.5)
        assert worker.worker_id == "mine"
        monkeypatch.setattr(runner.store, "commit", commit)
        async with asyncio.timeout(10):
            while worker.worker_id in {"mine", None}:
                await asyncio.sleep(0.01)
        assert _process(runner.store, "mine") == ENDED
        await worker.stop()

    asyncio.run(main())
    runner.close()


def _process(store, worker_id):
    return store.read(verbs.get_worker(worker_id)).process


def test_a_worker_that_is_stopped_within_a_transaction_does_not_keep_its_item_from_others(
    store, postgres_url
):
    heart = Heartbeat(store, lease=0.5)
    heart.start()
    (claimed,) = _claim(store, heart.worker_id)
    heart._stopping.set()  # noqa: SLF001  nothing goes on from here, as after a SIGSTOP
    heart._thread.join()  # noqa: SLF001
    late = verbs.append_entries(claimed.lease, Append(claimed.item.seq), store.now())
    store.engine.begin(wait=True)
    drive(late.start(), store.engine.execute)  # its row is locked from now on
    with open_store(f"{postgres_url}&listen=off", deadline=3) as other:
        observer = Observer(other, 0.05)
        ends = time.monotonic() + 10
        taken = []
        while not taken:
            assert time.monotonic() < ends
            time.sleep(0.05)
            with suppress(errors.StoreUnavailableError):  # the row was waited for: look again
                taken = asyncio.run(observer.look())
        assert [each.item_id for each in taken] == [MAIN]
    with pytest.raises((errors.StoreUnavailableError, NotKeptError)):
        store.engine.commit()


def test_a_long_transaction_in_another_schema_is_left_alone(store, postgres_url):
    other = new_schema(postgres_url.partition("?")[0])
    with open_store(f"{other}&listen=off") as copying:
        copying.engine.begin(wait=True)
        drive(verbs.add_counts("w", {"hits": 1}).start(), copying.engine.execute)
        drive(verbs.read_counters().start(), copying.engine.execute)  # waits for its answer
        time.sleep(0.2)
        assert store.read(verbs.end_hung_transactions(0.1)) == 0
        copying.engine.commit()
        assert copying.read(verbs.read_counters()) == {"hits": 1}
    drop_schema(other)


def test_the_end_of_a_process_on_this_machine_is_seen():
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from holdfast.store.processes import *; print(this_process(), flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    where = process.stdout.readline().strip()
    assert is_running(process.pid, where) is True
    process.kill()
    time.sleep(0.2)
    assert is_running(process.pid, where) is False  # not reaped yet
    process.communicate()
    assert is_running(process.pid, where) is False
    assert is_running(os.getpid(), where) is False  # its id was given to another one
    assert is_running(os.getpid(), this_process()) is True
    assert is_running(os.getpid(), "another-boot/1/2") is None
    assert is_running(os.getpid(), "") is None


def test_what_one_program_makes_ready_another_hears_of_at_once(postgres_url):
    with open_store(f"{postgres_url}&listen=off") as two:
        two.commit(verbs.drain_worker("nobody", 1.0)).wait()
        if two.engine._writer.backend is None:  # noqa: SLF001
            pytest.skip("a pooler stands between; notifications need a direct URL")
    with open_store(postgres_url) as one, open_store(postgres_url) as two:
        _wait_for_news(one, one.engine.data_version(), 10)  # until it listens
        before = one.engine.data_version()
        empty = encode_payload({})
        item = NewItem(MAIN, "work", empty, "default", 0, b"", 3)
        two.commit(verbs.create_task(NewTask("01a", "work", empty, (item,)), 1.0)).wait()
        _wait_for_news(one, before, 3)


def _wait_for_news(store, before, seconds):
    ends = time.monotonic() + seconds
    while store.engine.data_version() >> 40 == before >> 40:
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_without_notifications_others_look_now_and_then(store):
    before = store.engine.data_version()
    ends = time.monotonic() + 5
    while store.engine.data_version() == before:
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_killed_program_is_followed_by_the_next_within_seconds(postgres_url, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    url = f"{postgres_url}"
    first = subprocess.Popen([sys.executable, str(program), url, str(tmp_path), "hang"])  # noqa: S603
    ends = time.monotonic() + 30
    while "hanging" not in _notes(tmp_path):
        assert time.monotonic() < ends
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    started = time.monotonic()
    second = subprocess.run(  # noqa: S603
        [sys.executable, str(program), url, str(tmp_path), "note"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.stdout.strip() == "done"
    assert _notes(tmp_path) == ["first", "hanging", "second"]
    assert time.monotonic() - started < 20


def _notes(folder):
    file = folder / "notes"
    return file.read_text().split() if file.exists() else []


def test_a_handler_runs_on_postgresql_as_it_does_on_sqlite(postgres_url, tmp_path):
    runner = TaskRunner(postgres_url, workspace=str(tmp_path))

    @runner.task
    def double(ctx, n: int) -> int:
        return sum(ctx.map(lambda i: ctx.step(abs, i), range(n)))

    try:
        assert runner.run(double, n=5) == 10
        assert runner.run(double, n=5) == 10
    finally:
        runner.close()


def test_looking_for_tasks_to_check_does_not_hold_up_the_event_loop(store, monkeypatch):
    read, answer = store.engine.read, threading.Event()

    def late(statement):
        assert answer.wait(10), "the event loop waits for the answer"
        return read(statement)

    async def main():
        checks = FinalChecks(store, EvidenceVerifier(), lambda: None)
        looking = asyncio.ensure_future(checks.start("north", None))
        await asyncio.sleep(0)
        answer.set()
        await looking

    monkeypatch.setattr(store.engine, "read", late)
    asyncio.run(main())


def test_a_queue_is_freed_that_a_program_was_stopped_in_while_it_counted(store, postgres_url):
    store.commit(verbs.limit_queue("default", 1, None, 1.0)).wait()
    one, two = Heartbeat(store), Heartbeat(store)
    wanted = ClaimFilter(("work",), ("default",))
    empty = encode_payload({})
    item = NewItem(MAIN, "work", empty, "default", 0, b"", 3)
    for name in ("01a", "01b"):
        store.commit(verbs.create_task(NewTask(name, "work", empty, (item,)), 1.0)).wait()
    one.start()
    two.start()

    def claim():
        asked = verbs.claim_work_items(two.worker_id, wanted, 2, store.now())
        return store.commit(asked).wait()

    try:
        with open_store(f"{postgres_url}&listen=off") as stopped:
            asked = verbs.claim_work_items(one.worker_id, wanted, 1, store.now())
            stopped.engine.begin(wait=True)
            assert len(drive(asked.start(), stopped.engine.execute)) == 1
            assert claim() == []  # it neither waits nor exceeds the limit
            time.sleep(0.3)
            assert store.read(verbs.end_hung_transactions(0.2)) >= 1
            with pytest.raises(errors.StoreUnavailableError):
                stopped.engine.commit()
            assert len(claim()) == 1
    finally:
        one.stop()
        two.stop()

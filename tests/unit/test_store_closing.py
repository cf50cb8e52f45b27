# ruff: noqa: S603, SLF001  programs of our own; faults are made inside the engine
"""Closing while others read and write, exiting without closing, and forking with a store open."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
import threading
import time

import apsw
import pytest

from holdfast import errors
from holdfast.models import WorkerRecord
from holdfast.store import open_store, verbs
from holdfast.store.lockfile import open_lock_file


def _count(store):
    return store.commit(verbs.add_counts("w", {"n": 1.0}))


def _users(store):
    """Return everything that several threads do to a store until it refuses."""
    behind = time.monotonic() + 10

    def read():
        while True:
            store.read(verbs.read_counters())
            store.engine.data_version()

    def write():
        while True:
            _count(store).wait()

    def leave_behind():
        while time.monotonic() < behind:
            _count(store).behind()
            time.sleep(0.0005)

    def loop():
        async def write_on():
            while True:
                await _count(store)

        asyncio.run(write_on())

    return [read, read, write, write, leave_behind, loop]


def _close_while_used(store, pause):
    answers, threads = [], []

    def run(use):
        try:
            use()
        except BaseException as error:  # noqa: BLE001  whatever it is, it is looked at below
            answers.append(error)

    threads = [threading.Thread(target=run, args=(use,), daemon=True) for use in _users(store)]
    closers = [threading.Thread(target=store.close) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(pause)
    for thread in closers:
        thread.start()
    for thread in (*closers, *threads):
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)  # nobody waits for ever
    return answers


def test_closing_while_threads_read_and_write_refuses_each_of_them_and_hangs_none(tmp_path):
    draw = random.Random(1)  # noqa: S311  the same each time
    until = time.monotonic() + 2
    for number in itertools.count():
        if time.monotonic() > until:
            break
        url = f"sqlite:///{tmp_path}/{number}.db" if number % 2 else None
        answers = _close_while_used(open_store(url), draw.random() * 0.03)
        assert len(answers) == 6
        for answer in answers:
            assert isinstance(answer, errors.StoreUnavailableError)
            assert "store is closed" in str(answer)


@pytest.mark.parametrize("url", ["sqlite:///{}/holdfast.db", None])
def test_a_closed_store_says_so_whatever_is_asked(tmp_path, url):
    store = open_store(url and url.format(tmp_path))
    engine = store.engine
    store.close()
    store.close()
    engine.close()
    with pytest.raises(errors.StoreUnavailableError, match="store is closed"):
        store.read(verbs.read_counters())
    with pytest.raises(errors.StoreUnavailableError, match="store is closed"):
        _count(store).wait()
    with pytest.raises(errors.StoreUnavailableError, match="store is closed"):
        engine.data_version()
    with pytest.raises(errors.StoreUnavailableError, match="store is closed"):
        engine.begin(wait=True)
    worker = WorkerRecord("w", 1, "h", 1, "0", 30.0, 0, "alive", 1.0, 1.0)
    assert engine.alive(worker) is None


def test_closing_waits_for_the_transaction_that_another_thread_is_in(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/holdfast.db")
    store.engine.begin(wait=True)
    closing = threading.Thread(target=store.engine.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    store.engine.commit()
    closing.join(10)
    assert not closing.is_alive()
    store.close()


def test_a_close_that_is_interrupted_can_be_done_again(tmp_path, monkeypatch):
    store = open_store(f"sqlite:///{tmp_path}/holdfast.db")

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(store._committer, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.close()
    monkeypatch.undo()
    _count(store).wait()
    store.close()
    with pytest.raises(errors.StoreUnavailableError, match="store is closed"):
        _count(store).wait()


EXITING = """
import asyncio, random, sys, threading, time
from holdfast.store import open_store
sys.path.insert(0, sys.argv[1])
from test_store_closing import _users
store = open_store(None if sys.argv[2] == "memory" else "sqlite:///" + sys.argv[2])
for use in _users(store):
    threading.Thread(target=use, daemon=True).start()
time.sleep(0.03)
"""


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_program_that_exits_while_its_threads_use_the_store_ends_in_good_order(tmp_path, where):
    path = "memory" if where == "memory" else f"{tmp_path}/holdfast.db"
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", EXITING, os.path.dirname(__file__), path],  # noqa: PTH120
        capture_output=True, timeout=30, check=False, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    if where == "file":
        with open_store(f"sqlite:///{path}") as store:
            assert store.read(verbs.read_counters())["n"] > 0


def test_a_database_in_memory_outlives_a_transaction_that_could_not_be_undone():
    with open_store(None) as store:
        _count(store).wait()
        store.engine._sound = False  # as when undoing failed
        _count(store).wait()
        assert store.read(verbs.read_counters()) == {"n": 2.0}


def _in_child(check):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if check() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_can_not_open_what_is_open_in_its_parent(tmp_path):
    # SQLite would believe that it holds the parent's locks. When the parent closed, it would take
    # the log away with everything the child was told is durable.
    url = f"sqlite:///{tmp_path}/holdfast.db"
    other = f"sqlite:///{tmp_path}/other.db"

    def refused():
        with open_store(other) as store:  # what nobody had open is no danger
            _count(store).wait()
        try:
            open_store(url)
        except errors.UsageError as error:
            return "forked while the database was open" in str(error)
        return False

    def opened():
        with open_store(url) as store:
            _count(store).wait()
        return True

    with open_store(url) as store:
        _count(store).wait()
        assert _in_child(refused) == 0
        _count(store).wait()
    assert _in_child(opened) == 0
    with open_store(url) as store:
        assert store.read(verbs.read_counters()) == {"n": 3.0}
    connection = apsw.Connection(f"{tmp_path}/holdfast.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_closed_lock_file_takes_nobody_for_dead(tmp_path):
    file = open_lock_file(str(tmp_path / "lock"))
    assert file.hold(3)
    file.release(3)
    file.close()
    assert file.is_held(3)
    assert file.is_held(4)
    assert not file.hold(5)
    file.release(3)

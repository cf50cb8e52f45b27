# ruff: noqa: S603, SLF001  programs of our own; faults are made inside the engine
"""A disk that is full, a page that is damaged, a lock that isn't given back."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

from holdfast import errors
from holdfast.models import MAIN
from holdfast.store import open_store, verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import NewItem, NewTask


def _task(store, name, size=0):
    content = random.Random(name).randbytes(size)  # noqa: S311  the same each time
    payload = encode_payload(content)
    item = NewItem(MAIN, "work", payload, "default", 0, b"", 3)
    return store.commit(verbs.create_task(NewTask(name, "work", payload, (item,)), store.now()))


def test_a_full_disk_is_said_so_and_work_goes_on_when_there_is_room_again(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/holdfast.db") as store:
        writer = store.engine._writer
        pages = writer.pragma("page_count")
        writer.pragma("max_page_count", pages + 8)
        _task(store, "kept").wait()
        with pytest.raises(errors.StoreFullError, match="acknowledged is safe"):
            _task(store, "too large", 200_000).wait()
        writer.pragma("max_page_count", 1_000_000)
        _task(store, "later", 200_000).wait()
        assert [t.task_id for t in store.read(verbs.list_tasks(None, 10))] == ["later", "kept"]


def test_a_small_write_still_fits_beside_one_that_is_too_large(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/holdfast.db") as store:
        writer = store.engine._writer
        writer.pragma("max_page_count", writer.pragma("page_count") + 8)

        async def both():
            async def wait_for(pending):
                return await pending

            return await asyncio.gather(
                wait_for(_task(store, "large", 200_000)),
                wait_for(_task(store, "small")),
                return_exceptions=True,
            )

        large, small = asyncio.run(both())
        assert isinstance(large, errors.StoreFullError)
        assert small.created


LIMITED = """
import resource, signal, sys
from holdfast import errors
from holdfast.store import open_store
sys.path.insert(0, sys.argv[2])
from test_store_faults import _task
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_store("sqlite:///" + sys.argv[1]) as store:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, hard))
    kept = 0
    try:
        for number in range(1000):
            _task(store, f"t{number:04}", 20_000).wait()
            kept += 1
    except errors.StoreError as error:
        print(type(error).__name__, kept, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _task(store, "x", 20_000).wait()
    print("recovered", flush=True)
"""


def test_a_file_that_may_not_grow_loses_nothing_acknowledged_and_recovers(tmp_path):
    path = tmp_path / "holdfast.db"
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), here], capture_output=True, check=True, text=True
    )
    failed, recovered = done.stdout.splitlines()
    name, kept = failed.split()
    assert name in {"StoreFullError", "StoreUnavailableError"}
    assert recovered == "recovered"
    with open_store(f"sqlite:///{path}") as store:
        names = {task.task_id for task in store.read(verbs.list_tasks(None, 2000))}
        assert names == {f"t{number:04}" for number in range(int(kept))} | {"x"}


def test_a_damaged_page_is_said_so(tmp_path):
    path = tmp_path / "holdfast.db"
    with open_store(f"sqlite:///{path}") as store:
        _task(store, "t").wait()
    connection = apsw.Connection(str(path))
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'tasks'").fetchall()
    connection.close()
    with path.open("r+b") as file:
        file.seek((root[0][0] - 1) * 4096)
        file.write(b"\xff" * 4096)
    with open_store(f"sqlite:///{path}") as store:
        with pytest.raises(errors.StoreCorruptError, match="damaged"):
            store.read(verbs.get_task("t"))
        with pytest.raises(errors.StoreCorruptError):
            _task(store, "u").wait()
        store.commit(verbs.add_counts("w", {"n": 1.0})).wait()  # what isn't damaged still works


LOCKED = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


def test_a_lock_held_longer_than_the_deadline_is_an_error_and_not_a_hang(tmp_path):
    path = str(tmp_path / "holdfast.db")
    with open_store(f"sqlite:///{path}", deadline=0.3) as store:
        with subprocess.Popen(
            [sys.executable, "-c", LOCKED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout.readline() == b"locked\n"
            started = time.monotonic()
            with pytest.raises(errors.StoreUnavailableError):
                _task(store, "t").wait()
            assert time.monotonic() - started < 2
            assert store.read(verbs.list_tasks(None, 10)) == []  # readers don't wait
            holder.stdin.close()
        _task(store, "t").wait()


def test_a_frozen_writer_does_not_hang_others(tmp_path):
    path = str(tmp_path / "holdfast.db")
    with open_store(f"sqlite:///{path}", deadline=0.3) as store:
        with subprocess.Popen(
            [sys.executable, "-c", LOCKED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            holder.stdout.readline()
            holder.send_signal(signal.SIGSTOP)
            with pytest.raises(errors.StoreUnavailableError):
                _task(store, "t").wait()
            holder.kill()
        _task(store, "t").wait()


WRITING = """
import sys
from holdfast.store import open_store
sys.path.insert(0, sys.argv[2])
from test_store_faults import _task
with open_store("sqlite:///" + sys.argv[1]) as store:
    number = int(sys.argv[3])
    while True:
        _task(store, f"t{number:06}", 300).wait()
        print(number, flush=True)
        number += 1
"""


def test_what_was_acknowledged_survives_being_killed(tmp_path):
    path = tmp_path / "holdfast.db"
    here = str(Path(__file__).parent)
    acknowledged = 0
    for round_ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITING, str(path), here, str(round_ * 1000)],
            stdout=subprocess.PIPE,
        ) as child:
            last = round_ * 1000 - 1
            for _ in range(20 + 13 * round_):
                last = int(child.stdout.readline())
            child.kill()
            rest = child.stdout.read().split(b"\n")
        last = max([last, *(int(line) for line in rest[:-1])])
        acknowledged += last - round_ * 1000 + 1
        with open_store(f"sqlite:///{path}") as store:
            names = {task.task_id for task in store.read(verbs.list_tasks(None, 100_000))}
        wanted = {f"t{number:06}" for number in range(round_ * 1000, last + 1)}
        assert wanted <= names
        assert len(names) <= acknowledged + round_ + 1  # at most the one in flight, each time


def test_the_limit_of_this_process_is_untouched():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY

# ruff: noqa: S603, SLF001  programs of our own; what an open database is, it is inside
"""Opening: created once, migrated whole or not at all, refused without a trace."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import apsw
import pytest

from holdfast import errors
from holdfast.store import migrations as module
from holdfast.store import open_store, verbs
from holdfast.store.migrations import READER_VERSION, load_migrations, migrate
from holdfast.store.sqlite import APPLICATION_ID, check_library


def _trace(folder):
    """Return every file below a folder with its content."""
    return {
        str(file): (file.stat().st_mode, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _create(path):
    open_store(f"sqlite:///{path}").close()


def _with_reader_version(path, version):
    _create(path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", version)
    connection.close()


def _foreign(path):
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    connection.close()


REFUSED = {
    "a newer database": (
        lambda path: _with_reader_version(path, READER_VERSION + 1), errors.StoreTooNewError,
    ),
    "somebody else's database": (_foreign, errors.NotHoldfastError),
    "a text file": (lambda path: path.write_text("hello\n" * 100), errors.NotHoldfastError),
    "a short file": (lambda path: path.write_bytes(b"x"), errors.NotHoldfastError),
    "zeros": (lambda path: path.write_bytes(bytes(8192)), errors.NotHoldfastError),
    "a directory": (lambda path: path.mkdir(), errors.NotHoldfastError),
    "a fifo": (os.mkfifo, errors.NotHoldfastError),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_ours_is_refused_and_stays_as_it_was(tmp_path, what):
    make, error = REFUSED[what]
    path = tmp_path / "holdfast.db"
    make(path)
    for side in ("-lock", "-wal", "-shm"):
        (tmp_path / f"holdfast.db{side}").unlink(missing_ok=True)
    before = _trace(tmp_path)
    with pytest.raises(error, match=r"not touched|Upgrade"):
        open_store(f"sqlite:///{path}")
    assert _trace(tmp_path) == before


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(errors.StoreOpenError, match="not a directory"):
        open_store(f"sqlite:///{tmp_path}/missing/holdfast.db")
    assert _trace(tmp_path) == {}


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_place_that_can_not_be_written_is_refused(tmp_path, monkeypatch, what):
    path = tmp_path / "holdfast.db"
    _create(path)
    before = _trace(tmp_path)
    place = str(path if what == "file" else tmp_path)
    real = os.access  # root may write anywhere, so the answer is forged
    monkeypatch.setattr(os, "access", lambda p, mode: str(p) != place and real(p, mode))
    with pytest.raises(errors.ReadOnlyStoreError, match="can't be written"):
        open_store(f"sqlite:///{path}")
    monkeypatch.undo()
    assert _trace(tmp_path) == before


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.51.2"])
def test_an_affected_sqlite_is_refused(version):
    with pytest.raises(errors.UnsafeSqliteError, match="WAL-reset"):
        check_library(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0"])
def test_a_fixed_sqlite_is_accepted(version):
    check_library(version)


def test_the_library_is_checked_before_the_file_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.40.1")
    with pytest.raises(errors.UnsafeSqliteError):
        open_store(f"sqlite:///{tmp_path}/holdfast.db")
    assert _trace(tmp_path) == {}


@pytest.mark.parametrize("url", ["mysql://x", "holdfast.db", "sqlite:///", ""])
def test_a_url_that_names_no_engine_is_refused(url):
    with pytest.raises(errors.UrlError):
        open_store(url)


def test_an_open_store_is_returned_as_it_is():
    with open_store(None) as store:
        assert open_store(store) is store


# -- what an open database is ----------------------------------------------------------------------


def test_a_database_is_as_durable_as_promised(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/holdfast.db") as store:
        writer = store.engine._writer
        assert writer.pragma("journal_mode") == "wal"
        assert writer.pragma("synchronous") == 2
        assert writer.pragma("application_id") == APPLICATION_ID
        with pytest.raises(errors.StoreError):
            store.read(verbs.renew_leases("w", 0.0))  # the read connection can't write


def test_a_relative_path_keeps_meaning_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///holdfast.db") as store:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        store.engine._sound = False  # as after a failure: the next write connects again
        store.commit(verbs.add_counts("w", {"n": 1.0})).wait()
        assert store.read(verbs.read_counters()) == {"n": 1.0}
    assert list(elsewhere.iterdir()) == []


SHARED = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000000 + 2)
    except OSError:
        print("held")
"""


def test_opening_again_here_does_not_drop_the_locks_of_sqlite(tmp_path):
    """Closing any descriptor of a file drops this process's locks on it, SQLite's own included.

    Every connection in WAL mode holds a shared lock on 510 bytes of the file, by which others know
    that they aren't the last one (https://sqlite.org/howtocorrupt.html, section 2.2).
    """
    path = str(tmp_path / "holdfast.db")

    def held():
        done = subprocess.run(
            [sys.executable, "-c", SHARED, path], capture_output=True, check=True, text=True
        )
        return done.stdout == "held\n"

    with open_store(f"sqlite:///{path}") as store:
        store.commit(verbs.add_counts("w", {"n": 1.0})).wait()
        assert held()
        open_store(f"sqlite:///{path}").close()
        assert held()
        assert store.read(verbs.read_counters()) == {"n": 1.0}
    assert not held()


def test_a_forked_child_can_not_use_the_store_and_does_not_harm_it(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/holdfast.db") as store:
        child = os.fork()
        if child == 0:
            try:
                store.read(verbs.list_workers())
            except errors.UsageError:
                store.engine.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        store.commit(verbs.add_counts("w", {"n": 1.0})).wait()
        assert store.read(verbs.read_counters()) == {"n": 1.0}


def test_a_database_in_memory_is_read_and_written_by_many_threads():
    with open_store(None) as store:
        seen = []

        def work(name):
            for _ in range(50):
                store.commit(verbs.add_counts(name, {"n": 1.0, "m": 1.0})).wait()
                sums = store.read(verbs.read_counters())
                seen.append(sums["n"] == sums["m"])  # never half a transaction

        threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.read(verbs.read_counters())["n"] == 200
        assert all(seen)


# -- creation and migrations -----------------------------------------------------------------------


def _schema(path):
    connection = apsw.Connection(str(path))
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2").fetchall()
    connection.close()
    return rows


def test_migrations_are_numbered_without_a_gap():
    assert [m.number for m in load_migrations("sqlite")] == list(
        range(1, len(load_migrations("sqlite")) + 1)
    )


def test_a_migrated_schema_equals_a_fresh_one(tmp_path):
    _create(tmp_path / "fresh.db")
    migrated = apsw.Connection(str(tmp_path / "migrated.db"))
    for count in range(1, len(load_migrations("sqlite")) + 1):
        _migrate_to(migrated, count)
    migrated.close()
    assert _schema(tmp_path / "migrated.db") == _schema(tmp_path / "fresh.db")


def _migrate_to(connection, count):
    some = load_migrations("sqlite")[:count]
    original = module.load_migrations
    module.load_migrations = lambda _: some
    try:
        migrate(connection, APPLICATION_ID, 0.0, "x")
    finally:
        module.load_migrations = original


def test_migrating_again_changes_nothing(tmp_path):
    connection = apsw.Connection(str(tmp_path / "x.db"))
    assert migrate(connection, APPLICATION_ID, 0.0, "x") is True
    before = connection.total_changes()
    assert migrate(connection, APPLICATION_ID, 0.0, "x") is False
    assert connection.total_changes() == before
    connection.close()


def test_a_migration_that_fails_is_undone(tmp_path, monkeypatch):
    broken = module.Migration(2, "broken", "CREATE TABLE extra (a); SELECT no_such_column")
    both = (*load_migrations("sqlite")[:1], broken)
    monkeypatch.setattr(module, "load_migrations", lambda _: both)
    with pytest.raises(errors.StoreError):
        open_store(f"sqlite:///{tmp_path}/x.db")
    assert "extra" not in {row[1] for row in _schema(tmp_path / "x.db")}
    monkeypatch.undo()
    _create(tmp_path / "x.db")


KILLED = """
import os, signal, sys
import apsw
from holdfast.store import open_store
left = int(sys.argv[2])
def trace(event, offset, *rest):
    pass
class Vfs(apsw.VFS):
    def __init__(self):
        super().__init__("killing", "")
    def xOpen(self, name, flags):
        return File(name, flags)
class File(apsw.VFSFile):
    def __init__(self, name, flags):
        super().__init__("", name, flags)
    def xWrite(self, data, offset):
        count()
        return super().xWrite(data, offset)
    def xSync(self, flags):
        count()
        return super().xSync(flags)
def count():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
vfs = Vfs()
apsw.config  # keep the module
import functools
apsw.Connection = functools.partial(apsw.Connection, vfs="killing")
open_store("sqlite:///" + sys.argv[1]).close()
print("done")
"""


def test_a_creation_killed_anywhere_is_finished_by_the_next_open(tmp_path):
    _create(tmp_path / "fresh.db")
    expected = _schema(tmp_path / "fresh.db")
    killed = 0
    for step in (0, 1, 2, 3, 5, 9, 17, 30, 45, 60, 10_000):
        path = tmp_path / f"killed-{step}.db"
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(path), str(step)], capture_output=True, check=False
        )
        if done.returncode == -signal.SIGKILL:
            killed += 1
        else:
            assert done.stdout == b"done\n", done.stderr
        with open_store(f"sqlite:///{path}") as store:
            assert store.read(verbs.list_workers()) == []
            assert store.engine._writer.pragma("journal_mode") == "wal"
            assert store.engine._writer.pragma("integrity_check") == "ok"
        assert _schema(path) == expected
    assert killed >= 5


def test_opening_waits_for_a_writer_that_the_write_ahead_log_can_not_be_begun_beside(tmp_path):
    """As when many processes open a new database at once. SQLite itself doesn't wait for that."""
    path = tmp_path / "x.db"
    _create(path)
    program = """
import sys, time, apsw
connection = apsw.Connection(sys.argv[1])
connection.pragma("journal_mode", "delete")
connection.execute("BEGIN IMMEDIATE")
print("writing", flush=True)
time.sleep(0.5)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "writing\n"
        with open_store(f"sqlite:///{path}") as store:
            assert store.engine._writer.pragma("journal_mode") == "wal"


def test_a_database_that_another_process_creates_meanwhile_is_not_taken_for_foreign(tmp_path):
    path = tmp_path / "x.db"

    def meanwhile(_, sql, __):
        if "sqlite_schema" in sql and not path.stat().st_size:
            other = apsw.Connection(str(path))
            with contextlib.suppress(apsw.BusyError):  # it has to wait, where reads are one moment
                migrate(other, APPLICATION_ID, 0.0, str(path))
            other.close()
        return True

    connection = apsw.Connection(str(path))
    connection.exec_trace = meanwhile
    migrate(connection, APPLICATION_ID, 0.0, str(path))
    connection.close()
    _create(path)


CREATE = """
import sys, time
from holdfast.store import open_store, verbs
while time.time() < float(sys.argv[2]):
    pass
with open_store("sqlite:///" + sys.argv[1]) as store:
    store.commit(verbs.add_counts(sys.argv[3], {"n": 1.0})).wait()
"""


def test_processes_that_create_a_database_at_once_all_succeed(tmp_path):
    for round_ in range(3):
        path = str(tmp_path / f"{round_}.db")
        at = str(time.time() + 0.4)
        children = [
            subprocess.Popen(
                [sys.executable, "-c", CREATE, path, at, str(n)], stderr=subprocess.PIPE
            )
            for n in range(4)
        ]
        for child in children:
            _, complaint = child.communicate(timeout=30)
            assert child.returncode == 0, complaint.decode()
        with open_store(f"sqlite:///{path}") as store:
            assert store.read(verbs.read_counters()) == {"n": 4.0}

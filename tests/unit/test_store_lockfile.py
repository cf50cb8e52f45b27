# ruff: noqa: S603  a program of our own
"""The byte a worker holds is free the moment its process is dead, and not before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.writes import worker_in

from holdfast.store import open_store
from holdfast.store.lockfile import open_lock_file

OPEN = Path("/proc/self/fd")

HOLDER = """
import sys
from holdfast.store.lockfile import open_lock_file
assert open_lock_file(sys.argv[1]).hold(7)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return f"{tmp_path}/holdfast.db-lock"


@pytest.fixture
def holder(path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def _in_child(check):
    """Return what `check` gives in a forked child."""
    child = os.fork()
    if child == 0:
        os._exit(int(check()))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_process_frees_its_byte_at_once(path, holder):
    file = open_lock_file(path)
    assert file.is_held(7)
    assert not file.hold(7)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not file.is_held(7)
    assert file.hold(7)
    file.close()


def test_a_stopped_process_still_holds_its_byte(path, holder):
    file = open_lock_file(path)
    holder.send_signal(signal.SIGSTOP)
    assert file.is_held(7)
    file.close()


def test_a_byte_is_held_once_and_probing_does_not_take_it(path):
    file = open_lock_file(path)
    assert not file.is_held(1)
    assert file.hold(1)
    assert not file.hold(1)
    assert file.is_held(1)
    assert not file.is_held(2)
    file.release(1)
    assert not file.is_held(1)
    file.release(1)  # releasing what isn't held does nothing
    file.close()


def test_closing_a_second_open_does_not_drop_the_locks_of_the_first(path):
    first = open_lock_file(path)
    assert first.hold(3)
    second = open_lock_file(path)
    assert second is first
    second.close()
    assert _in_child(lambda: open_lock_file(path).is_held(3)) == 1
    first.release(3)
    first.close()
    assert _in_child(lambda: open_lock_file(path).is_held(3)) == 0


def test_a_byte_that_is_held_when_the_file_is_closed_is_held_until_the_process_ends(path):
    def end():
        file = open_lock_file(path)
        file.hold(3)
        file.close()
        return _in_child(lambda: open_lock_file(path).is_held(3))

    assert _in_child(end) == 1
    file = open_lock_file(path)
    assert not file.is_held(3)
    file.close()


def test_a_forked_child_does_not_inherit_the_lock(path):
    file = open_lock_file(path)
    assert file.hold(4)
    assert _in_child(lambda: file.is_held(4)) == 1  # by its parent
    assert _in_child(lambda: file.hold(4)) == 0
    released, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(released, 1)
        os._exit(int(file.is_held(4)))
    file.release(4)
    os.write(release, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for descriptor in (released, release):
        os.close(descriptor)
    assert _in_child(lambda: file.is_held(4)) == 0
    file.close()


def test_opening_and_closing_leaves_no_descriptor_behind(tmp_path):
    url = f"sqlite:///{tmp_path}/holdfast.db"
    if not OPEN.is_dir():
        pytest.skip("this platform doesn't list a process's descriptors")
    with open_store(url):
        for _ in range(3):  # SQLite keeps a few for itself while the file is open
            open_store(url).close()
        before = len(list(OPEN.iterdir()))
        for _ in range(10):
            open_store(url).close()
        assert len(list(OPEN.iterdir())) <= before


def test_the_lock_file_is_private(path):
    open_lock_file(path).close()
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_two_names_of_one_database_lead_to_one_lock_file(tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    with open_store(f"sqlite:///{tmp_path}/real.db") as real:
        assert real.engine.hold_slot(5)
        with open_store(f"sqlite:///{tmp_path}/link.db") as link:
            assert link.engine.alive(worker_in(5)) is True
            assert link.engine.alive(worker_in(6)) is False


def test_a_database_in_memory_can_not_tell_who_lives():
    with open_store(None) as store:
        assert store.engine.alive(worker_in(1)) is None
        assert store.engine.hold_slot(1) is True
        store.engine.release_slot(1)

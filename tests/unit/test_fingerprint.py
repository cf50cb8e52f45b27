"""A fingerprint changes with what is in a workspace, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from holdfast import SystemClock, errors
from holdfast.agents.fingerprint import fingerprint
from holdfast.store import open_store
from holdfast.workspace import Workspace


def git(root, *words):
    configured = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *configured, *words], cwd=root, check=True, capture_output=True)  # noqa: S603, S607


def fill(root):
    (root / "src").mkdir()
    (root / "src" / "a.py").write_text("print(1)\n")
    (root / "README").write_text("read me\n")
    (root / "link").symlink_to("README")


@pytest.fixture
def tree(tmp_path):
    """A directory that is no checkout."""
    root = tmp_path / "tree"
    root.mkdir()
    fill(root)
    return root


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "checkout"
    root.mkdir()
    fill(root)
    git(root, "init", "-q")
    (root / ".gitignore").write_text("ignored\n*.log\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "begin")
    return root


def edit(root):
    (root / "src" / "a.py").write_text("print(2)\n")


def edit_without_a_trace(root):
    """Change the content but neither size nor times, as far as that can be set."""
    file = root / "src" / "a.py"
    before = file.stat()
    file.write_text("print(3)\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(root):
    (root / "README").rename(root / "old")
    (root / "src" / "a.py").rename(root / "README")
    (root / "old").rename(root / "src" / "a.py")


def lead_elsewhere(root):
    (root / "link").unlink()
    (root / "link").symlink_to("src/a.py")


def replace_by_its_target(root):
    (root / "link").unlink()
    (root / "link").write_text("README")


CHANGES = {
    "a file is edited": edit,
    "a file is edited within its size and time": edit_without_a_trace,
    "a file is added": lambda root: (root / "new").write_text(""),
    "a file in a new directory is added": lambda root: (
        (root / "d").mkdir() or (root / "d" / "f").write_text("x")
    ),
    "a file is removed": lambda root: (root / "README").unlink(),
    "a file is renamed": lambda root: (root / "README").rename(root / "READ"),
    "two files change places": swap,
    "a file is made executable": lambda root: (root / "README").chmod(0o755),
    "a link leads elsewhere": lead_elsewhere,
    "a link becomes a file that says where it led": replace_by_its_target,
    "a file gets a name that is no text": lambda root: (root / "README").rename(
        os.fsdecode(os.path.join(os.fsencode(root), b"\xff\xfe"))  # noqa: PTH118
    ),
}


@pytest.mark.parametrize("where", ["tree", "checkout"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_it_changes_when(request, where, change):
    root = request.getfixturevalue(where)
    before = fingerprint(root)
    change(root)
    assert fingerprint(root).sha256 != before.sha256


@pytest.mark.parametrize("where", ["tree", "checkout"])
def test_it_does_not_change_with_times_owners_empty_directories_and_place(request, where, tmp_path):
    root = request.getfixturevalue(where)
    before = fingerprint(root)
    os.utime(root / "README", (1, 1))
    (root / "README").chmod(0o600)
    (root / "empty").mkdir()
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, symlinks=True)
    assert fingerprint(root).sha256 == fingerprint(copy).sha256 == before.sha256
    assert before.files == (4 if where == "checkout" else 3)


def test_of_a_checkout_what_is_not_ignored_counts_whether_tracked_or_not(checkout):
    before = fingerprint(checkout)
    (checkout / "ignored").mkdir()
    (checkout / "ignored" / "x").write_text("x")
    (checkout / "run.log").write_text("x")
    assert fingerprint(checkout) == before
    (checkout / "new.py").write_text("x")
    untracked = fingerprint(checkout)
    git(checkout, "add", "new.py")
    staged = fingerprint(checkout)
    git(checkout, "commit", "-qm", "more")
    assert before.sha256 != untracked.sha256
    assert untracked.sha256 == staged.sha256 == fingerprint(checkout).sha256


def test_a_directory_inside_a_checkout_counts_alone(checkout):
    before = fingerprint(checkout / "src")
    (checkout / "README").write_text("other")
    assert fingerprint(checkout / "src") == before
    edit(checkout)
    assert fingerprint(checkout / "src").sha256 != before.sha256


def test_checkouts_inside_a_checkout_count(checkout, tmp_path):
    inner = checkout / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "file").write_text("1")
    (inner / ".gitignore").write_text("out\n")
    (inner / "out").write_text("ignored there")
    untracked = fingerprint(checkout)
    git(inner, "add", "-A")
    git(inner, "commit", "-qm", "inner")
    git(checkout, "add", "inner")  # as a submodule is
    tracked = fingerprint(checkout)
    (inner / "file").write_text("2")
    assert untracked.sha256 == tracked.sha256 != fingerprint(checkout).sha256
    assert tracked.files == 4 + 2


def test_holdfasts_own_files_do_not_count_and_are_not_opened(checkout):
    before = fingerprint(checkout)
    Workspace.at(checkout)
    with open_store(f"sqlite:///{checkout}/holdfast.db"):
        assert fingerprint(checkout).sha256 == before.sha256
        os.link(checkout / "holdfast.db-lock", checkout / "innocent")
        assert fingerprint(checkout).sha256 == before.sha256
        (checkout / "innocent").unlink()
    databases = [str(checkout / "holdfast.db")]
    assert fingerprint(checkout, databases=databases).sha256 == before.sha256
    assert fingerprint(checkout).sha256 != before.sha256  # nobody said that it is one


def test_fifos_and_sockets_do_not_count(tree):
    before = fingerprint(tree)
    os.mkfifo(tree / "fifo")
    assert fingerprint(tree) == before


def test_what_lies_behind_a_link_does_not_count(checkout, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(checkout / "src", elsewhere)
    (checkout / "src").symlink_to(elsewhere)  # git still tracks src/a.py
    before = fingerprint(checkout)
    (elsewhere / "a.py").write_text("other")
    assert fingerprint(checkout).sha256 == before.sha256


def test_a_repositorys_own_settings_run_nothing(checkout, tmp_path):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    git(checkout, "config", "core.fsmonitor", str(program))
    subprocess.run(["git", "ls-files", "-o"], cwd=checkout, capture_output=True, check=False)  # noqa: S607
    assert (tmp_path / "ran").exists(), "plain git doesn't run it either"
    (tmp_path / "ran").unlink()
    fingerprint(checkout)
    assert not (tmp_path / "ran").exists()


def test_unchanged_files_are_not_read_again(checkout):
    Workspace.at(checkout)
    for number in range(50):
        (checkout / f"f{number}").write_text("x")
    assert fingerprint(checkout).hashed == 53
    assert fingerprint(checkout).hashed == 53, "files this young may have changed unseen"
    first = fingerprint(checkout, clock=Later())
    edit(checkout)
    second = fingerprint(checkout, clock=Later())
    assert (first.hashed, second.hashed) == (53, 1)
    assert second.sha256 != first.sha256


class Later(SystemClock):
    def now(self):
        return super().now() + 10


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81\xa1x\x01", os.urandom(200)])
def test_a_damaged_cache_costs_time_and_nothing_else(checkout, data):
    before = fingerprint(checkout)
    Workspace.at(checkout)
    (checkout / ".holdfast" / "fingerprint").write_bytes(data)
    assert fingerprint(checkout) == before


def test_a_directory_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(errors.EvidenceUnavailableError):
        fingerprint(tmp_path / "gone")

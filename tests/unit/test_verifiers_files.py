"""A file claim holds while the content is what it was, and unchanged files aren't read again."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from holdfast.clock import SystemClock
from holdfast.evidence import Evidence, EvidencePack, VerdictStatus, WorkspaceRef
from holdfast.verifiers import EvidenceVerifier
from holdfast.verifiers import files as files_module


class LaterClock(SystemClock):
    """A clock that is ahead, so that files just written look long settled."""

    def now(self):
        return super().now() + 60


@pytest.fixture
def here(tmp_path):
    return WorkspaceRef("ws", str(tmp_path))


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.md"
    path.write_bytes(b"first")
    return path


@pytest.fixture
def hashed(monkeypatch):
    """Count the files that are read."""
    read = []
    original = files_module._hash  # noqa: SLF001

    def counting(path, site):
        read.append(path)
        return original(path, site)

    monkeypatch.setattr(files_module, "_hash", counting)
    return read


def check(here, evidence, previous=None, clock=None):
    verifier = EvidenceVerifier(clock=clock or SystemClock())
    return verifier.verify_now(EvidencePack((evidence,)), here, [previous]).verdicts[0]


def test_the_first_check_captures_the_hash(here, notes):
    verdict = check(here, Evidence.file("notes.md"))
    assert verdict.status is VerdictStatus.VERIFIED
    assert verdict.captured["sha256"] == hashlib.sha256(b"first").hexdigest()
    assert verdict.captured["inode"] == notes.stat().st_ino


def test_a_missing_file_fails_and_holds_once_it_is_there(here, notes):
    missing = check(here, Evidence.file("other"))
    assert missing.status is VerdictStatus.FAILED
    notes.rename(notes.with_name("other"))
    assert check(here, Evidence.file("other"), missing).holds


def test_a_changed_file_fails_a_recheck_and_goes_on_failing(here, notes):
    first = check(here, Evidence.file("notes.md"))
    notes.write_bytes(b"other")
    second = check(here, Evidence.file("notes.md"), first)
    third = check(here, Evidence.file("notes.md"), second)
    assert [second.status, third.status] == [VerdictStatus.FAILED] * 2
    notes.write_bytes(b"first")
    assert check(here, Evidence.file("notes.md"), third).holds


def test_a_deleted_file_fails_and_must_come_back_with_the_same_content(here, notes):
    first = check(here, Evidence.file("notes.md"))
    notes.unlink()
    gone = check(here, Evidence.file("notes.md"), first)
    assert gone.status is VerdictStatus.FAILED
    notes.write_bytes(b"forged")
    assert not check(here, Evidence.file("notes.md"), gone).holds


@pytest.mark.usefixtures("notes")
def test_a_file_with_another_content_than_claimed_fails(here):
    right = hashlib.sha256(b"first").hexdigest()
    assert check(here, Evidence.file_hash("notes.md", right.upper())).holds
    assert not check(here, Evidence.file_hash("notes.md", "0" * 64)).holds


@pytest.mark.usefixtures("notes")
def test_a_changed_claim_is_not_answered_by_what_was_captured_before(here):
    first = check(here, Evidence.file("notes.md"), clock=LaterClock())
    other = Evidence.file_hash("notes.md", "0" * 64)
    assert not check(here, other, first, LaterClock()).holds


@pytest.mark.usefixtures("notes")
def test_an_unchanged_file_is_not_read_again(here, hashed):
    first = check(here, Evidence.file("notes.md"), clock=LaterClock())
    second = check(here, Evidence.file("notes.md"), first, LaterClock())
    third = check(here, Evidence.file("notes.md"), second, LaterClock())
    assert third.holds
    assert hashed == ["notes.md"]


@pytest.mark.usefixtures("notes")
def test_a_file_written_just_before_it_was_hashed_is_read_again(here, hashed):
    first = check(here, Evidence.file("notes.md"))
    check(here, Evidence.file("notes.md"), first)
    assert len(hashed) == 2


def test_a_change_that_puts_back_size_and_mtime_is_noticed(here, notes):
    before = notes.stat()
    first = check(here, Evidence.file("notes.md"), clock=LaterClock())
    time.sleep(0.02)
    notes.write_bytes(b"FIRST")
    os.utime(notes, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not check(here, Evidence.file("notes.md"), first, LaterClock()).holds


@pytest.mark.usefixtures("notes")
def test_waiting_elsewhere_does_not_make_a_freshly_written_file_look_settled(here, hashed):
    first = check(here, Evidence.file("notes.md"))
    bound = Evidence.file("notes.md").bound_to(here)
    away = WorkspaceRef("elsewhere", here.root)
    waited = check(away, bound, first, LaterClock())
    assert waited.status is VerdictStatus.UNAVAILABLE
    check(here, bound, waited, LaterClock())
    assert len(hashed) == 2


def test_a_file_that_changes_while_it_is_read_is_no_evidence(here, notes, monkeypatch):
    original = os.read

    def slow_read(fd, count):
        data = original(fd, count)
        with notes.open("ab") as file:
            file.write(b"more")
        return data

    monkeypatch.setattr(files_module.os, "read", slow_read)
    verdict = check(here, Evidence.file("notes.md"))
    assert verdict.status is VerdictStatus.FAILED
    assert "while it was being read" in verdict.detail


@pytest.mark.usefixtures("notes")
def test_an_unreadable_file_is_an_error(here, monkeypatch):
    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files_module.os, "read", refuse)
    assert check(here, Evidence.file("notes.md")).status is VerdictStatus.ERROR


def test_empty_files_and_files_larger_than_a_chunk_are_hashed_whole(here, tmp_path):
    for size in (0, 1024 * 1024, 2_500_000):
        (tmp_path / "big").write_bytes(b"x" * size)
        captured = check(here, Evidence.file("big")).captured
        assert captured["sha256"] == hashlib.sha256(b"x" * size).hexdigest()


def test_ten_thousand_unchanged_files_are_rechecked_in_well_under_a_second(tmp_path, here, hashed):
    for number in range(10_000):
        directory = tmp_path / f"d{number % 50}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number}").write_bytes(b"x")
    items = tuple(Evidence.file(f"d{n % 50}/f{n}") for n in range(10_000))
    verifier = EvidenceVerifier(clock=LaterClock())
    first = verifier.verify_now(EvidencePack(items), here)
    hashed.clear()
    times = []
    for _ in range(3):
        started = time.process_time()  # other processes' time doesn't count
        assert verifier.verify_now(EvidencePack(items), here, first.verdicts).verified
        times.append(time.process_time() - started)
    assert hashed == []
    assert min(times) < 1.0

"""`doctor`: is the database sound, can it be written, who works on it, and what is stuck?"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from holdfast import errors
from holdfast.cli.failures import OTHER
from holdfast.cli.output import moment, size, status
from holdfast.cli.plain import clean, one_line
from holdfast.cli.session import Session, command, database_path, is_missing
from holdfast.models import WorkerRecord
from holdfast.operations import needs_of
from holdfast.states import TaskStatus
from holdfast.store import Store, open_store, verbs
from holdfast.store.postgres_url import hide
from holdfast.version import VERSION

OK = "ok"
NOTE = "note"
PROBLEM = "problem"

LITTLE_SPACE = 100 * 1024 * 1024
"""Bytes free below which a disk is a problem."""

_SHOWN = 20
"""Lines of damage, and blocked tasks, that are listed."""

_PROBED_SLOT = 1 << 40
"""A byte of the lock file no worker will ever have."""

_PROBE = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))
except OSError:
    sys.exit(10)
"""
_SEEN = 10


class Finding(NamedTuple):
    """What one check gave: `ok`, `note` or `problem`."""

    check: str
    level: str
    detail: str


Check = Callable[[], Iterator[Finding]]


@command("doctor")
def doctor_command(session: Session) -> int:
    """Examine the database, its workers, and what is blocked.

    Reads the whole file. Exits with 1 if there is a problem, also one that only a person can
    solve, such as a call in doubt. A damaged file is reported, not changed.
    """
    findings = [*_attempt("library", _library), *_attempt("file", lambda: _place(session.url))]
    if not any(each.level == PROBLEM and each.check == "file" for each in findings):
        findings += _attempt("open", lambda: _opened(session.url))
    problems = sum(each.level == PROBLEM for each in findings)
    document = {
        "database": hide(session.url),
        "problems": problems,
        "findings": [each._asdict() for each in findings],
    }
    lines = [
        f"{status(each.level.ljust(7))}  {clean(f'{each.check:<12} {one_line(each.detail)}')}"
        for each in findings
    ]
    lines.append(f"{problems} problem{'s' * (problems != 1)}." if problems else "All is well.")
    session.output.answer(document, lines)
    return OTHER if problems else 0


def _attempt(name: str, check: Check) -> list[Finding]:
    """Make a check; if it fails, that is what it found."""
    findings: list[Finding] = []
    try:
        findings.extend(check())
    except (errors.HoldfastError, OSError) as error:
        findings.append(Finding(name, PROBLEM, str(error)))
    return findings


# -- the file -------------------------------------------------------------------------------------


def _library() -> Iterator[Finding]:
    import apsw

    from holdfast.store.sqlite import check_library

    version = apsw.sqlite_lib_version()
    check_library(version)
    python = platform.python_version()
    yield Finding("library", OK, f"SQLite {version}, Holdfast {VERSION}, Python {python}")


def _place(url: str) -> Iterator[Finding]:
    path = database_path(url)
    if path is None:
        return
    if is_missing(path):
        yield Finding("file", PROBLEM, f"There is no database at {path}.")
        return
    from holdfast.store.sqlite import check_file

    check_file(str(path))
    yield Finding("file", OK, f"{path}, {size(path.stat().st_size)}, can be read and written")
    free = shutil.disk_usage(path.resolve().parent).free
    yield Finding("disk", OK if free >= LITTLE_SPACE else PROBLEM, f"{size(free)} free")


def _opened(url: str) -> Iterator[Finding]:
    path = database_path(url)
    with open_store(url) as store:
        checks: list[tuple[str, Check]] = [
            ("settings", lambda: _settings(store)),
            ("pages", lambda: _pages(store)),
            ("workers", lambda: _workers(store)),
            ("tasks", lambda: _blocked(store)),
        ]
        if path is not None:
            checks.insert(2, ("lock file", lambda: _locks(store, path)))
        for name, check in checks:
            yield from _attempt(name, check)


def _settings(store: Store) -> Iterator[Finding]:
    mode, synchronous = store.commit(verbs.read_settings()).wait()
    sound = mode in {"wal", "memory"} and synchronous in {"full", "extra"}
    detail = f"journal_mode={mode}, synchronous={synchronous}; a transaction was committed"
    yield Finding("settings", OK if sound else PROBLEM, detail)


def _pages(store: Store) -> Iterator[Finding]:
    damage = store.read(verbs.find_damage())
    if not damage:
        yield Finding("pages", OK, "quick_check found no damage")
    for line in damage[:_SHOWN]:
        yield Finding("pages", PROBLEM, f"damaged: {line}")


def _locks(store: Store, path: Path) -> Iterator[Finding]:
    """Hold a byte, and ask another process whether it sees that."""
    name = f"{path.resolve()}-lock"
    if not store.engine.hold_slot(_PROBED_SLOT):
        yield Finding("lock file", NOTE, "another doctor is trying it at this moment")
        return
    try:
        probe = [sys.executable, "-I", "-S", "-c", _PROBE, name, str(_PROBED_SLOT)]
        seen = subprocess.run(probe, check=False, capture_output=True, timeout=30).returncode  # noqa: S603  our own program
    finally:
        store.engine.release_slot(_PROBED_SLOT)
    if seen == _SEEN:
        yield Finding("lock file", OK, "another process sees a lock that this one holds")
    else:
        detail = f"locks of {name} aren't seen by other processes: is it on a network file system?"
        yield Finding("lock file", PROBLEM, detail)


# -- who works, and what is stuck -----------------------------------------------------------------


def _workers(store: Store) -> Iterator[Finding]:
    workers = store.read(verbs.list_workers())
    alive = {each.worker_id: store.engine.alive(each) for each in workers}
    if not workers:
        yield Finding("workers", NOTE, "none at work")
    for each in workers:
        held = len(store.read(verbs.held_leases(each.worker_id)))
        yield _worker(each, held, alive=alive[each.worker_id], all_dead=not any(alive.values()))


def _worker(record: WorkerRecord, held: int, *, alive: bool | None, all_dead: bool) -> Finding:
    seen = f"seen {moment(record.seen_at)} UTC, holds {held} work items"
    if alive is not False:
        return Finding("workers", OK, f"{record.worker_id} is {record.status}, {seen}")
    detail = f"{record.worker_id} is dead, {seen}"
    if held and all_dead:
        detail += "; nobody is there to take them back: start a worker, or `holdfast sweep`"
        return Finding("workers", PROBLEM, detail)
    return Finding("workers", NOTE, f"{detail}; the next sweep of a worker takes note")


def _blocked(store: Store) -> Iterator[Finding]:
    blocked = store.read(verbs.list_tasks(TaskStatus.BLOCKED, _SHOWN))
    for task in blocked:
        needs = needs_of(store, task.task_id) or ["see `holdfast show`"]
        for need in needs:
            yield Finding("tasks", PROBLEM, f"{task.task_id} ({task.name}) is blocked: {need}")
    if not blocked:
        yield Finding("tasks", OK, "none is blocked")

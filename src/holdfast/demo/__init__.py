"""The demo: a real job, executed by workers that are killed again and again while they do it."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from holdfast import errors
from holdfast.demo.account import Account, add_inspection, draw_up
from holdfast.demo.display import Display, Report, Settings
from holdfast.demo.inspection import Inspection
from holdfast.demo.job import DATABASE, new_runner
from holdfast.demo.library import choose_modules
from holdfast.demo.processes import run_inspection
from holdfast.demo.supervisor import Supervisor, plan_strikes
from holdfast.runner import TaskRunner

__all__ = ["run_demo"]

LARGEST_SEED = 2**32

REMOVING = 5.0
"""Seconds, at most, that removing the files of the job may take."""


def run_demo(
    *,
    modules: int = 40,
    workers: int = 3,
    kills: int = 12,
    seed: int | None = None,
    keep: str | None = None,
    json_output: bool = False,
) -> int:
    """Audit modules of the standard library while workers are killed, and show what came of it.

    Args:
        modules: how many to audit.
        workers: processes at a time.
        kills: how often one is killed with SIGKILL.
        seed: chooses the moments and the victims; made up when None.
        keep: keep the files in this directory, which must be new or empty.
        json_output: print nothing but one JSON object, at the end.

    Returns:
        0; or 1 when anything was lost or repeated.

    Raises:
        UsageError: an argument makes no sense; nothing was started.
    """
    _refuse_nonsense(modules, workers, kills, seed)
    names = choose_modules(modules)
    settings = Settings(workers, kills, secrets.randbelow(LARGEST_SEED) if seed is None else seed)
    display = Display(len(names), quiet=json_output)
    with _ending_in_good_order(), _directory(keep) as directory:
        runner = new_runner(f"sqlite:///{directory / DATABASE}")
        try:
            report = _run(runner, directory, settings, names, display)
        finally:
            runner.close()
        kept = str(directory) if keep is not None else None
        report = msgspec.structs.replace(report, directory=kept)
        display.finish(report)
    return 0 if report.ok else 1


def _refuse_nonsense(modules: int, workers: int, kills: int, seed: int | None) -> None:
    for name, given, least in (
        ("modules", modules, 1),
        ("workers", workers, 1),
        ("kills", kills, 0),
    ):
        if given < least:
            message = f"--{name} {given} makes no sense; use {least} or more."
            raise errors.UsageError(message)
    if seed is not None and seed < 0:
        message = f"--seed {seed} is negative; use 0 or more."
        raise errors.UsageError(message)


@contextmanager
def _ending_in_good_order() -> Generator[None]:
    """Clean up when told to terminate, as Ctrl-C does anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _directory(keep: str | None) -> Generator[Path]:
    """Give the directory of the job: kept, or removed in the end."""
    if keep is None:
        made = Path(tempfile.mkdtemp(prefix="holdfast-demo-")).resolve()
        try:
            yield made
        finally:
            _remove(made)
        return
    directory = Path(keep).absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        message = f"{keep!r} is there already and isn't an empty directory. Name another."
        raise errors.UsageError(message)
    directory.mkdir(parents=True, exist_ok=True)
    yield directory.resolve()


def _remove(directory: Path) -> None:
    """Remove a directory, although what a killed worker had started may still write into it.

    A check of evidence runs in a process of its own, which outlives its worker for a moment.
    """
    deadline = time.monotonic() + REMOVING
    shutil.rmtree(directory, ignore_errors=True)
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
        shutil.rmtree(directory, ignore_errors=True)


def _run(
    runner: TaskRunner, directory: Path, settings: Settings, names: list[str], display: Display
) -> Report:
    submitter = runner.options(workspace=str(directory))
    task_id = submitter.submit(runner.handlers.get("audit_library"), modules=names).task_id
    display.say(
        f"{settings.workers} workers audit {len(names)} modules of the standard library; "
        f"{settings.kills} times one of them is killed (seed {settings.seed})."
    )
    strikes = plan_strikes(settings.kills, len(names), settings.workers, settings.seed)
    supervisor = Supervisor(
        runner.store,
        task_id,
        directory,
        workers=settings.workers,
        strikes=strikes,
        tell=display.tell,
    )
    with display.live():
        supervisor.run()
    seconds = round(supervisor.elapsed, 1)
    account = draw_up(runner.store, task_id, names, directory, supervisor.kills)
    account.problems += supervisor.accidents + supervisor.needs()
    inspection = _inspect(account, directory, task_id)
    return Report(settings, len(supervisor.kills), seconds, task_id, account, inspection)


def _inspect(account: Account, directory: Path, task_id: str) -> Inspection | None:
    try:
        found = msgspec.json.decode(run_inspection(directory, task_id), type=Inspection)
    except (subprocess.SubprocessError, msgspec.DecodeError) as error:
        account.problems.append(f"the evidence couldn't be checked again: {error}")
        return None
    add_inspection(account, found)
    return found

"""The demo, run as its command runs it: real workers, real kills, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from holdfast import errors
from holdfast.demo import run_demo
from holdfast.demo.job import OUTBOX, read_outbox
from holdfast.demo.supervisor import plan_strikes

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


def wait_until(met, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it didn't come"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def test_a_job_whose_workers_are_killed_ends_with_nothing_lost_and_nothing_repeated(
    tmp_path, capsys
):
    code = run_demo(
        modules=8, workers=2, kills=3, seed=7, keep=str(tmp_path / "kept"), json_output=True
    )

    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert code == 0
    assert found["ok"] is True
    assert found["kills"] == 3
    assert found["audited"] == 8
    assert found["proven"] == 9
    assert found["notified"] == 8
    assert found["paid"] == found["outputs"] + found["paid_in_vain"]
    assert found["paid_again"] == 0
    assert found["inspection"]["evidence"] == {"verified": 17, "historic": 8}
    assert len(read_outbox(tmp_path / "kept")) == 8
    assert len(list((tmp_path / "kept" / "reports").glob("*.json"))) == 8


def test_a_notification_that_is_there_twice_makes_the_demo_fail(tmp_path, capsys):
    outbox = tmp_path / "kept" / OUTBOX

    def send_again() -> None:
        wait_until(lambda: outbox.is_file() and outbox.read_bytes().endswith(b"\n"))
        line = outbox.read_bytes().splitlines()[0]
        with outbox.open("ab") as file:
            file.write(line + b"\n")

    tampering = threading.Thread(target=send_again)
    tampering.start()
    code = run_demo(modules=3, workers=1, kills=0, keep=str(tmp_path / "kept"), json_output=True)
    tampering.join()

    found = json.loads(capsys.readouterr().out)
    assert code == 1
    assert found["ok"] is False
    assert found["notified_twice"] == 1
    assert any("2 notifications about" in problem for problem in found["problems"])


@needs_proc
def test_a_demo_that_is_told_to_terminate_leaves_no_process_and_no_files(tmp_path):
    supervisor = start_demo(tmp_path)
    try:
        wait_until(lambda: len(children_of(supervisor.pid)) == 2)
        workers = children_of(supervisor.pid)
        wait_until(lambda: any(tmp_path.glob("holdfast-demo-*/outbox.jsonl")))
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(20) == 128 + signal.SIGTERM
        assert not any(is_running(pid) for pid in workers)
        assert not any(tmp_path.glob("holdfast-demo-*"))
    finally:
        supervisor.kill()
        supervisor.wait()


@needs_proc
def test_a_process_that_writes_a_moment_longer_does_not_make_a_demo_leave_its_files(tmp_path):
    """As a check of evidence does whose worker was killed."""
    supervisor = start_demo(tmp_path)
    try:
        wait_until(lambda: any(tmp_path.glob("holdfast-demo-*/outbox.jsonl")))
        (directory,) = tmp_path.glob("holdfast-demo-*")
        program = (
            "import os, time\n"
            "seen = time.monotonic()\n"
            "while time.monotonic() < seen + 0.5:\n"
            "    open('late', 'w').close()\n"
            "    if os.path.exists('outbox.jsonl'): seen = time.monotonic()\n"
        )
        late = subprocess.Popen(  # noqa: S603  ours
            [sys.executable, "-c", program], cwd=directory, stderr=subprocess.DEVNULL
        )
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(20) == 128 + signal.SIGTERM
        late.wait(20)
        assert not any(tmp_path.glob("holdfast-demo-*"))
    finally:
        supervisor.kill()
        supervisor.wait()


@needs_proc
def test_workers_end_when_their_supervisor_is_killed(tmp_path):
    supervisor = start_demo(tmp_path)
    try:
        wait_until(lambda: len(children_of(supervisor.pid)) == 2)
        workers = children_of(supervisor.pid)
        wait_until(lambda: any(tmp_path.glob("holdfast-demo-*/outbox.jsonl")))
    finally:
        supervisor.kill()
        supervisor.wait()
    wait_until(lambda: not any(is_running(pid) for pid in workers))


def start_demo(directory: Path) -> subprocess.Popen[bytes]:
    program = (
        "import sys; from holdfast.demo import run_demo; "
        "sys.exit(run_demo(modules=40, workers=2, kills=0))"
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "TMPDIR": str(directory)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603  ours


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"modules": 0}, "--modules 0"),
        ({"workers": 0}, "--workers 0"),
        ({"kills": -1}, "--kills -1"),
        ({"seed": -1}, "--seed -1"),
        ({"modules": 100_000}, "Ask for fewer"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_before_anything_starts(
    arguments, told, tmp_path
):
    with pytest.raises(errors.UsageError, match=told):
        run_demo(**arguments, keep=str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def test_a_directory_that_holds_something_is_not_written_into(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(errors.UsageError, match="empty directory"):
        run_demo(modules=1, keep=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_seed_always_gives_the_same_kills():
    assert plan_strikes(12, 40, 3, seed=5) == plan_strikes(12, 40, 3, seed=5)
    assert plan_strikes(12, 40, 3, seed=5) != plan_strikes(12, 40, 3, seed=6)


def test_every_kill_falls_due_while_there_is_work_left():
    assert all(strike.after < 40 for strike in plan_strikes(200, 40, 3, seed=1))

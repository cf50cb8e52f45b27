"""A process killed inside a call: what the next one does depends on the effect class."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, os, signal, sys
from holdfast import Done, NotDone, Secret, TaskRunner, idempotency_key, tool, errors

here, effect, mode = sys.argv[1:4]
runner = TaskRunner(f"sqlite:///{here}/h.db", workspace=here)
kill = mode == "kill"

def note(line):
    with open(here + "/log", "a") as log:
        log.write(line + "\\n")
        log.flush()
        os.fsync(log.fileno())

def outbox():
    try:
        return open(here + "/outbox").read().split()
    except FileNotFoundError:
        return []

def reconcile(arguments, key):
    return Done("found") if key in outbox() else NotDone()

options = {} if "plain" in here or effect != "once" else {
    "reconcile": reconcile, "settle_after": 0.2}

@tool(effect="read")
async def look(n: int) -> int:
    note(f"look {n}")
    return n

@tool(effect=effect, **options)
async def act(secret: Secret[str]) -> str:
    note(f"act {idempotency_key()} {secret.reveal()[:3]}")
    if "after" in here or not kill:
        with open(here + "/outbox", "a") as box:
            box.write(idempotency_key() + "\\n")
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    return "made"

@runner.task
async def job(ctx) -> list:
    secret = Secret("key-0123456789-abcdef")
    return [await ctx.tool(look, 1), await ctx.tool(act, secret)]

try:
    print(runner.run(job))
except errors.TaskBlockedError as blocked:
    print("blocked", blocked.needs[0].split()[2].rstrip(":"))
"""


def run(path, effect, mode):
    done = subprocess.run(  # noqa: S603  this interpreter, a script of ours
        [sys.executable, "-c", SCRIPT, str(path), effect, mode],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout.strip()


def log(path):
    return (path / "log").read_text().splitlines()


@pytest.mark.parametrize("effect", ["read", "idempotent"])
def test_what_may_run_again_runs_again_with_the_same_key(tmp_path, effect):
    assert run(tmp_path, effect, "kill")[0] == -signal.SIGKILL
    assert run(tmp_path, effect, "go") == (0, "[1, 'made']")
    looks = [line for line in log(tmp_path) if line.startswith("look")]
    acts = [line for line in log(tmp_path) if line.startswith("act")]
    assert len(acts) == 2
    assert acts[0] == acts[1]
    # An effect had to wait for the read before it; another read had not.
    assert len(looks) == (1 if effect == "idempotent" else 2)
    for path in tmp_path.iterdir():
        assert b"0123456789" not in path.read_bytes()


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_once_call_is_reconciled_by_the_next_process(tmp_path, where):
    path = tmp_path / where
    path.mkdir()
    assert run(path, "once", "kill")[0] == -signal.SIGKILL
    code, out = run(path, "once", "go")
    assert code == 0
    assert out == ("[1, 'found']" if where == "after" else "[1, 'made']")
    assert len((path / "outbox").read_text().split()) == 1


def test_a_once_call_without_reconcile_waits_for_a_person(tmp_path):
    path = tmp_path / "plain-after"
    path.mkdir()
    run(path, "once", "kill")
    code, out = run(path, "once", "go")
    assert code == 0
    assert out.startswith("blocked ")
    assert len([line for line in log(path) if line.startswith("act")]) == 1

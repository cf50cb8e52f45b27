"""Real worker processes on one database, told to stop, killed, racing and held to a limit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from holdfast import operations
from holdfast.store import open_store, verbs

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from holdfast import Context, TaskRunner, tool

runner = TaskRunner(os.environ["URL"], lease=10.0)

def note(word):
    with open("notes", "a") as notes:
        notes.write(word + "\\n")

@tool(effect="once", name="send")
async def send(word: str) -> None:
    note(word)

@runner.task(name="slow")
async def slow(ctx: Context, n: int) -> int:
    await ctx.tool(send, f"sent {n}")
    Path(f"started-{n}").touch()
    while not Path(f"finish-{n}").exists():
        await asyncio.sleep(0.02)
    return n

@runner.task(name="short", queue="short")
async def short(ctx: Context, n: int) -> None:
    note("begin")
    await asyncio.sleep(0.02)
    note("end")

if __name__ == "__main__":
    task = runner.handlers.get(sys.argv[1])
    Path(f"here-{os.getpid()}").touch()
    while len(list(Path().glob("here-*"))) < int(sys.argv[3]):
        pass
    for n in range(int(sys.argv[2])):
        print(runner.options(key=str(n)).submit(task, n).task_id)
"""

WORKER = (
    "-c",
    "import sys; from holdfast.cli import main; sys.exit(main())",
    "worker",
    "app:runner",
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/holdfast.db"


@pytest.fixture
def start(url, tmp_path):
    (tmp_path / "app.py").write_text(PROGRAM)
    processes: list[subprocess.Popen] = []

    def start(*words: str) -> subprocess.Popen:
        process = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, *words], cwd=tmp_path, env=os.environ | {"URL": url}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def submit(start):
    def submit(name: str, count: int) -> list[str]:
        said, _ = start("app.py", name, str(count), "1").communicate(timeout=60)
        return said.split()

    return submit


def until(holds, seconds=40):
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it never came about"
        time.sleep(0.02)


def notes(place):
    return (place / "notes").read_text().splitlines()


@pytest.mark.parametrize("url", ["postgres"], indirect=True)  # SQLite: tests/cli/test_worker.py
def test_a_draining_worker_lets_items_end_and_hands_back_the_rest(start, submit, store, tmp_path):
    ended, handed_back = submit("slow", 2)
    worker = start(*WORKER, "--grace", "1.5")
    until(lambda: (tmp_path / "started-0").exists() and (tmp_path / "started-1").exists())
    worker.send_signal(signal.SIGTERM)
    until(lambda: [each.status for each in store.read(verbs.list_workers())] == ["draining"])
    assert len(store.read(verbs.list_running())) == 2
    (tmp_path / "finish-0").touch()
    _, told = worker.communicate(timeout=30)
    assert worker.returncode == 0, told
    assert store.read(verbs.get_item(ended, "main")).status == "succeeded"
    item = store.read(verbs.get_item(handed_back, "main"))
    assert (item.status, item.attempts, item.crashes) == ("ready", 0, 0)
    assert store.read(verbs.list_workers()) == []


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_a_second_sigterm_ends_it_at_once_and_loses_nothing(start, submit, store, tmp_path):
    (task,) = submit("slow", 1)
    worker = start(*WORKER, "--grace", "60")
    until((tmp_path / "started-0").exists)
    worker.send_signal(signal.SIGTERM)
    until(lambda: [each.status for each in store.read(verbs.list_workers())] == ["draining"])
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=10)
    assert worker.returncode == 128 + signal.SIGTERM
    (tmp_path / "finish-0").touch()
    start(*WORKER)
    until(lambda: store.read(verbs.get_task(task)).status == "succeeded")
    assert notes(tmp_path) == ["sent 0"]


def test_a_killed_worker_gives_its_place_in_a_limited_queue_to_the_next(
    start, submit, store, tmp_path
):
    first, second = submit("slow", 2)
    asyncio.run(operations.limit_queue(store, "default", running=1))
    one = start(*WORKER)
    until((tmp_path / "started-0").exists)
    start(*WORKER)
    until(lambda: len(store.read(verbs.list_workers())) == 2)
    one.send_signal(signal.SIGKILL)
    one.wait()
    # Whoever waited longest is next; what was taken back waits from now on.
    until((tmp_path / "started-1").exists)
    assert len(store.read(verbs.list_running())) == 1
    (tmp_path / "finish-0").touch()
    (tmp_path / "finish-1").touch()
    for task in (first, second):
        until(lambda task=task: store.read(verbs.get_task(task)).status == "succeeded")
    assert sorted(notes(tmp_path)) == ["sent 0", "sent 1"]


def test_a_limit_holds_over_all_worker_processes(start, submit, store, tmp_path):
    count, limit = 30, 3
    submit("short", count)
    asyncio.run(operations.limit_queue(store, "short", running=limit))
    for _ in range(3):
        start(*WORKER, "--queues", "short", "--concurrency", "4")
    until(lambda: len(store.read(verbs.list_tasks("succeeded", 100))) == count)
    at_once, most = 0, 0
    for word in notes(tmp_path):
        at_once += 1 if word == "begin" else -1
        most = max(most, at_once)
    assert Counter(notes(tmp_path)) == {"begin": count, "end": count}
    assert 1 < most <= limit


def test_two_programs_that_submit_under_the_same_keys_at_once_make_each_task_once(start, store):
    count = 40
    programs = [start("app.py", "slow", str(count), "2") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in programs]
    assert [process.returncode for process in programs] == [0, 0], [err for _, err in said]
    one, two = (out.split() for out, _ in said)
    assert one == two
    assert len(store.read(verbs.list_tasks(None, 1000))) == len(set(one)) == count

"""An older program and today's work side by side, while the schema changes under the older one.

The older one is the last commit that knows one migration only, taken out of the history.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest

from holdfast.store import open_store, verbs
from holdfast.store.migrations import READER_VERSION, load_migrations

ROOT = Path(__file__).parents[2]
SECOND = "src/holdfast/store/sql/sqlite/migrations/0002_fleet.sql"
JOBS = 40

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from holdfast import Context, TaskRunner, tool

runner = TaskRunner(os.environ["URL"], concurrency=2, lease=10.0)
label = os.environ["LABEL"]

@tool(effect="once", name="send")
async def send(n: int) -> str:
    with open("outbox", "a") as outbox:
        outbox.write(f"{n} {label}\\n")
    return label

@runner.task(name="job")
async def job(ctx: Context, n: int) -> str:
    Path(f"{label}.started").touch()
    said = await ctx.tool(send, n)
    while n < 6 and not Path("all-here").exists():
        await asyncio.sleep(0.02)
    await ctx.sleep("nap", 0.01)
    return await ctx.step(str.upper, said)

if __name__ == "__main__":
    for n in range(int(sys.argv[1]), int(sys.argv[2])):
        runner.options(key=str(n)).submit(job, n)
"""


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)  # noqa: S603, S607
    if done.returncode:
        pytest.skip(f"NO HISTORY: git {words[0]}: {done.stderr.decode().strip()[-200:]}")
    return done.stdout


@pytest.fixture(scope="session")
def older(tmp_path_factory) -> Path:
    """The source of the last commit before the second migration."""
    added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", SECOND).decode().strip()
    if not added:
        pytest.skip("NO HISTORY: no commit here adds the second migration")
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(_git("archive", f"{added}^", "src"))) as archive:
        archive.extractall(folder, filter="data")
    files = {path.name for path in (folder / SECOND).parent.iterdir()}
    assert files == {"0001_initial.sql"}
    return folder / "src"


@pytest.fixture
def start(url, tmp_path):
    (tmp_path / "app.py").write_text(PROGRAM)
    processes: list[subprocess.Popen] = []

    def start(source: Path, label: str, *words: str) -> subprocess.Popen:
        environment = os.environ | {"URL": url, "LABEL": label, "PYTHONPATH": str(source)}
        given = words or ("worker", "app:runner", "--grace", "10")
        program = "import sys; from holdfast.cli import main; sys.exit(main())"
        command = [sys.executable, *(("app.py",) if words else ("-c", program)), *given]
        process = subprocess.Popen(  # noqa: S603  our own program
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def _wait(holds, seconds=40):
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it never came about"
        time.sleep(0.02)


def _ended(process):
    _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    return told


def _applied(url):
    """Return the migrations a database has, and the reader version that it asks for."""
    if url.startswith("sqlite"):
        import apsw

        connection = apsw.Connection(url.removeprefix("sqlite:///"))
        rows = connection.execute("SELECT number FROM migrations ORDER BY 1").fetchall()
        version = connection.pragma("user_version")
        connection.close()
    else:
        import psycopg

        server, _, schema = url.partition("?schema=")
        with psycopg.connect(server) as connection:
            query = f"SELECT number FROM {schema}.migrations ORDER BY 1"  # noqa: S608
            rows = connection.execute(query).fetchall()
            query = f"SELECT value FROM {schema}.meta WHERE name = 'reader_version'"  # noqa: S608
            ((version,),) = connection.execute(query).fetchall()
    return [row[0] for row in rows], int(version)


def test_old_and_new_workers_drain_one_queue_together(older, start, url, tmp_path):
    _ended(start(older, "old", "0", str(JOBS // 2)))
    old = start(older, "old")
    _wait((tmp_path / "old.started").exists)
    assert _applied(url) == ([1], 1)
    new = start(ROOT / "src", "new")  # changes the schema under the old one
    _wait((tmp_path / "new.started").exists)
    numbers = [migration.number for migration in load_migrations("sqlite")]
    assert _applied(url) == (numbers, READER_VERSION)
    assert READER_VERSION == 1
    late = start(older, "late")  # an old program still opens it
    _wait((tmp_path / "late.started").exists)
    (tmp_path / "all-here").touch()
    _ended(start(older, "old", str(JOBS // 2), str(JOBS)))
    with open_store(url) as store:
        _wait(lambda: len(store.read(verbs.list_tasks("succeeded", 100))) == JOBS)
        for process in (old, late, new):
            process.send_signal(signal.SIGTERM)
        for process in (old, late, new):
            assert "Traceback" not in _ended(process)
        assert store.read(verbs.list_workers()) == []
        items = [store.read(verbs.get_item(task.task_id, "main"))
                 for task in store.read(verbs.list_tasks(None, 100))]  # fmt: skip
    assert {(item.status, item.crashes) for item in items} == {("succeeded", 0)}
    sent = [line.split() for line in (tmp_path / "outbox").read_text().splitlines()]
    assert Counter(int(n) for n, _ in sent) == Counter(range(JOBS))
    assert {label for _, label in sent} == {"old", "new", "late"}

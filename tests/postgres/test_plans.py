"""What else is there doesn't slow a task down, whatever the server believes there to be.

A plan follows from what the server last counted. Work comes in bursts: while ten thousand items
run, it may still believe that none does, and find any way to one of them as good as another.
"""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest
from support.schemas import drop_schema, new_schema

from holdfast import TaskRunner, operations
from holdfast.models import MAIN
from holdfast.states import ItemStatus
from holdfast.store import verbs
from holdfast.store.postgres_url import parse_url

TASKS = 10
"""So many that the server has settled on its plans: it tries others five times first."""

MANY = 3000

# Columns of items beside those being run, as SQL: by another worker, for another handler, for ever.
CROWD = (
    {"status": "'running'", "lease_owner": "'other'"},
    {"status": "'ready'", "handler": "'elsewhere'"},
    {"status": "'waiting'", "wait": """'{"kind": "signal", "signals": ["never"]}'"""},
)


def _run_tasks(url):
    """Run tasks that make a step, wait for a signal and call a child; close every connection."""
    runner = TaskRunner(url, lease=60)

    @runner.task
    async def child(ctx, number):
        return await ctx.step(abs, number)

    @runner.task
    async def job(ctx, number):
        await ctx.step(abs, number)
        await ctx.signal("go")
        return await ctx.child(child, number)

    async def run(number):
        handle = await runner.asubmit(job, number)
        wanted = verbs.get_item(handle.task_id, MAIN)
        while runner.store.read(wanted).status is not ItemStatus.WAITING:
            await asyncio.sleep(0.02)
        await operations.send_signal(runner.store, handle.task_id, "go")
        assert await handle.result() == number

    async def serve():
        worker = runner.new_worker()
        await worker.start()
        for number in range(TASKS):
            await run(number)
        await worker.stop()

    asyncio.run(serve())
    runner.close()


@pytest.fixture(params=["as elsewhere", "16"])
def url(request, postgres_servers):
    """Where there is nothing yet, on servers that plan differently."""
    if request.param == "16":
        server = postgres_servers("16").url
    else:
        server = request.getfixturevalue("postgres_server_url")
    schema = new_schema(server)
    yield schema
    drop_schema(schema)


@pytest.fixture
def database(url):
    """A connection to the database; what its statements name comes from the test's schema."""
    place = parse_url(url)
    with psycopg.connect(place.server, autocommit=True) as connection:
        connection.execute(f"SET search_path TO {place.schema}")
        yield connection


def _rows_read(database, schema):
    """Return how many rows and entries of indexes were read so far."""
    open_ = "SELECT FROM pg_stat_activity WHERE application_name = 'holdfast/' || %s"
    while database.execute(open_, (schema,)).rowcount:
        time.sleep(0.02)  # a connection tells what it has read when it ends
    read = """
    SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = %s)
         + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = %s)
    """
    return int(database.execute(read, (schema, schema)).fetchone()[0])


def test_a_task_reads_as_few_rows_beside_thousands_of_items_as_alone(url, database):
    schema = parse_url(url).schema

    def count_rows():
        before = _rows_read(database, schema)
        _run_tasks(url)
        return _rows_read(database, schema) - before

    _run_tasks(url)
    for table in ("work_items", "tasks", "journal"):
        database.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        database.execute(f"ANALYZE {table}")
    alone = count_rows()
    names = [
        column.name for column in database.execute("SELECT * FROM work_items LIMIT 0").description
    ]
    database.execute("""
        INSERT INTO workers
        VALUES ('other', 1000, 'elsewhere', 1, '0', 600, 0, 'alive', 0, 0, 'p', now() + '1 hour')
    """)
    for number, columns in enumerate(CROWD):
        named = {"task_id": f"'{number}-' || n", "root_id": f"'{number}-' || n"} | columns
        values = ", ".join(named.get(name, name) for name in names)
        database.execute(f"""
            INSERT INTO work_items SELECT {values}
            FROM (SELECT * FROM work_items LIMIT 1) AS item, generate_series(1, {MANY}) AS n
        """)  # noqa: S608
    beside = count_rows()
    assert beside < alone + MANY / 2

"""A database that stops answering while a worker executes, and is back after its lease."""

from __future__ import annotations

import asyncio
import logging
import time

import psycopg
import pytest
from support import proxy as network
from support.proxy import Proxy
from support.schemas import new_schema

from holdfast import Context, TaskRunner, errors
from holdfast.store.postgres_url import parse_url
from holdfast.testing import PostgresServer

LEASE = 3.0
AWAY = 1.5 * LEASE
"""Seconds for which nothing is answered."""

TICK = 0.02


@pytest.fixture(scope="module")
def server():
    try:
        own = PostgresServer()
    except errors.StoreOpenError as reason:
        pytest.skip(f"NO POSTGRESQL: {reason}")
    yield own
    own.stop()


@pytest.fixture(params=["frozen", "swallowed"])
def outage(request, server):
    """Return the URL of a database, and what begins and ends its silence."""
    proxy = Proxy(server.port)
    url = new_schema(server.url).replace(f":{server.port}/", f":{proxy.port}/")

    def swallow():
        proxy.rule = lambda data: network.SWALLOW

    def pass_on():
        proxy.rule = lambda data: network.PASS

    begin, end = {"frozen": (server.freeze, server.thaw), "swallowed": (swallow, pass_on)}[
        request.param
    ]
    yield url, proxy, begin, end
    end()
    proxy.close()


def _number(number: int) -> int:
    return number


class Ticking:
    """A worker whose handler leaves a trace every few moments, by calls and beside them."""

    def __init__(self, url):
        self.runner = TaskRunner(url, lease=LEASE)
        self.ticks = {}
        self.calls = {}
        self.task = self.runner.task(name="ticking")(self._tick)
        self.enough = asyncio.Event()
        # Looking what is due mustn't hold up the event loop either.
        self.runner.schedule("0 0 29 2 *")(self.task)

    async def _tick(self, ctx: Context) -> int:
        attempt = len(self.ticks)  # one that is handed back isn't counted as an attempt
        number = 0
        while not self.enough.is_set():
            self.ticks[attempt] = time.time()
            if not number % 5:
                await ctx.step(_number, number)
                self.calls[attempt] = time.time()
            number += 1
            await asyncio.sleep(TICK)
        return number


async def _through(outage, runs):
    """Run a worker through an outage; return its numbers."""
    _, proxy, begin, end = outage
    worker = runs.runner.new_worker()
    await worker.start()
    handle = await runs.runner.asubmit(runs.task)
    await _until(lambda: runs.calls)
    await asyncio.sleep(0.5)
    spent, connections = time.process_time(), proxy.connections
    began, expires = time.time(), await asyncio.to_thread(_expires, outage[0])
    await asyncio.to_thread(begin)
    last = time.monotonic()
    ends, stalled = last + AWAY, 0.0
    while last < ends:
        await asyncio.sleep(TICK)
        stalled, last = max(stalled, time.monotonic() - last), time.monotonic()
    spent, connections = time.process_time() - spent, proxy.connections - connections
    await asyncio.to_thread(end)
    back = time.time()
    await _until(lambda: max(runs.calls.values()) > back)
    runs.enough.set()
    await _until(lambda: runs.runner.store.read(_status(handle.task_id)) == "succeeded")
    await worker.stop()
    return began, expires, stalled, spent, connections


def test_the_worker_stops_in_time_and_goes_on_by_itself_when_the_database_is_back(outage, caplog):
    caplog.set_level(logging.WARNING, "holdfast")

    async def main():
        runs = Ticking(outage[0])
        try:
            return runs, *(await _through(outage, runs))
        finally:
            await asyncio.to_thread(runs.runner.close)

    runs, began, expires, stalled, spent, connections = asyncio.run(main())
    assert began < expires <= began + LEASE
    assert runs.ticks[0] < expires, "something was done after the lease was over"
    assert runs.calls[0] < began + LEASE / 3, "what can't be recorded isn't acknowledged"
    assert stalled < LEASE / 2, "the event loop waited for more than one answer"
    assert spent < AWAY / 4, "it was busy with waiting"
    assert connections <= AWAY * 3, "it connected again and again"
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if " is away: " in line]) == 1, lines
    assert len([line for line in lines if " is back." in line]) == 1, lines
    assert len(lines) <= 8, lines  # those two, what ended, and a pair for each loop that waited


def _expires(url):
    """Return when the lease of the worker will be over, by the server's clock, which is ours."""
    place = parse_url(url)
    with psycopg.connect(place.server) as connection:
        query = f"SELECT extract(epoch FROM expires_at) FROM {place.schema}.workers"  # noqa: S608
        return float(connection.execute(query).fetchone()[0])


def _status(task_id):
    from holdfast.store import verbs
    from holdfast.store.verb import verb

    @verb()
    def status():
        return (yield from verbs.get_task(task_id).start()).status

    return status()


async def _until(condition, seconds=30):
    ends = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except errors.StoreUnavailableError:
            pass
        assert time.monotonic() < ends, "it never happened"
        await asyncio.sleep(TICK)

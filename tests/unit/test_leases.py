"""Leases on names of one's own, and each manager alone in three lines."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from holdfast import CheckpointManager, LeaseManager, LLMOutputCache, ToolLedger, errors
from holdfast.journal import Journal
from holdfast.store import open_store


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/h.db"


def test_each_manager_works_alone_in_three_lines(url, tmp_path):
    calls = []

    async def send(to: str) -> str:
        calls.append(to)
        return "sent"

    async def ask(prompt: str) -> str:
        calls.append(prompt)
        return prompt + "!"

    async def main():
        async with LeaseManager(url) as leases, leases.hold("order-17") as journal:
            return [
                await ToolLedger(journal).execute_or_replay(send, to="a@b.c"),
                await LLMOutputCache(journal).get_or_generate(ask, "hi"),
                (await CheckpointManager(journal, str(tmp_path)).commit({"n": 1})).number,
            ]

    assert asyncio.run(main()) == asyncio.run(main()) == ["sent", "hi!", 1]
    assert calls == ["a@b.c", "hi"]


def test_restore_alone_gives_the_newest_checkpoint(url):
    async def main(n):
        async with LeaseManager(url) as leases, leases.hold("loop") as journal:
            manager = CheckpointManager(journal)
            state = await manager.restore(0)
            await manager.commit(state + n)
            return state

    assert [asyncio.run(main(1)) for _ in range(3)] == [0, 1, 2]


def test_one_holder_at_a_time_in_one_process_and_across_managers(url):
    async def main():
        async with LeaseManager(url, worker_id="a") as one, LeaseManager(url) as two:
            async with one.hold("x"):
                for leases in (one, two):
                    with pytest.raises(errors.LeaseHeldError) as caught:
                        await leases.acquire("x")
                    assert caught.value.holder == one.worker_id
                async with two.hold("y"):
                    pass
            async with two.hold("x", wait=1.0):
                pass

    asyncio.run(main())


def test_waiting_for_the_holder(url):
    async def main():
        async with LeaseManager(url) as one, LeaseManager(url) as two:

            async def hold_for_a_while():
                async with one.hold("x"):
                    await asyncio.sleep(0.2)

            holding = asyncio.ensure_future(hold_for_a_while())
            await asyncio.sleep(0.05)
            async with two.hold("x", wait=5):
                assert holding.done()

    asyncio.run(main())


HOLD = """
import asyncio, sys
from holdfast import LeaseManager, ToolLedger

async def send():
    print("in", flush=True)
    await asyncio.sleep(60)

async def main():
    async with LeaseManager(sys.argv[1]) as leases, leases.hold("x", wait=1.0) as journal:
        if sys.argv[2] == "send":
            await ToolLedger(journal).execute_or_replay(send)
        print("in", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def holder(url, what="wait"):
    process = subprocess.Popen(  # noqa: S603  this interpreter, a script of ours
        [sys.executable, "-c", HOLD, url, what], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    return process


def test_a_killed_holder_is_followed_at_once_and_its_once_call_is_in_doubt(url):
    process = holder(url, "send")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    calls = []

    async def send():
        calls.append(1)

    send.__qualname__ = "send"

    async def main():
        async with LeaseManager(url) as leases, leases.hold("x", wait=5) as journal:
            with pytest.raises(errors.InDoubtError):
                await ToolLedger(journal).execute_or_replay(send)

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 2
    assert not calls


def test_a_holder_that_crashed_before_it_recorded_anything_is_followed_at_once(url):
    for _ in range(2):
        process = holder(url)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    async def main():
        async with LeaseManager(url) as leases, leases.hold("x", wait=1.0):
            pass

    asyncio.run(main())


def test_writes_of_a_holder_that_was_taken_for_dead_are_refused(url):
    async def main():
        with open_store(url) as store:
            one, two = LeaseManager(store, lease=0.3), LeaseManager(store, lease=0.3)
            claimed = await one.acquire("x")
            heartbeat = one._heartbeat  # noqa: SLF001  it is to hang
            heartbeat._stopping.set()  # noqa: SLF001
            heartbeat._thread.join()  # noqa: SLF001
            async with two.hold("x", wait=5):
                with pytest.raises(errors.LeaseLostError):
                    one.renew()
                calls = []
                stale = ToolLedger(Journal(store, claimed))
                with pytest.raises(errors.LeaseLostError):
                    await stale.execute_or_replay(calls.append, 1)
                assert not calls
            one.close()
            two.close()

    asyncio.run(main())

"""The README's sample: killed at any moment and started again, it finishes."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from holdfast import errors, open_store, operations
from holdfast.store import verbs

SAMPLE = Path(__file__).with_name("sample.py")


def wait_for(scripts, file: str) -> None:
    for _ in range(2000):
        if scripts.lines(file):
            return
        time.sleep(0.005)
    raise AssertionError(f"{file} was never written")


def test_killed_at_every_boundary_it_finishes(scripts):
    output = scripts.scenario("the_sample_at_every_boundary")
    assert "points" in output


@pytest.mark.parametrize("after", [0.05, 0.12, 0.16, 0.2, 0.24, 0.28])
def test_killed_at_any_moment_it_finishes_when_it_is_started_again(scripts, after):
    first = scripts.start(SAMPLE)
    time.sleep(after)
    first.kill()
    first.communicate()
    again = scripts.start(SAMPLE)
    output, _ = again.communicate(timeout=60)
    if again.returncode:
        assert "TaskBlockedError" in output
    else:
        assert output.strip() == "sent"
        assert len(scripts.lines("outbox")) == 1


@pytest.mark.parametrize("moment", ["SLOW_BEFORE", "SLOW_AFTER"])
def test_killed_inside_send_email_it_is_blocked_until_somebody_resolves_it(scripts, moment):
    first = scripts.start(SAMPLE, **{moment: "30"})
    wait_for(scripts, "entered" if moment == "SLOW_BEFORE" else "outbox")
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    happened = bool(scripts.lines("outbox"))

    again = scripts.start(SAMPLE)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 1
    assert "TaskBlockedError" in output
    assert "holdfast resolve" in output
    assert len(scripts.lines("outbox")) == happened

    entry = output.split("holdfast resolve ")[1].split()[0].rstrip(":")
    resolve(scripts, entry, "done" if happened else "retry")
    assert scripts.run(SAMPLE).strip() == "sent"
    assert len(scripts.lines("outbox")) == 1
    assert len(scripts.lines("paid")) == 1


def test_killed_after_finishing_and_before_exiting_it_sends_no_second_email(scripts):
    first = scripts.start(SAMPLE, LINGER="30")
    assert first.stdout is not None
    assert first.stdout.readline().strip() == "sent"
    first.kill()
    assert scripts.run(SAMPLE).strip() == "sent"
    assert len(scripts.lines("outbox")) == 1
    assert len(scripts.lines("paid")) == 1


def resolve(scripts, entry: str, how: str) -> None:
    store = open_store(f"sqlite:///{scripts.folder / 'holdfast.db'}")
    try:
        asyncio.run(operations.resolve(store, entry, how, "sent"))
        with pytest.raises(errors.UsageError):  # it is settled: nobody can settle it again
            asyncio.run(operations.resolve(store, entry, how, "sent"))
        assert store.read(verbs.list_tasks(None, 10))[0].status == "running"
    finally:
        store.close()

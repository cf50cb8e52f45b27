"""A server that doesn't answer: stopped, cut off, or gone."""

from __future__ import annotations

import logging
import os
import signal
import time

import pytest

from holdfast import errors
from holdfast.models import MAIN
from holdfast.store import open_store, verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import NewItem, NewTask
from holdfast.testing import PostgresServer

DEADLINE = 2.0


@pytest.fixture
def server():
    try:
        own = PostgresServer()
    except errors.StoreOpenError as reason:
        pytest.skip(f"NO POSTGRESQL: {reason}")
    yield own
    own.stop()


def _new(name):
    empty = encode_payload({})
    item = NewItem(MAIN, "work", empty, "default", 0, b"", 3)
    return verbs.create_task(NewTask(name, "work", empty, (item,)), 1.0)


def test_a_stopped_server_is_noticed_within_the_deadline_and_work_goes_on_later(server):
    with open_store(f"{server.url}?listen=off", deadline=DEADLINE) as store:
        store.commit(_new("01a")).wait()
        store.read(verbs.list_tasks(None, 10))
        stopped = server.pids()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(errors.StoreUnavailableError):
                store.read(verbs.list_tasks(None, 10))
            assert time.monotonic() - started < DEADLINE + 1
            with pytest.raises(errors.StoreUnavailableError):
                store.commit(_new("01b")).wait(DEADLINE)
            assert time.monotonic() - started < 4 * DEADLINE + 2
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        store.commit(_new("01c")).wait()
        assert {task.task_id for task in store.read(verbs.list_tasks(None, 10))} >= {"01a", "01c"}


def test_a_server_that_restarts_costs_one_line_in_the_log_each_way(server, caplog):
    caplog.set_level(logging.WARNING, "holdfast")
    with open_store(f"{server.url}?listen=off", deadline=DEADLINE) as store:
        store.commit(_new("01a")).wait()
        server.process.send_signal(signal.SIGQUIT)
        server.process.wait(20)
        started = time.process_time()
        for _ in range(5):
            with pytest.raises(errors.StoreUnavailableError):
                store.commit(_new("01b")).wait()
        assert time.process_time() - started < 1
        server.start()
        store.commit(_new("01b")).wait()
        assert [task.task_id for task in store.read(verbs.list_tasks(None, 10))] == ["01b", "01a"]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.rpartition(" is ")[2][:4] for line in lines] == ["away", "back"]

# ruff: noqa: FBT003, SLF001  its inside is what is tested
"""Group commit: few transactions, kept order, failures that stay with whoever caused them."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time

import apsw
import pytest

from holdfast import errors
from holdfast.clock import SystemClock
from holdfast.ids import new_id
from holdfast.models import MAIN, Entry, WorkerRecord
from holdfast.store import Store, open_store, verbs
from holdfast.store.engine import BusyError
from holdfast.store.payload import encode_payload
from holdfast.store.sqlite import SqliteEngine
from holdfast.store.verb import run, verb
from holdfast.store.verbs import NewItem, NewTask

TASK = "task"


@verb()
def failing(error):
    yield from run("task.get", task_id=TASK)
    raise error


class Watched(SqliteEngine):
    """The SQLite engine with its commits counted, and faults where a test wants them."""

    def __init__(self, path):
        self.commits = 0
        self.settled = 0
        self.faults = []
        self.busy = 0
        super().__init__(path, SystemClock(), 0.5)

    def begin(self, *, wait):
        if self.busy:
            self.busy -= 1
            if not wait:
                raise BusyError
        super().begin(wait=wait)

    def commit(self):
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and fault[0] == "before":
            if isinstance(fault[1], errors.StoreFullError):
                self.rollback()  # an engine that is full has undone it
            raise fault[1]
        super().commit()
        self.commits += 1
        if fault is not None:
            raise fault[1]

    def settle(self, question):
        self.settled += 1
        return super().settle(question)


@pytest.fixture
def engine(tmp_path):
    return Watched(f"{tmp_path}/holdfast.db")


@pytest.fixture
def store(engine):
    with Store(engine, SystemClock(), deadline=0.5) as opened:
        item = NewItem(MAIN, "work", encode_payload({}), "default", 0, b"", 3)
        new = NewTask(TASK, "work", encode_payload({}), (item,))
        opened.commit(verbs.create_task(new, opened.now())).wait()
        engine.commits = 0
        yield opened


def note(store, name, item=None):
    return store.commit(verbs.add_event(TASK, item, name, {}, store.now()))


def notes(store):
    return [event.type for event in store.read(verbs.list_events(TASK))][1:]


def test_what_many_tasks_write_in_one_turn_is_one_commit(store, engine):
    async def main():
        await asyncio.gather(*(_await(note(store, f"n{number}")) for number in range(200)))

    asyncio.run(main())
    assert engine.commits == 1
    assert notes(store) == [f"n{number}" for number in range(200)]


async def _await(pending):
    return await pending


async def _write(store, name, many):
    for number in range(many):
        await note(store, f"{name}{number}")


def test_a_task_that_commits_alone_lets_others_have_a_turn_all_the_same(store, engine):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main():
        counting = asyncio.ensure_future(count())
        await _write(store, "n", 100)
        counting.cancel()

    asyncio.run(main())
    assert engine.commits == 100
    assert turns >= 20


def test_tasks_that_write_side_by_side_share_commits_however_alone_one_was_before(store, engine):
    async def main():
        await _write(store, "alone", 10)
        engine.commits = 0
        await asyncio.gather(*(_write(store, name, 50) for name in ("a", "b", "c")))

    asyncio.run(main())
    assert engine.commits == 50
    assert len(notes(store)) == 160


def test_what_many_threads_write_at_once_is_few_commits(store, engine):
    engine.execute, slow = _slowly(engine), engine.execute
    together = threading.Barrier(40)

    def write(number):
        together.wait()
        note(store, f"n{number}").wait()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.execute = slow
    assert len(notes(store)) == 40
    assert engine.commits < 20


def _slowly(engine):
    def execute(statement, original=engine.execute):
        if statement.query == "event.put":
            time.sleep(0.001)
        return original(statement)

    return execute


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_became_of_a_commit_is_not_found_out_on_the_event_loop(store, engine, moment):
    threads = []
    settle = engine.settle
    engine.settle = lambda question: threads.append(threading.current_thread()) or settle(question)
    engine.faults.append((moment, errors.StoreUnavailableError("lost")))

    async def main():
        first = asyncio.gather(*(_await(note(store, f"n{n}")) for n in range(3)))
        await asyncio.sleep(0)
        second = _await(note(store, "later"))
        return await asyncio.gather(first, second, return_exceptions=True)

    kept, later = asyncio.run(main())
    assert later is None
    assert isinstance(kept, errors.StoreUnavailableError) == (moment == "before")
    assert notes(store) == [*(["n0", "n1", "n2"] if moment == "after" else []), "later"]
    assert [thread is threading.main_thread() for thread in threads] == [False]


def test_one_failing_operation_fails_alone(store, engine):
    async def main():
        return await asyncio.gather(
            *(_await(note(store, f"n{number}")) for number in range(10)),
            _await(store.commit(failing(errors.UsageError("no")))),
            *(_await(note(store, f"n{number}")) for number in range(10, 20)),
            return_exceptions=True,
        )

    results = asyncio.run(main())
    assert [type(result) for result in results if result is not None] == [errors.UsageError]
    assert notes(store) == [f"n{number}" for number in range(20)]
    assert engine.commits == 1


def test_a_verb_that_fails_half_way_leaves_nothing(store):
    @verb()
    def half():
        yield from verbs.add_event(TASK, None, "half", {}, 0.0).start()
        message = "no"
        raise errors.UsageError(message)

    with pytest.raises(errors.UsageError):
        store.commit(half()).wait()
    assert notes(store) == []


def test_a_database_that_stays_locked_fails_all_waiters_after_one_deadline(store, tmp_path):
    other = apsw.Connection(f"{tmp_path}/holdfast.db")
    other.execute("BEGIN IMMEDIATE")

    async def main():
        started = time.monotonic()
        results = await asyncio.gather(
            *(_await(note(store, f"n{number}")) for number in range(20)), return_exceptions=True
        )
        return results, time.monotonic() - started

    results, seconds = asyncio.run(main())
    other.execute("ROLLBACK")
    other.close()
    assert {type(result) for result in results} == {errors.StoreUnavailableError}
    assert seconds < 1.5
    note(store, "later").wait()
    assert notes(store) == ["later"]


def test_a_busy_database_is_left_to_the_committers_own_thread_and_the_loop_goes_on(store, engine):
    engine.busy = 1

    async def main():
        pending = asyncio.ensure_future(_await(note(store, "n")))
        turns = 0
        while not pending.done():
            await asyncio.sleep(0)
            turns += 1
        await pending
        return turns

    assert asyncio.run(main()) > 1
    assert notes(store) == ["n"]
    assert "holdfast-committer" in {thread.name for thread in threading.enumerate()}


def test_what_does_not_fit_together_is_committed_one_by_one(store, engine):
    engine.faults.append(("before", errors.StoreFullError("no room")))

    async def main():
        return await asyncio.gather(*(_await(note(store, f"n{number}")) for number in range(3)))

    assert asyncio.run(main()) == [None] * 3
    assert engine.commits == 3
    assert notes(store) == ["n0", "n1", "n2"]


# -- a commit whose answer is lost -----------------------------------------------------------------


def _lost():
    return errors.StoreUnavailableError("connection lost")


@pytest.mark.parametrize("landed", [True, False])
def test_a_lost_answer_is_settled_by_the_writers_mark(store, engine, landed):
    engine.faults.append(("after" if landed else "before", _lost()))
    if landed:
        note(store, "n").wait()
    else:
        with pytest.raises(errors.StoreUnavailableError):
            note(store, "n").wait()
    assert engine.settled == 1
    assert notes(store) == (["n"] if landed else [])
    note(store, "later").wait()
    assert notes(store)[-1] == "later"


@pytest.mark.parametrize("landed", [True, False])
def test_a_lost_answer_to_an_append_is_settled_by_its_entry(store, engine, landed):
    lease = _claim(store)
    marks = _marks(engine)
    engine.faults.append(("after" if landed else "before", _lost()))
    appending = store.commit(verbs.append_entries(lease, _append(store), store.now()))
    if landed:
        appending.wait()
    else:
        with pytest.raises(errors.StoreUnavailableError):
            appending.wait()
    assert len(store.read(verbs.read_journal(TASK, MAIN))) == int(landed)
    assert _marks(engine) == marks  # it needed none
    store.commit(verbs.append_entries(lease, _append(store), store.now())).wait()
    assert len(store.read(verbs.read_journal(TASK, MAIN))) == 1 + landed


def test_a_refused_write_is_no_witness_of_its_batch(store, engine):
    lease = _claim(store)
    append = _append(store)
    store.commit(verbs.expire_worker(lease.owner, None, store.now())).wait()

    async def main():
        return await asyncio.gather(
            _await(store.commit(verbs.append_entries(lease, append, store.now()))),
            _await(note(store, "n")),
            return_exceptions=True,
        )

    engine.faults.append(("after", _lost()))
    refused, noted = asyncio.run(main())
    assert isinstance(refused, errors.LeaseLostError)
    assert noted is None


def test_a_commit_that_can_not_be_settled_says_so_and_later_ones_work(store, engine, monkeypatch):
    engine.faults.append(("after", _lost()))

    def broken(_):
        raise _lost()

    monkeypatch.setattr(engine, "settle", broken)
    with pytest.raises(errors.StoreUnavailableError, match="there whole or not"):
        note(store, "n").wait()
    monkeypatch.undo()
    note(store, "later").wait()
    assert notes(store) == ["n", "later"]


def test_a_connection_that_breaks_is_replaced(store, engine):
    engine._writer.close(True)
    with pytest.raises(errors.StoreError):
        note(store, "n").wait()
    note(store, "later").wait()
    assert notes(store) == ["later"]


def _claim(store):
    slot = store.read(verbs.next_slot())
    at = store.now()
    worker = new_id(at)
    record = WorkerRecord(worker, slot, "h", 1, "0", 30.0, 0, "alive", at, at)
    store.commit(verbs.register_worker(record)).wait()
    return store.commit(verbs.claim_by_name(worker, TASK, MAIN, at)).wait().lease


def _append(store, count=1):
    item = store.read(verbs.get_item(TASK, MAIN))
    head, entries = item.chain_head, []
    for seq in range(item.seq + 1, item.seq + 1 + count):
        head = hashlib.sha256(head + bytes([seq])).digest()
        entries.append(
            Entry(seq, "step", "s", "", b"i", "done", None, None, False, 1, 0.0, 0, None, None,
                  None, head)
        )  # fmt: skip
    return verbs.Append(item.seq, tuple(entries), (), head)


def _marks(engine):
    return engine._reader.execute("SELECT max(batch) FROM writers").fetchall()


# -- interruptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["verb", "before", "after"])
def test_ctrl_c_while_committing_ends_the_call_and_not_the_store(store, engine, where):
    if where == "verb":
        pending = store.commit(failing(KeyboardInterrupt()))
    else:
        engine.faults.append((where, KeyboardInterrupt()))
        pending = note(store, "n")
    with pytest.raises(KeyboardInterrupt):
        pending.wait()
    note(store, "later").wait()
    assert notes(store) == (["n", "later"] if where == "after" else ["later"])


def test_a_canceled_await_does_not_disturb_the_others(store):
    async def main():
        doomed = asyncio.ensure_future(_await(note(store, "doomed")))
        await asyncio.sleep(0)
        doomed.cancel()
        await note(store, "n")

    asyncio.run(main())
    assert notes(store)[-1] == "n"


def test_what_a_canceled_await_has_submitted_is_committed_though_nobody_else_writes(store):
    async def main():
        doomed = asyncio.ensure_future(_await(note(store, "doomed")))
        await asyncio.sleep(0)
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        assert notes(store) == ["doomed"]

    asyncio.run(main())


def test_a_listener_that_fails_does_not_stop_the_others(store):
    heard = []
    store.on_wake(lambda: 1 / 0)
    off = store.on_wake(lambda: heard.append(1))
    store.commit(verbs.cancel_task(TASK, "why", store.now())).wait()
    assert heard
    off()
    note(store, "n").wait()


# -- write-behind and closing ----------------------------------------------------------------------


def test_what_is_left_behind_is_durable_before_a_later_awaited_write(store, engine):
    async def main():
        tickets = [note(store, f"b{number}").behind() for number in range(5)]
        assert not any(ticket.done for ticket in tickets)
        await note(store, "awaited")
        assert all(ticket.done and ticket.error is None for ticket in tickets)

    asyncio.run(main())
    assert engine.commits == 1
    assert notes(store) == [*(f"b{number}" for number in range(5)), "awaited"]


def test_what_is_left_behind_is_committed_soon_even_when_nobody_waits(store):
    async def main():
        ticket = note(store, "b").behind()
        for _ in range(200):
            await asyncio.sleep(0.005)
            if ticket.done:
                return

    asyncio.run(main())
    assert notes(store) == ["b"]


def test_a_loop_that_ended_does_not_keep_the_next_one_from_committing(store):
    async def leave():
        note(store, "first").behind()

    async def leave_and_look():
        ticket = note(store, "second").behind()
        for _ in range(200):
            await asyncio.sleep(0.005)
            if ticket.done:
                return

    asyncio.run(leave())
    asyncio.run(leave_and_look())
    assert notes(store) == ["first", "second"]


def test_writing_behind_works_without_an_event_loop(store):
    ticket = note(store, "b").behind()
    for _ in range(400):
        if ticket.done:
            break
        time.sleep(0.005)
    assert notes(store) == ["b"]


def test_closing_commits_what_is_queued(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    store = open_store(url)
    item = NewItem(MAIN, "work", encode_payload({}), "default", 0, b"", 3)

    async def main():
        new = NewTask(TASK, "work", encode_payload({}), (item,))
        store.commit(verbs.create_task(new, store.now())).behind()
        store.close()

    asyncio.run(main())
    store.close()
    with open_store(url) as again:
        assert again.read(verbs.get_task(TASK)).task_id == TASK


def test_a_closed_store_refuses_and_nobody_hangs(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/x.db")
    committer = store._committer
    pending = store.commit(verbs.renew_leases("w", 0.0))
    refuse, committer._refuse_when_closed = committer._refuse_when_closed, lambda: None
    store.close()
    # Submitted at the very moment of closing: past the check, before the drain.
    with pytest.raises(errors.StoreUnavailableError, match="closed"):
        pending.wait()

    async def main():
        await asyncio.wait_for(_await(store.commit(verbs.renew_leases("w", 0.0))), 2)

    with pytest.raises(errors.StoreUnavailableError, match="closed"):
        asyncio.run(main())
    committer._refuse_when_closed = refuse
    with pytest.raises(errors.StoreUnavailableError, match="closed"):
        store.commit(verbs.renew_leases("w", 0.0)).wait()
    with pytest.raises(errors.StoreUnavailableError):
        store.read(verbs.list_workers())


def test_writes_of_loops_in_several_threads_are_all_answered(store):
    async def main(name):
        for number in range(30):
            await note(store, f"{name}-{number}")

    threads = [threading.Thread(target=asyncio.run, args=(main(name),)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    found = notes(store)
    for name in ("a", "b", "c"):
        mine = [each for each in found if each.startswith(name)]
        assert mine == [f"{name}-{number}" for number in range(30)]

"""Schedules: each due time makes one task, whoever sees it, however often."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import ExitStack

import pytest

from holdfast import Context, TaskRunner, errors, operations
from holdfast.cron import Cron
from holdfast.store import verbs
from holdfast.store.payload import encode_payload
from holdfast.store.rounds import drive
from holdfast.store.verbs import NewSchedule, NewTask

NIGHTLY = NewSchedule("nightly", "job", b"input", "0 3 * * *", "Europe/Berlin", b"\x80")
DAY = 86_400.0


def only(world):
    (schedule,) = world.read(verbs.list_schedules())
    return schedule


def task(world, name):
    return NewTask(name, "work", encode_payload({}), (world.item("main"),), key="schedule:nightly")


# -- the store -------------------------------------------------------------------------------------


def test_of_two_workers_that_see_the_same_due_time_one_submits(world):
    world.do(verbs.put_schedules([(NIGHTLY, 5.0)]))
    due, other = only(world), world.other()
    other.engine.begin(wait=True)
    first = drive(
        verbs.fire_schedule(due, 9.0, task(world, "01a"), world.now).start(), other.engine.execute
    )
    answers = []

    def fire():
        verb = verbs.fire_schedule(due, 9.0, task(world, "01b"), world.now)
        answers.append(world.store.commit(verb).wait())

    thread = threading.Thread(target=fire)
    thread.start()
    thread.join(0.15)
    assert thread.is_alive()
    other.engine.commit()
    thread.join(20)
    assert answers == [None]
    assert first.created
    assert [each.task_id for each in world.read(verbs.list_tasks(None, 9))] == ["01a"]
    fired = only(world)
    assert (fired.next_at, fired.last_at, fired.last_task) == (9.0, 5.0, "01a")


def test_a_time_whose_task_is_there_already_makes_no_second(world):
    world.do(verbs.put_schedules([(NIGHTLY, 5.0)]))
    world.do(verbs.fire_schedule(only(world), 9.0, task(world, "01a"), world.now))
    again = world.do(verbs.fire_schedule(only(world), 12.0, task(world, "01b"), world.now))
    assert (again.created, again.task.task_id) == (False, "01a")
    assert only(world).last_task == "01a"


def test_a_declared_schedule_keeps_its_next_time_until_its_times_change(world):
    world.do(verbs.put_schedules([(NIGHTLY, 5.0)]))
    other = NewSchedule("nightly", "other", b"new", "0 3 * * *", "Europe/Berlin", b"\x81")
    world.do(verbs.put_schedules([(other, 7.0)]))
    kept = only(world)
    assert (kept.task, kept.input, kept.options, kept.next_at) == ("other", b"new", b"\x81", 5.0)
    moved = NewSchedule("nightly", "other", b"new", "0 4 * * *", "Europe/Berlin", b"\x81")
    world.do(verbs.put_schedules([(moved, 8.0)]))
    assert (only(world).cron, only(world).next_at) == ("0 4 * * *", 8.0)


def test_what_was_seen_before_the_schedule_was_changed_is_not_submitted(world):
    world.do(verbs.put_schedules([(NIGHTLY, 5.0)]))
    seen = only(world)
    moved = NewSchedule("nightly", "job", b"input", "0 3 * * *", "Asia/Tokyo", b"\x80")
    world.do(verbs.put_schedules([(moved, 5.0)]))
    assert world.do(verbs.fire_schedule(seen, 9.0, task(world, "01a"), world.now)) is None
    world.do(verbs.set_schedule("nightly", 5.0, paused=True))
    assert world.do(verbs.fire_schedule(only(world), 9.0, task(world, "01a"), world.now)) is None
    assert world.read(verbs.list_tasks(None, 9)) == []


def test_the_next_is_told_with_the_seconds_until_it_is_due(world):
    world.now = time.time()
    later = NewSchedule("later", "job", b"", "0 3 * * *", "UTC", b"\x80")
    world.do(verbs.put_schedules([(NIGHTLY, world.now - 5), (later, world.now + 60)]))
    names = ("nightly", "later", "unknown")
    (one, overdue), (two, ahead) = world.read(verbs.coming_schedules(names, world.now))
    assert (one.name, two.name) == ("nightly", "later")
    assert -7 < overdue <= -4.9
    assert 58 < ahead <= 60.1
    assert world.read(verbs.coming_schedules(("unknown",), world.now)) == []
    world.do(verbs.set_schedule("nightly", world.now, paused=True))
    world.do(verbs.remove_schedule("later"))
    assert world.read(verbs.coming_schedules(names, world.now)) == []


# -- whole programs --------------------------------------------------------------------------------


@pytest.fixture
def program(world):
    """Make a runner with one handler, as another program would; all are closed at the end."""
    with ExitStack() as made:

        def make(*, known=True):
            runner = TaskRunner(world.url, lease=5.0)
            made.callback(runner.close)
            if known:

                @runner.task(name="report")
                async def report(ctx: Context, topic: str = "") -> str:
                    return topic

            return runner

        yield make


def keys(runner):
    return sorted(each.key for each in runner.store.read(verbs.list_tasks(None, 100)))


async def work(runners, until, seconds=15.0):
    """Let a worker of each program run until something holds."""
    workers = [runner.new_worker() for runner in runners]
    for worker in workers:
        await worker.start()
    ends = time.monotonic() + seconds
    while not until() and time.monotonic() < ends:
        await asyncio.sleep(0.02)
    for worker in workers:
        await worker.stop()
    assert until()


def test_each_due_time_makes_one_task_however_many_workers_run(program):
    runners = [program() for _ in range(3)]
    for runner in runners:
        runner.schedule("* * * * * *", name="tick")(runner.handlers.get("report"), "tides")
    first = runners[0]
    asyncio.run(work(runners, lambda: len(first.store.read(verbs.list_tasks("succeeded", 9))) > 1))
    found = first.store.read(verbs.list_tasks(None, 100))
    (tick,) = first.store.read(verbs.list_schedules())
    last = int(tick.last_at)
    wanted = [f"schedule:tick:{Cron('', 'UTC').shown(last - n)}" for n in range(len(found))]
    assert keys(first) == sorted(wanted)  # one for each second, and none is missing
    assert {first.outcome(each) for each in found if each.status == "succeeded"} == {"tides"}


def test_times_missed_while_nobody_ran_make_one_task_together(program):
    runner = program()
    report = runner.schedule("0 9 * * *", timezone="Europe/Berlin")(runner.handlers.get("report"))
    assert report is runner.handlers.get("report")
    asyncio.run(work([runner], lambda: runner.store.read(verbs.list_schedules())))
    (schedule,) = runner.store.read(verbs.list_schedules())
    missed = schedule.next_at - 4 * DAY
    runner.store.commit(verbs.set_schedule("report", missed, paused=False)).wait()
    second = program()
    second.schedule("0 9 * * *", timezone="Europe/Berlin")(second.handlers.get("report"))
    asyncio.run(work([runner, second], lambda: keys(runner)))
    cron = Cron("0 9 * * *", "Europe/Berlin")
    assert keys(runner) == [f"schedule:report:{cron.shown(missed)}"]
    (schedule,) = runner.store.read(verbs.list_schedules())
    assert (schedule.last_at, schedule.next_at) == (missed, cron.next_after(runner.store.now()))


def test_what_a_program_can_not_submit_it_leaves_to_others(program, caplog):
    """As in a rolling upgrade: the old program's function doesn't take the new one's arguments."""
    old, new = program(known=False), program()

    @old.task(name="report")
    async def without_topic(ctx: Context) -> None: ...

    old.schedule("0 9 * * *", name="daily")(without_topic)
    new.schedule("0 9 * * *", name="daily")(new.handlers.get("report"), topic="tides")

    async def main() -> None:
        worker = old.new_worker()
        await worker.start()
        await work([old], lambda: old.store.read(verbs.list_schedules()))
        await work([new], lambda: b"tides" in new.store.read(verbs.list_schedules())[0].input)
        await operations.change_schedule(new.store, "daily", "run")
        async with asyncio.timeout(10):
            while not caplog.records:
                await asyncio.sleep(0.02)
        assert keys(old) == []
        await worker.stop()

    with caplog.at_level(logging.WARNING, logger="holdfast"):
        asyncio.run(main())
    assert ["left to other programs" in each.getMessage() for each in caplog.records] == [True]
    asyncio.run(work([new], lambda: keys(new)))


def test_a_schedule_that_no_running_program_declares_submits_nothing(program):
    first, second = program(), program()
    first.schedule("* * * * * *", name="tick")(first.handlers.get("report"))
    asyncio.run(work([first], lambda: first.store.read(verbs.list_schedules())))
    before = keys(first)
    second.schedule("0 9 * * *")(second.handlers.get("report"))
    asyncio.run(work([second], lambda: len(second.store.read(verbs.list_schedules())) == 2))
    assert keys(second) == before


def test_a_worker_of_one_task_only_submits_nothing(program):
    runner = program()
    report = runner.schedule("* * * * * *", name="tick")(runner.handlers.get("report"))
    assert runner.run(report, topic="x") == "x"
    assert runner.store.read(verbs.list_schedules()) == []


def test_people_pause_resume_run_and_remove_schedules(program):
    runner = program()
    runner.schedule("0 9 * * *", name="daily")(runner.handlers.get("report"))
    asyncio.run(work([runner], lambda: runner.store.read(verbs.list_schedules())))
    store = runner.store

    def change(how):
        asyncio.run(operations.change_schedule(store, "daily", how))
        return store.read(verbs.list_schedules())

    change("pause")
    store.commit(verbs.set_schedule("daily", 5.0, paused=True)).wait()  # long ago
    with pytest.raises(errors.UsageError, match="paused"):
        change("run")
    (resumed,) = change("resume")
    assert resumed.next_at > store.now()
    (again,) = change("resume")
    assert again.next_at == resumed.next_at
    change("run")
    asyncio.run(work([runner], lambda: keys(runner)))
    (ran,) = store.read(verbs.list_schedules())
    assert ran.next_at == resumed.next_at
    assert change("remove") == []
    with pytest.raises(errors.UsageError, match="No schedule"):
        change("pause")


# -- at the door -----------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused_where_it_is_declared():
    runner = TaskRunner(enable_recovery=False)

    @runner.task
    async def report(ctx: Context, topic: str) -> str:
        return topic

    with pytest.raises(errors.UsageError, match="no cron expression"):
        runner.schedule("every day")
    with pytest.raises(errors.UsageError, match="no time zone"):
        runner.schedule("0 9 * * *", timezone="Mars/Olympus")
    with pytest.raises(errors.ArgumentsError):
        runner.schedule("0 9 * * *")(report)
    with pytest.raises(errors.EncodingError):
        runner.schedule("0 9 * * *")(report, topic=object())
    runner.schedule("0 9 * * *")(report, topic="a")
    runner.schedule("0 9 * * *")(report, topic="a")  # a module that is imported twice
    with pytest.raises(errors.UsageError, match="Two schedules"):
        runner.schedule("0 10 * * *")(report, topic="a")

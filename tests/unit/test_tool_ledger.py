"""What a recorded call promises, without a runner: each block below is one attempt."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import functools
import sys
import threading
import time
from dataclasses import dataclass

import pydantic
import pytest

from holdfast import (
    Done,
    LeaseManager,
    NotDone,
    Secret,
    ToolLedger,
    Unknown,
    errors,
    idempotency_key,
    operations,
    tool,
)
from holdfast.branches import AloneWaits
from holdfast.journal import Journal
from holdfast.states import Effect, EntryKind, EntryStatus
from holdfast.store import open_store, payload, verbs


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/h.db") as opened:
        yield opened


@pytest.fixture
def attempt(store):
    """Return a function that runs an async function as one attempt at the same work."""

    def run(body, name="job", **options):
        async def attempt():
            async with LeaseManager(store, **options) as leases, leases.hold(name) as journal:
                return await body(ToolLedger(journal))

        return asyncio.run(attempt())

    return run


def journal_of(ledger) -> Journal:
    return ledger._journal  # noqa: SLF001  what a crash leaves behind is seen from inside only


async def record_intent(ledger, act, args=(), key=None):
    """Leave of a call what a crash inside it leaves: its intent."""
    call = ledger._describe(  # noqa: SLF001  as above
        act, args, {}, kind=EntryKind.TOOL, name=None, key=key, timeout=None
    )
    await journal_of(ledger).record(ledger._intent(call, EntryStatus.STARTED))  # noqa: SLF001


class Stops:
    """Stands in for a check of the lease: the process is gone at the n-th."""

    def __init__(self, at):
        self.left = at

    async def __call__(self):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


async def entries_of(ledger):
    journal = journal_of(ledger)
    await journal.flush()
    item = journal.item
    return journal.store.read(verbs.read_journal(item.task_id, item.item_id))


async def task_of(store, name="job"):
    """Return the task that stands for a name."""
    return await LeaseManager(store)._task_of(name)  # noqa: SLF001  nobody else needs it


class Counted:
    """A function that counts its calls and answers from a list: values or exceptions."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.keys = []

    def __call__(self, *_):
        self.keys.append(idempotency_key())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def calls(self):
        return len(self.keys)


def make(counted, effect="once", **options):
    async def act(x: object = 0) -> object:
        return counted(x)

    return tool(effect=effect, name="act", **options)(act)


class Model(pydantic.BaseModel):
    n: int
    when: dt.datetime


@dataclass
class Point:
    x: decimal.Decimal
    inner: list[Model]


RICH = Point(
    decimal.Decimal("1.10"),
    [Model(n=1, when=dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC))],
)


@pytest.mark.parametrize("effect", ["read", "idempotent", "once"])
@pytest.mark.parametrize(
    "value",
    [RICH, b"\x00\xff", (1, 2.5, None), {"a": {1, 2}}, [RICH, {"p": RICH}], "x" * 3_000_000],
    ids=["dataclass", "bytes", "tuple", "set", "nested", "large"],
)
def test_a_replay_is_the_first_answer_type_for_type(attempt, effect, value):
    counted = Counted(value)

    @tool(effect=effect)
    async def answer(p: Point | Model | None = None) -> object:
        return counted(p)

    first = attempt(lambda ledger: ledger.call(answer, (), {}))
    again = attempt(lambda ledger: ledger.call(answer, (), {}))
    assert first == again == value
    assert type(again) is type(value)
    assert repr(again) == repr(value)
    assert counted.calls == 1


def test_equal_calls_in_sequence_are_each_their_own(attempt):
    counted = Counted("a", "b", "c")

    async def body(ledger):
        return [await ledger.execute_or_replay(make(counted), 1) for _ in range(3)]

    assert attempt(body) == attempt(body) == ["a", "b", "c"]


def test_partials_are_told_apart_by_what_they_hold(attempt):
    def add(a: int, b: int) -> int:
        return a + b

    async def body(ledger):
        return [
            await ledger.execute_or_replay(functools.partial(add, 1), 1),
            await ledger.execute_or_replay(functools.partial(add, 2), 1),
        ]

    async def swapped(ledger):
        return list(
            reversed(
                [
                    await ledger.execute_or_replay(functools.partial(add, 2), 1),
                    await ledger.execute_or_replay(functools.partial(add, 1), 1),
                ]
            )
        )

    assert attempt(body) == attempt(swapped) == [2, 3]


def test_the_idempotency_key_differs_for_every_call_and_stays_over_attempts(attempt):
    counted = Counted(ValueError("no"), "ok")
    act = make(counted, "idempotent")

    async def body(ledger):
        with pytest.raises(ValueError, match="no"):
            await ledger.execute_or_replay(act, 1)
        await ledger.execute_or_replay(act, 1)
        await ledger.execute_or_replay(act, 2)

    attempt(body)
    assert len(set(counted.keys)) == 3

    keys = list(counted.keys)
    fresh = Counted("ok")

    async def from_the_start(ledger):
        for n in (1, 1, 2):
            journal_of(ledger)._loaded = True  # noqa: SLF001  a crash before anything was recorded
            await ledger.execute_or_replay(make(fresh, "idempotent"), n)

    attempt(from_the_start)
    assert fresh.keys == keys


def test_the_key_of_the_same_call_differs_after_a_checkpoint(attempt):
    counted = Counted("ok")

    async def body(ledger):
        await ledger.execute_or_replay(make(counted, "idempotent"), 1)
        journal_of(ledger).note_checkpoint(1)
        await ledger.execute_or_replay(make(counted, "idempotent"), 1)

    attempt(body)
    assert len(set(counted.keys)) == 2


def test_a_recorded_failure_replays_as_the_same_failure(attempt):
    counted = Counted(KeyError("missing"))

    async def body(ledger):
        with pytest.raises(KeyError) as caught:
            await ledger.execute_or_replay(make(counted, "idempotent"))
        assert caught.value.__cause__ is not caught.value
        return caught.value.args

    assert attempt(body) == attempt(body) == ("missing",)
    assert counted.calls == 1


def test_a_failure_of_an_unknown_type_looks_the_same_both_times(attempt):
    class Odd(Exception):  # noqa: N818
        pass

    counted = Counted(Odd("odd"))

    async def body(ledger):
        with pytest.raises(errors.CallFailedError, match="odd") as caught:
            await ledger.execute_or_replay(make(counted, "read"))
        return caught.value.error_type

    assert attempt(body) == attempt(body)


# -- `once` ---------------------------------------------------------------------------------------


def in_doubt(attempt, act, *args):
    async def body(ledger):
        with pytest.raises(errors.InDoubtError) as caught:
            await ledger.execute_or_replay(act, *args)
        return caught.value.entry

    return attempt(body)


@pytest.mark.parametrize("failure", [TimeoutError("late"), ConnectionError("reset")])
def test_an_exception_inside_a_once_call_is_in_doubt_and_never_made_again(attempt, failure):
    counted = Counted(failure)
    first = in_doubt(attempt, make(counted))
    assert in_doubt(attempt, make(counted)) == first
    assert counted.calls == 1


def test_a_timeout_inside_a_once_call_is_in_doubt(attempt):
    calls = []

    @tool(effect="once", timeout=0.02)
    async def slow() -> None:
        calls.append(1)
        await asyncio.sleep(10)

    in_doubt(attempt, slow)
    in_doubt(attempt, slow)
    assert calls == [1]


def test_a_cancellation_inside_a_once_call_is_in_doubt(attempt):
    calls = []

    @tool(effect="once")
    async def slow() -> None:
        calls.append(1)
        await asyncio.sleep(10)

    async def body(ledger):
        call = asyncio.ensure_future(ledger.execute_or_replay(slow))
        while not calls:
            await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(errors.InDoubtError):  # what is left in doubt is not passed over
            await ledger.settle_left()

    attempt(body)
    in_doubt(attempt, slow)
    assert calls == [1]


def test_a_call_that_says_it_had_no_effect_failed_and_may_be_made_again(attempt, store):
    class Refused(Exception):  # noqa: N818
        pass

    counted = Counted(Refused("no"), errors.NoEffect("no"), "sent")
    act = make(counted, no_effect=(Refused,))

    async def body(ledger):
        with pytest.raises((Refused, errors.NoEffect)) as caught:
            await ledger.execute_or_replay(act)
        return caught.value

    failure = attempt(body)
    assert isinstance(failure, Refused)
    replayed = attempt(body)
    assert isinstance(replayed, Refused)
    assert counted.calls == 1
    # Both name the call, so that a retry makes it anew; also when a crash came between.
    assert failure.__holdfast_entry__ == replayed.__holdfast_entry__


def test_a_sync_tool_that_returns_late_counts(attempt):
    calls = []

    @tool(effect="once", timeout=0.02)
    def slow() -> str:
        calls.append(1)
        time.sleep(0.1)
        return "sent"

    async def body(ledger):
        return await ledger.execute_or_replay(slow)

    assert attempt(body) == attempt(body) == "sent"
    assert calls == [1]


def test_a_tools_own_timeout_error_is_not_its_time_limit(attempt):
    async def body(ledger):
        with pytest.raises(TimeoutError, match="mine"):
            await ledger.call(make(Counted(TimeoutError("mine")), "read"), (), {}, timeout=5)

    attempt(body)


def test_a_canceled_sync_tool_that_finishes_is_recorded(attempt):
    calls = []
    started = threading.Event()

    @tool(effect="once")
    def slow() -> str:
        calls.append(1)
        started.set()
        time.sleep(0.1)
        return "sent"

    async def body(ledger):
        call = asyncio.ensure_future(ledger.execute_or_replay(slow))
        assert await asyncio.to_thread(started.wait, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    attempt(body)
    assert attempt(lambda ledger: ledger.execute_or_replay(slow)) == "sent"
    assert calls == [1]


def test_reconcile_that_says_done_gives_the_result(attempt):
    counted = Counted(ConnectionError("reset"))
    act = make(counted, reconcile=lambda arguments, key: Done(f"{arguments['x']}:{key}"))
    answer = attempt(lambda ledger: ledger.execute_or_replay(act, 7))
    assert answer == f"7:{counted.keys[0]}"
    assert attempt(lambda ledger: ledger.execute_or_replay(act, 7)) == answer


def test_a_call_that_raised_and_did_not_happen_is_its_failure_once_that_is_settled(attempt):
    counted = Counted(ConnectionError("reset"))
    act = make(counted, reconcile=lambda _, __: NotDone(), settle_after=0.15)
    started = time.monotonic()

    async def body(ledger):
        with pytest.raises(ConnectionError) as caught:
            await ledger.execute_or_replay(act)
        return caught.value.__holdfast_entry__

    assert attempt(body) == attempt(body) == (1,)
    assert time.monotonic() - started >= 0.15
    assert counted.calls == 1


@pytest.mark.parametrize("answer", [Unknown(), None, True, RuntimeError("down")])
def test_a_reconcile_that_knows_nothing_leaves_it_to_a_person(attempt, answer):
    counted = Counted(ConnectionError("reset"))

    def reconcile(_arguments, _key):
        if isinstance(answer, Exception):
            raise answer
        return answer

    in_doubt(attempt, make(counted, reconcile=reconcile))
    assert counted.calls == 1


def test_not_done_is_not_believed_while_a_thread_of_the_call_still_runs(attempt, monkeypatch):
    monkeypatch.setattr(sys.modules["holdfast.tool"], "LINGER", 0.02)
    sent = []

    @tool(effect="once", timeout=0.02, reconcile=lambda _, __: NotDone(), settle_after=0)
    def stalled() -> None:
        time.sleep(0.4)
        sent.append(1)

    in_doubt(attempt, stalled)
    in_doubt(attempt, stalled)  # another lease, another worker id: the same process
    time.sleep(0.5)
    assert sent == [1]


def crash_inside(attempt, act, **options):
    """Leave the intent of a call behind, by a process that has ended."""
    attempt(lambda ledger: record_intent(ledger, act), **options)


def test_not_done_is_believed_once_the_process_is_gone_and_the_time_has_passed(
    attempt, monkeypatch
):
    counted = Counted("sent")
    act = make(counted, reconcile=lambda _, __: NotDone(), settle_after=0.2)
    crash_inside(attempt, act)
    monkeypatch.setattr("holdfast.liveness._ours", set())
    started = time.monotonic()
    assert attempt(lambda ledger: ledger.execute_or_replay(act)) == "sent"
    assert time.monotonic() - started >= 0.2


def test_not_done_is_not_believed_of_a_process_that_may_live(attempt, monkeypatch):
    counted = Counted("sent")
    act = make(counted, reconcile=lambda _, __: NotDone(), settle_after=0)
    crash_inside(attempt, act)
    monkeypatch.setattr("holdfast.doubts.is_ours", lambda _: False)
    monkeypatch.setattr("holdfast.doubts.is_gone", lambda *_: False)
    in_doubt(attempt, act)
    assert counted.calls == 0


def test_what_began_a_call_and_lost_its_leases_is_waited_for_as_long_as_they_lasted(
    attempt, monkeypatch
):
    counted, lease = Counted("sent"), 0.6
    act = make(counted, reconcile=lambda _, __: NotDone(), settle_after=0)
    crash_inside(attempt, act, lease=lease)
    monkeypatch.setattr("holdfast.liveness._ours", set())
    monkeypatch.setattr("holdfast.doubts.is_gone", lambda *_: False)
    started = time.monotonic()
    in_doubt(attempt, act)
    assert lease / 2 < time.monotonic() - started < 10
    assert counted.calls == 0


def test_not_done_is_not_believed_that_was_said_before_the_process_was_gone(attempt, monkeypatch):
    counted, said, seen = Counted("sent twice"), [NotDone(), Done("sent")], [False, True, True]
    act = make(counted, reconcile=lambda _, __: said.pop(0), settle_after=0)
    crash_inside(attempt, act)
    monkeypatch.setattr("holdfast.liveness._ours", set())
    monkeypatch.setattr("holdfast.doubts.is_gone", lambda *_: seen.pop(0))
    assert attempt(lambda ledger: ledger.execute_or_replay(act)) == "sent"
    assert counted.calls == 0


def test_reconcile_is_given_what_was_observed_before_the_call(attempt):
    counted, asked, world = Counted(ValueError("?")), [], ["before"]

    def reconcile(arguments, key, observed):
        asked.append((arguments, observed))
        return Done("found")

    act = make(counted, observe=lambda arguments: (arguments["x"], *world), reconcile=reconcile)
    assert attempt(lambda ledger: ledger.execute_or_replay(act, 7)) == "found"
    world.append("after")
    assert attempt(lambda ledger: ledger.execute_or_replay(act, 7)) == "found"
    assert asked == [({"x": 7}, (7, "before"))]


def test_what_was_observed_survives_the_process(attempt, monkeypatch):
    counted, asked = Counted("made"), []

    def reconcile(arguments, key, observed):
        asked.append(observed)
        return NotDone()

    act = make(counted, observe=lambda _: {"hash": b"1"}, reconcile=reconcile, settle_after=0)

    async def crash(ledger):
        monkeypatch.setattr(journal_of(ledger), "check_lease", Stops(2))
        await ledger.execute_or_replay(act)

    with pytest.raises(KeyboardInterrupt):
        attempt(crash)
    monkeypatch.undo()
    assert attempt(lambda ledger: ledger.execute_or_replay(act)) == "made"
    assert asked == [{"hash": b"1"}]


def test_a_call_whose_observation_fails_has_failed_and_was_not_made(attempt):
    counted, looked = Counted("made"), []

    def observe(arguments):
        looked.append(arguments)
        raise ValueError("no such file")

    act = make(counted, observe=observe)

    async def body(ledger):
        with pytest.raises(ValueError, match="no such file"):
            await ledger.execute_or_replay(act)

    attempt(body)
    attempt(body)
    assert (counted.calls, len(looked)) == (0, 1)


def test_a_tool_says_of_arguments_that_a_call_with_them_may_run_again(attempt):
    counted = Counted(ValueError("twice"), "ok")
    act = make(counted, repeatable=lambda arguments: arguments["x"] == "harmless")

    async def body(ledger):
        with pytest.raises(ValueError, match="twice"):  # no doubt: it is an ordinary failure
            await ledger.execute_or_replay(act, "harmless")
        await ledger.execute_or_replay(act, "sends")
        return [(entry.effect, entry.status) for entry in await entries_of(ledger)]

    assert attempt(body) == [
        (Effect.IDEMPOTENT, EntryStatus.FAILED),
        (Effect.ONCE, EntryStatus.STARTED),
        (Effect.ONCE, EntryStatus.DONE),
    ]


@pytest.mark.parametrize(
    ("how", "value", "calls"), [("done", "by hand", 1), ("retry", None, 2), ("new", None, 2)]
)
def test_a_person_resolves_what_is_in_doubt(attempt, store, how, value, calls):
    counted = Counted(ConnectionError("reset"), "sent")
    entry = in_doubt(attempt, make(counted))
    asyncio.run(operations.resolve(store, entry, how, value))
    answer = attempt(lambda ledger: ledger.execute_or_replay(make(counted)))
    assert answer == (value or "sent")
    assert counted.calls == calls
    with pytest.raises(errors.UsageError):
        asyncio.run(operations.resolve(store, entry, how, value))


def test_a_person_lets_a_call_fail_for_good(attempt, store):
    counted = Counted(ConnectionError("reset"))
    entry = in_doubt(attempt, make(counted))
    asyncio.run(operations.resolve(store, entry, "fail", "never mind"))

    async def body(ledger):
        with pytest.raises(errors.CallFailedError, match="never mind") as caught:
            await ledger.execute_or_replay(make(counted))
        return hasattr(caught.value, "__holdfast_entry__")

    assert not attempt(body)  # a retry must not make it again: nobody knows whether it happened


def test_identical_concurrent_once_calls_need_keys(attempt):
    counted = Counted("a", "b")

    async def act(x: int) -> object:
        await asyncio.sleep(0.02)
        return counted(x)

    async def body(ledger):
        results = await asyncio.gather(
            ledger.execute_or_replay(act, 1),
            ledger.execute_or_replay(act, 1),
            return_exceptions=True,
        )
        assert results[0] == "a"
        assert isinstance(results[1], errors.ConcurrentCallError)

    async def keyed(ledger):
        calls = (ledger.call(act, (1,), {}, key=key) for key in "xy")
        return await asyncio.gather(*calls)

    attempt(body)
    assert attempt(keyed, "other") == attempt(keyed, "other")
    assert counted.calls == 3


def test_a_key_answers_every_time_and_only_for_its_arguments(attempt):
    counted = Counted("a")

    async def body(ledger):
        first = await ledger.call(make(counted), (1,), {}, key="k")
        assert await ledger.call(make(counted), (1,), {}, key="k") == first
        with pytest.raises(errors.KeyReusedError):
            await ledger.call(make(counted), (2,), {}, key="k")

    attempt(body)
    attempt(body)
    assert counted.calls == 1


def test_a_keyed_call_that_did_not_happen_is_made_again(attempt):
    counted = Counted("sent")
    act = make(counted, reconcile=lambda _, __: NotDone(), settle_after=0)

    attempt(lambda ledger: record_intent(ledger, act, key="k"))
    assert attempt(lambda ledger: ledger.call(act, (), {}, key="k")) == "sent"
    assert counted.calls == 1


def test_calls_made_inside_a_call_are_not_asked_for_where_it_replays(attempt):
    sent = Counted("sent")

    async def body(ledger):
        async def outer() -> object:
            return await ledger.execute_or_replay(make(sent), 1)

        outer.__qualname__ = "outer"
        await ledger.call(outer, (), {}, kind=EntryKind.STEP)
        await ledger.execute_or_replay(make(sent), 2)
        return [call.entry.seq for call in journal_of(ledger).unasked(Effect.ONCE)]

    attempt(body)

    async def longer(ledger):
        left = await body(ledger)
        await ledger.execute_or_replay(make(sent), 3)  # new, and nothing holds it back
        return left

    assert attempt(longer) == []
    assert sent.calls == 3


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", ["read", "idempotent", "once"])
def test_arguments_that_cannot_be_kept_are_refused_before_the_call(attempt, effect):
    counted = Counted("x")

    async def body(ledger):
        with pytest.raises(errors.EncodingError):
            await ledger.execute_or_replay(make(counted, effect), object())
        with pytest.raises(errors.ArgumentsError):
            await ledger.execute_or_replay(make(counted, effect), 1, 2, 3)

    attempt(body)
    assert counted.calls == 0


def test_a_once_result_that_cannot_be_kept_fails_for_good(attempt):
    counted = Counted(object())

    async def body(ledger):
        with pytest.raises(errors.EncodingError):
            await ledger.execute_or_replay(make(counted))

    attempt(body)
    attempt(body)
    assert counted.calls == 1


@pytest.mark.parametrize("effect", ["read", "idempotent"])
def test_a_result_that_cannot_be_kept_is_an_error(attempt, effect):
    async def body(ledger):
        with pytest.raises(errors.EncodingError):
            await ledger.execute_or_replay(make(Counted(object()), effect))

    attempt(body)


def test_what_is_too_large_is_refused(attempt, monkeypatch):
    monkeypatch.setattr(payload, "MAX_PAYLOAD", 10_000)
    counted, made = Counted("x" * 20_000), []

    async def body(ledger):
        with pytest.raises(errors.PayloadTooLargeError):
            await ledger.execute_or_replay(make(counted), "y" * 20_000)  # the intent keeps it
        with pytest.raises(errors.PayloadTooLargeError):
            await ledger.call(make(counted, "idempotent"), ("y" * 20_000,), {}, key="k")
        made.append(counted.calls)
        with pytest.raises(errors.PayloadTooLargeError):
            await ledger.execute_or_replay(make(counted), 1)

    attempt(body)
    attempt(body)
    assert made == [0, 1]
    assert counted.calls == 1


def test_effects_that_a_tool_cannot_have_are_refused(attempt):
    for name in ("llm", "maybe"):
        with pytest.raises(errors.UsageError):
            tool(effect=name)

    async def body(ledger):
        with pytest.raises(errors.UsageError, match="declares itself once"):
            await ledger.call(make(Counted("x")), (), {}, effect=Effect.READ)

    attempt(body)


# -- writing behind -------------------------------------------------------------------------------


def test_reads_are_durable_before_the_next_effect(attempt, store):
    seen = []

    async def look(n: int) -> int:
        return n

    async def effect() -> None:
        seen.append([entry.name for entry in entries_now()])

    def entries_now():
        return store.read(verbs.read_journal(task, "main"))

    task = asyncio.run(task_of(store))

    async def body(ledger):
        for n in range(3):
            await ledger.call(look, (n,), {}, effect=Effect.READ, name="look")
        assert len(entries_now()) < 3  # behind
        await ledger.call(effect, (), {}, effect=Effect.IDEMPOTENT)

    attempt(body)
    assert seen == [["look", "look", "look"]]


def test_an_effect_is_not_called_when_a_read_before_it_was_refused(attempt):
    counted = Counted("x")

    async def body(ledger):
        journal = journal_of(ledger)
        await ledger.execute_or_replay(make(counted, "read"), 1)
        journal.seq += 1  # what was written behind can't be where it belongs
        with pytest.raises(errors.StoreError):
            await ledger.execute_or_replay(make(counted, "idempotent"), 2)
        with pytest.raises(errors.StoreError):
            await ledger.execute_or_replay(make(counted), 3)

    with pytest.raises(errors.StoreError):
        attempt(body)
    assert counted.calls == 1


# -- secrets --------------------------------------------------------------------------------------


def test_secrets_are_stored_as_digests_only_and_found_again(attempt, store, tmp_path):
    value = "hunter2-hunter2-hunter2"
    seen = []

    @tool(effect="once")
    async def login(password: Secret[str]) -> str:
        seen.append(password.reveal())
        return "in"

    @tool(effect="idempotent")
    async def leak(password: Secret[str]) -> str:
        raise ValueError("bad password " + password.reveal())

    async def body(ledger):
        assert await ledger.execute_or_replay(login, Secret(value)) == "in"
        with pytest.raises(ValueError, match="bad password") as caught:
            await ledger.execute_or_replay(leak, Secret(value))
        return str(caught.value)

    assert attempt(body) == attempt(body)
    assert value not in attempt(body)
    assert seen == [value]
    for path in tmp_path.iterdir():
        assert value.encode() not in path.read_bytes()
    assert (tmp_path / "h.db-key").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "h.db-key").read_bytes()) == 32


def test_alone_a_wait_for_a_person_ends_at_once():
    from holdfast.branches import DoubtNeed

    assert not asyncio.run(AloneWaits().until(DoubtNeed("a:b:1", "x"), lambda: False))


# -- approvals -------------------------------------------------------------------------------------


def test_used_alone_a_call_that_must_be_approved_says_so_and_finds_its_approval(attempt, store):
    act = Counted("made")
    approved = tool(effect="once", name="act", approve=True)(act)

    async def body(ledger):
        with pytest.raises(errors.ApprovalNeededError) as needed:
            await ledger.execute_or_replay(approved)
        assert f"`holdfast approve {needed.value.entry}`" in str(needed.value)
        assert act.calls == 0
        await operations.approve(store, needed.value.entry)
        return await ledger.execute_or_replay(approved)

    assert attempt(body) == "made"
    assert attempt(lambda ledger: ledger.execute_or_replay(approved)) == "made"
    assert act.calls == 1

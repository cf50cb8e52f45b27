"""What a worker hands back says which of its calls are over, for whoever can't see into it."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from holdfast import LeaseManager, NotDone, ToolLedger, errors, open_store, tool
from holdfast.branches import AloneWaits
from holdfast.doubts import Doubts
from holdfast.entries import Draft
from holdfast.handing_back import hand_back
from holdfast.journal import Journal
from holdfast.states import EntryKind, EntryStatus
from holdfast.store import verbs
from holdfast.store.verb import Verb

ELSEWHERE = """
import asyncio, sys
from holdfast import LeaseManager, NotDone, ToolLedger, tool

@tool(name="send", reconcile=lambda arguments, key: NotDone(), settle_after=0.0)
def send(): return "sent elsewhere"

async def main():
    async with LeaseManager(sys.argv[1]) as leases, leases.hold("letter", wait=5) as journal:
        try:
            print(await ToolLedger(journal).execute_or_replay(send))
        except Exception as error:
            print(error)

asyncio.run(main())
"""


def take_over(url: str) -> str:
    """Make the call in another process, while this one lives."""
    given = [sys.executable, "-c", ELSEWHERE, url]
    return subprocess.run(given, check=True, capture_output=True, text=True).stdout  # noqa: S603


def hand_back_after(url: str, call) -> str:
    """Hold the lease, let `call(journal)` leave a call open, hand the lease back, have it taken."""

    async def main() -> str:
        with open_store(url) as store:
            leases = LeaseManager(store)
            journal = Journal(store, await leases.acquire("letter"))
            await call(journal)
            await hand_back(store, journal.lease)
            made = await asyncio.to_thread(take_over, url)
            leases.close()
            return made

    return asyncio.run(main())


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_call_that_never_began_is_made_by_another_process_while_the_first_lives(
    engine, request, tmp_path
):
    url = f"sqlite:///{tmp_path}/x.db"
    if engine == "postgres":
        url = request.getfixturevalue("postgres_url")

    @tool(name="send", reconcile=lambda arguments, key: NotDone(), settle_after=0.0)
    def send():
        raise AssertionError("it never begins")

    async def lose_the_answer(journal: Journal) -> None:
        checks = iter([None, errors.LeaseLostError("gone", task_id="", item_id="", token=0)])

        async def check() -> None:  # the intent is durable, and the call must not begin
            if error := next(checks):
                raise error

        journal.check_lease = check
        with pytest.raises(errors.LeaseLostError):
            await ToolLedger(journal).execute_or_replay(send)

    assert hand_back_after(url, lose_the_answer) == "sent elsewhere\n"


def test_a_call_that_may_still_run_is_left_to_a_person(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    begun = asyncio.Event()

    @tool(name="send", reconcile=lambda arguments, key: NotDone(), settle_after=0.0)
    async def send():
        begun.set()
        await asyncio.sleep(60)

    running: list[asyncio.Future[None]] = []

    async def begin(journal: Journal) -> None:
        running.append(asyncio.ensure_future(ToolLedger(journal).execute_or_replay(send)))
        await begun.wait()

    assert "which began it, may still run it" in hand_back_after(url, begin)


@pytest.mark.parametrize("stops", [True, False])
def test_a_call_that_was_canceled_is_over_where_its_tool_says_that_it_stops(tmp_path, stops):
    begun = asyncio.Event()

    @tool(
        name="send",
        reconcile=lambda arguments, key: NotDone(),
        settle_after=0.0,
        stops_when_canceled=stops,
    )
    async def send():
        begun.set()
        await asyncio.sleep(60)

    async def cancel(journal: Journal) -> None:
        call = asyncio.ensure_future(ToolLedger(journal).execute_or_replay(send))
        await begun.wait()
        call.cancel()
        await asyncio.wait((call,))

    made = hand_back_after(f"sqlite:///{tmp_path}/x.db", cancel)
    if stops:
        assert made == "sent elsewhere\n"
    else:
        assert "which began it, may still run it" in made


def test_a_call_whose_intent_lands_while_it_is_handed_back_is_not_missed(tmp_path, monkeypatch):
    """Its commit waited for a standby, say, and nobody could see it."""
    with open_store(f"sqlite:///{tmp_path}/x.db") as store:

        async def main() -> None:
            async with LeaseManager(store) as leases:
                journal = Journal(store, await leases.acquire("letter"))
                commit, lease = store.commit, journal.lease

                def commit_behind_it(verb: Verb[object]) -> object:
                    monkeypatch.undo()
                    draft = Draft(EntryKind.TOOL, "send", b"send", EntryStatus.STARTED)
                    append = journal.extend((draft,))
                    commit(verbs.append_entries(lease, append, store.now())).wait()
                    return commit(verb)

                monkeypatch.setattr(store, "commit", commit_behind_it)
                with pytest.raises(errors.StoreUnavailableError):
                    await hand_back(store, lease)
                assert store.read(verbs.held_leases(lease.owner)) != {}
                await hand_back(store, lease)
                assert store.read(verbs.held_leases(lease.owner)) == {}

        asyncio.run(main())


def test_the_failure_that_a_call_ended_with_is_kept_when_it_is_found_to_be_over(tmp_path):
    @tool(name="send", reconcile=lambda arguments, key: NotDone(), settle_after=0.0)
    def send():
        raise AssertionError("it never begins")

    async def fail_late(journal: Journal) -> None:
        checks = iter([None, errors.LeaseLostError("gone", task_id="", item_id="", token=0)])

        async def check() -> None:
            if error := next(checks):
                raise error

        journal.check_lease = check
        with pytest.raises(errors.LeaseLostError):
            await ToolLedger(journal).execute_or_replay(send)
        (call,) = journal.in_doubt()
        await Doubts(journal, AloneWaits()).note(call.entry, "late", error=ValueError("refused"))

    assert hand_back_after(f"sqlite:///{tmp_path}/x.db", fail_late) == "refused\n"

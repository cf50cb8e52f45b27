"""Scenarios that fork: run as `python scenarios.py NAME [key=value…]` in an empty directory.

A process may only fork while it has one thread, which a test runner hasn't.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import itertools
import os
import random
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

import apsw

from holdfast import Budget, Context, NotDone, TaskRunner, Usage, errors, operations, tool
from holdfast.clock import SystemClock
from holdfast.entries import Draft
from holdfast.journal import Journal
from holdfast.liveness import Heartbeat
from holdfast.models import MAIN, Claimed
from holdfast.states import CheckpointType, Effect, EntryKind, EntryStatus, ItemStatus
from holdfast.store import open_store, verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import Asked, Charge, ClaimFilter, Finish, NewItem, NewTask, Parked
from holdfast.sweep import RecoverySweep
from holdfast.testing import CrashingEngine, CrashPlan, Point, Process, open_with_plan
from holdfast.testing.checker import take_snapshot
from holdfast.testing.site import Site
from holdfast.testing.world import OUTBOX, World
from holdfast.worker import Worker

HERE = Path(__file__).parent


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")


URL = os.environ.get("SCENARIO_URL", "sqlite:///holdfast.db")
CLOCK = SystemClock()
boottime = CLOCK.boottime


# -- the campaign ---------------------------------------------------------------------------------


def a_wrong_effect_class_is_caught():
    """A notice that is declared idempotent is repeated, and the checker must say so."""
    from holdfast.testing import arms

    class Wrong(arms.Reference):
        def __init__(self, *given):
            super().__init__(*given)
            self.post_notice.effect = Effect.IDEMPOTENT

    arms.Reference = Wrong
    points = [Point("effect", number, "after") for number in range(1, 14)]
    outcomes = [arms.kill(Site.at(Path.cwd() / str(point)), point) for point in points]
    found = {text for outcome in outcomes for text in outcome.violations}
    assert any(text.startswith("repeated: notice:half way") for text in found), found
    assert any(text.startswith("repeated: notice:finished") for text in found), found
    say("repeated effects were found")


# -- the README's sample --------------------------------------------------------------------------


def run_sample(plan):
    """Run the sample script in this process, its store under a plan; returns how it ended."""
    import holdfast.store

    opening = holdfast.store.open_engine

    def under_plan(*given):  # the script names its store by URL
        engine, key = opening(*given)
        return CrashingEngine.around(engine, plan), key

    holdfast.store.open_engine = under_plan
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(str(HERE / "sample.py"), run_name="__main__")
    except errors.TaskBlockedError as blocked:
        return {"needs": blocked.needs, "counts": dict(plan.counts)}
    return {"said": said.getvalue().strip(), "counts": dict(plan.counts)}


def the_sample_at_every_boundary():
    root, number, reached, blocked = Path.cwd(), 0, 0, 0
    while True:
        number += 1
        got = [sample_at(root, Point("commit", number, side)) for side in ("before", "after")]
        reached += sum(how != "not reached" for how in got)
        blocked += got.count("blocked")
        if got == ["not reached", "not reached"]:
            break
    assert reached >= 20, reached
    assert blocked == 2, blocked  # after the intent's commit, and before the outcome's
    say(f"{reached} points, {blocked} of them inside send_email")


def sample_at(root, point):
    folder = root / str(point).replace(" ", "-")
    folder.mkdir()
    os.chdir(folder)
    with Process.fork(lambda tell: run_sample(CrashPlan(point, "kill", tell))) as first:
        reached = first.wait().how == "killed"
    with Process.fork(lambda _: run_sample(CrashPlan())) as second:
        ran = second.result()
    how = "finished" if reached else "not reached"
    if "needs" in ran:
        how = "blocked"
        (need,) = ran["needs"]
        with Process.fork(
            lambda _: resolve(need.split()[2].rstrip(":"), lines("outbox"))
        ) as person:
            person.result()
        with Process.fork(lambda _: run_sample(CrashPlan())) as third:
            ran = third.result()
    assert ran["said"] == "sent", (point, ran)
    assert len(lines("outbox")) == 1, (point, lines("outbox"))
    assert len(lines("paid")) <= 2, (point, lines("paid"))
    assert Path("notes.md").read_text().startswith("Notes: ")
    return how


# -- approvals and budgets ------------------------------------------------------------------------

TOOK = Usage(5, 3)
"""What the provider counts for each answer; twice as much is reserved."""


def a_mail_that_must_be_approved_at_every_boundary(shard, folder):
    """Killed anywhere: never sent twice, never unapproved, and nothing is spent uncounted.

    Between two commits only an effect changes anything, so a kill after each of either is enough.
    """
    root = Path.cwd() / folder
    (root / "dry").mkdir()
    os.chdir(root / "dry")
    with Process.fork(lambda _: run_approved(CrashPlan())) as dry:
        counts = dry.result()["counts"]
    points = [Point(kind, n, "after") for kind in counts for n in range(1, counts[kind] + 1)]
    assert len(points) >= 20
    got = [approved_at(root, point) for point in points[int(shard) :: 2]]
    assert got.count("not reached") <= 1, got  # the last commits are made on the way out
    say(len(got), got.count("in doubt"))


def approved_at(root, point):
    folder = root / str(point).replace(" ", "-")
    folder.mkdir()
    os.chdir(folder)
    with Process.fork(lambda tell: run_approved(CrashPlan(point, "kill", tell))) as first:
        reached = first.wait().how == "killed"
    with Process.fork(lambda _: run_approved(CrashPlan())) as second:
        ran = second.result()
    assert ran["said"] == "sent", (point, ran)
    assert len(lines("outbox")) == 1, (point, lines("outbox"))
    assert ran["used"] == 2 + ran["doubts"] * (not ran["happened"]), (point, ran)
    counted = len(lines("paid")) * (TOOK.input_tokens + TOOK.output_tokens)
    # The answer that the crash lost stays spent as it was reserved, whether it was sent or not.
    assert counted <= ran["spent"] <= counted + 16, (point, ran, counted)
    assert ran["reserved"] == 0, (point, ran)
    if not reached:
        return "not reached"
    return "in doubt" if ran["doubts"] else "finished"


def run_approved(plan):
    store, _ = open_with_plan(URL, plan)
    runner = TaskRunner(store, lease=2.0)

    async def ask(prompt: str) -> str:
        with plan.boundary("effect", "ask"):
            note("paid", prompt)
        return prompt.upper()

    @tool(effect="once", approve=True)
    async def send(to: str) -> str:
        # Durable before: this approval is used up, and no other one for the same call is.
        assert [e.status for e in entries_of(store, "send")] == ["used"] * (1 + len(doubts))
        with plan.boundary("effect", "send"):
            note("outbox", to)
        return "sent"

    @runner.task
    async def mail(ctx) -> str:
        given = ctx.options(reserve=Usage(10, 6), usage=lambda _: TOOK)
        text = await given.llm(ask, "draft")
        await ctx.approval("go on", {"text": text})
        await given.llm(ask, "final")
        return await ctx.tool(send, to="a@b.c")

    doubts, happened = list[str](), False
    handle = runner.options(key="k", budget=Budget(tokens=100)).submit(mail)
    while True:
        try:
            said = handle.run()
            break
        except errors.TaskBlockedError as blocked:
            asked = {each.entry for each in operations.approvals_of(store)}
            for entry in blocked.entries:
                if entry in asked:
                    runner.approve(entry, by="a person")
                else:
                    doubts.append(entry)
                    happened = bool(lines("outbox"))
                    runner.resolve(entry, "done" if happened else "retry", "sent")
    found = operations.budget_of(store, handle.task_id)
    used = [each for name in ("go on", "send") for each in entries_of(store, name)]
    return {
        "said": said,
        "doubts": len(doubts),
        "happened": happened,
        "used": sum(each.status == "used" for each in used),
        "spent": found.tokens,
        "reserved": found.reserved_tokens,
        "counts": dict(plan.counts),
    }


def entries_of(store, name):
    """Return what was asked under a name, and what became of it."""
    (task,) = store.read(verbs.list_tasks(None, 10))
    found = [
        store.read(verbs.get_approval(task.task_id, MAIN, entry.seq))
        for entry in store.read(verbs.read_journal(task.task_id, MAIN))
        if entry.kind is EntryKind.APPROVAL and entry.ref is None
    ]
    return [each for each in found if each.name.rpartition(".")[2] == name]


def note(file, line):
    with Path(file).open("a") as opened:
        opened.write(f"{line}\n")
        opened.flush()
        os.fsync(opened.fileno())


def resolve(entry, happened, value="sent"):
    store = open_store(URL)
    asyncio.run(operations.resolve(store, entry, "done" if happened else "retry", value))
    store.close()


def lines(file):
    return Path(file).read_text().splitlines() if Path(file).exists() else []


# -- zombies --------------------------------------------------------------------------------------


def every_leased_write_of_a_zombie():
    lease = 0.4
    with Process.fork(lambda tell: leased_writes(tell, lease)) as zombie:
        assert zombie.wait().how == "stopped"
        with Process.fork(lambda _: take_over(lease)) as other:
            token = other.result()
        zombie.resume()
        refused = zombie.result()
    leased = {
        name
        for name in verbs.__all__
        if inspect.isfunction(getattr(verbs, name))
        and "lease" in inspect.signature(getattr(verbs, name)).parameters
    }
    assert set(refused) == leased, leased ^ set(refused)
    wrong = {name: how for name, how in refused.items() if how != "LeaseLostError"}
    assert not wrong, wrong
    store = open_store(URL)
    (task,) = store.read(verbs.list_tasks(None, 10))
    said = [e for e in store.read(verbs.list_events(task.task_id)) if e.type == "write_refused"]
    item = store.read(verbs.get_item(task.task_id, MAIN))
    assert store.read(verbs.read_journal(task.task_id, MAIN)) == []
    assert (item.status, item.lease_token, item.seq) == ("running", token, 0)
    assert len(store.read(verbs.list_tasks(None, 10))) == 1
    for name in leased:
        assert any(f'"{name}"' in event.data for event in said), name
    say(f"{len(leased)} kinds of write refused: {', '.join(sorted(leased))}")


def leased_writes(tell, lease):
    store = open_store(URL, deadline=5.0)
    nothing = encode_payload(None)
    heartbeat = Heartbeat(store, lease=lease)
    heartbeat.start()
    item = NewItem(MAIN, "work", encode_payload({}), "default", 0, b"", max_crashes=9)
    new = NewTask("t", "work", nothing, (item,))
    store.commit(verbs.create_task(new, store.now())).wait()
    wanted = ClaimFilter(("work",), ("default",))
    (claimed,) = store.commit(
        verbs.claim_work_items(heartbeat.worker_id, wanted, 1, store.now())
    ).wait()
    signals = verbs.send_signal("t", "s", "go", nothing, store.now())
    store.commit(signals).wait()
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    return {name: how_refused(store, write) for name, write in writes(store, claimed).items()}


def writes(store, claimed):
    """Return one call of every verb that writes under a lease, each on a journal of its own."""
    from holdfast.checkpoints import CheckpointManager
    from holdfast.evidence import EvidencePack
    from holdfast.verifiers import EvidenceVerifier

    now, lease, nothing = store.now(), claimed.lease, encode_payload(None)
    child = NewItem(MAIN, "work", encode_payload({}), "default", 0, b"", max_crashes=9)

    def entry(kind=EntryKind.STEP):
        draft = Draft(kind, "late", b"i" * 16, EntryStatus.DONE, outcome=nothing)
        return Journal(store, claimed).extend((draft,))

    manager = CheckpointManager(Journal(store, claimed), None, EvidenceVerifier())
    checkpoint = manager.build(1, CheckpointType.MANUAL, nothing.column, EvidencePack(), None)
    return {
        "append_entries": verbs.append_entries(lease, entry(), now),
        "append_child": verbs.append_child(
            lease, entry(EntryKind.CHILD), NewTask("c", "work", nothing, (child,)), now
        ),
        "take_signal": verbs.take_signal(lease, entry(EntryKind.SIGNAL), "s", now),
        "report_progress": verbs.report_progress(lease, entry(), "half", 1, 2, now),
        "commit_checkpoint": verbs.commit_checkpoint(
            lease, entry(EntryKind.CHECKPOINT), checkpoint, (), nothing, now
        ),
        "commit_plan": verbs.commit_plan(lease, entry(), (), (), now),
        "park_work_item": verbs.park_work_item(lease, entry(), Parked(ItemStatus.WAITING), now),
        "fail_attempt": verbs.fail_attempt(lease, entry(), "late", None, now),
        "end_canceled": verbs.end_canceled(lease, entry(), now),
        "finish_work_item": verbs.finish_work_item(
            lease, entry(), Finish(nothing, b"h" * 32, changed=True, proven=False), now
        ),
        "abandon_lease": verbs.abandon_lease(lease, now),
        "request_approval": verbs.request_approval(
            lease, entry(), Asked("late", "", b"d" * 32, "late?", None), now
        ),
        "use_approval": verbs.use_approval(lease, entry(), 1, now),
        "expire_approval": verbs.expire_approval(lease, entry(), 1, now),
        "reserve_budget": verbs.reserve_budget(lease, entry(), Charge("t", 1, 1), now),
        "settle_budget": verbs.settle_budget(lease, entry(), "t", 1, 1, 1, now),
    }


def how_refused(store, write):
    try:
        store.commit(write).wait()
    except Exception as error:  # noqa: BLE001  its name is compared
        return type(error).__name__
    return "accepted"


def take_over(lease):
    """Wait until the item is free, and claim it."""

    async def claim():
        store = open_store(URL)
        heartbeat = Heartbeat(store, lease=30.0)
        heartbeat.start()
        sweep = RecoverySweep(store, interval=0.02)
        for _ in range(1000):
            await sweep.scan_and_recover()
            got = await store.commit(
                verbs.claim_by_name(heartbeat.worker_id, "t", MAIN, store.now() + 60)
            )
            if isinstance(got, Claimed):
                return got.lease.token
            await asyncio.sleep(0.02)
        raise AssertionError(got)

    return asyncio.run(claim())


def a_zombie_handler():
    """The handler itself is stopped; afterwards every call through its context is refused."""
    with Process.fork(zombie_handler) as zombie:
        assert zombie.wait().how == "stopped"
        with Process.fork(lambda _: run_zombie_handler(World(Path.cwd()))[0]) as other:
            assert other.result() == "done"
        sent = len(World(Path.cwd()).lines(OUTBOX))
        zombie.resume()
        result, refused = zombie.result()
    assert result == "done"
    # Refused by its lease, or because the attempt was stopped when that was found lost.
    assert refused.keys() == set(CALLS), refused
    assert set(refused.values()) <= {"LeaseLostError", "CancelledError"}, refused
    world = World(Path.cwd())
    assert len(world.lines(OUTBOX)) == sent == 1
    assert {line["pid"] for line in world.lines("late")} == set(), world.lines("late")


CALLS = ("llm", "tool", "step", "checkpoint", "progress", "child", "signal", "sleep")


def zombie_handler(tell):
    del tell
    return run_zombie_handler(World(Path.cwd()), stops=True)


def stop_between_commits(runner):
    """Stop this process, but not while its heartbeat has SQLite's write lock: all would wait."""
    with runner.store._committer._lock:  # noqa: SLF001  what keeps others from committing
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def run_zombie_handler(world, *, stops=False):
    runner = TaskRunner(URL, lease=0.4)
    refused = {}

    async def once(text):
        world.effect(OUTBOX, text)

    async def late(text):
        if stops:
            world.note("late", text)

    @runner.task
    async def small(ctx: Context) -> None:
        return None

    @runner.task
    async def work(ctx: Context) -> str:
        await ctx.tool(once, "first")
        if not stops:
            return "done"
        stop_between_commits(runner)
        calls = {
            "llm": lambda: ctx.llm(late, "llm"),
            "tool": lambda: ctx.tool(late, "tool"),
            "step": lambda: ctx.step(late, "step"),
            "checkpoint": lambda: ctx.checkpoint({}),
            "progress": lambda: ctx.progress("late"),
            "child": lambda: ctx.child(small),
            "signal": lambda: ctx.signal("go", timeout=0.01),
            "sleep": lambda: ctx.sleep("late", 0.01),
        }
        for name in CALLS:
            try:
                await calls[name]()
                refused[name] = "accepted"
            except BaseException as error:  # noqa: BLE001  its name is compared
                refused[name] = type(error).__name__
        raise RuntimeError("late")

    return runner.run(work), refused


def a_stopped_sender():
    """Reconcile says "not done" while the process that is about to send is only stopped."""
    with Process.fork(lambda _: run_sender(stops=True)) as first:
        assert first.wait().how == "stopped"
        with Process.fork(lambda _: run_sender(stops=False)) as other:
            assert other.result() == "blocked"
        assert World(Path.cwd()).lines(OUTBOX) == []
        first.resume()
        first.wait()
    (sent,) = World(Path.cwd()).lines(OUTBOX)
    assert sent["pid"] == first.pid


def run_sender(*, stops):
    runner = TaskRunner(URL, lease=0.6)

    @tool(reconcile=lambda arguments, key: NotDone(), settle_after=0)
    async def send(text: str) -> None:
        if stops:
            stop_between_commits(runner)
        World(Path.cwd()).note(OUTBOX, text)

    @runner.task
    async def work(ctx: Context) -> str:
        await ctx.tool(send, "hello")
        return "sent"

    try:
        return runner.run(work)
    except errors.TaskBlockedError:
        return "blocked"


def a_woken_sender():
    """The stopped process wakes while another waits with its call: it says that it stopped it."""
    world = World(Path.cwd())
    with Process.fork(lambda _: run_woken_sender(stops=True)) as first:
        assert first.wait().how == "stopped"
        with Process.fork(lambda _: run_woken_sender(stops=False)) as other:
            while not world.lines("asked"):
                time.sleep(0.01)
            first.resume()
            assert other.result() == "sent"
        assert first.result() == "sent"
    (sent,) = world.lines(OUTBOX)
    assert sent["pid"] == other.pid


async def claim_nothing_more(worker):
    """Notice only that the leases are lost, so that the other process has to make the call."""
    if worker._heartbeat.lost:  # noqa: SLF001  what `fill` does, too
        await worker._start_anew(worker._heartbeat)  # noqa: SLF001
        await worker._register()  # noqa: SLF001


def run_woken_sender(*, stops):
    runner = TaskRunner(URL, lease=3.0)
    world = World(Path.cwd())

    def not_sent(arguments, key):
        world.note("asked", "now")
        return NotDone()

    @tool(reconcile=not_sent, settle_after=0, stops_when_canceled=True)
    async def send(text: str) -> None:
        if stops:
            Worker.fill = claim_nothing_more
            stop_between_commits(runner)
            await asyncio.sleep(600)
        world.note(OUTBOX, text)

    @runner.task
    async def work(ctx: Context) -> str:
        await ctx.tool(send, "hello")
        return "sent"

    return runner.run(work)


# -- two hundred calls ----------------------------------------------------------------------------

CALLS_MADE = 200


def two_hundred_calls(how):
    total = {"once": 67, "step": 67, "llm": 66}
    with Process.fork(
        lambda tell: run_calls(how, 1, CrashPlan(Point("effect", 100, "after"), "kill", tell))
    ) as first:
        assert first.wait().how == "killed"
    world = World(Path.cwd())
    done_first = [line["what"] for line in world.lines("effects")]
    assert len(done_first) == 100, len(done_first)
    before = snapshot()
    started = {call.entry: call for call in before.calls if call.status == EntryStatus.STARTED}
    recorded = {call.entry for call in before.calls} - set(started)
    assert started, "the kill fell where nothing was under way"
    assert recorded, "the kill fell before anything was recorded"

    with Process.fork(lambda _: run_calls(how, 2, CrashPlan())) as second:
        needs = second.result()["needs"]
    assert {need.split()[2].rstrip(":") for need in needs} == set(started), needs
    assert not any("arguments that no recorded call has" in need for need in needs), needs
    everything = [line["what"] for line in world.lines("effects")]
    again = [what for what in everything[100:] if what in done_first]
    assert all(not what.startswith("once") for what in again), again
    kept = {call.value for call in before.calls if call.status == EntryStatus.DONE}
    assert not kept & set(again), kept & set(again)

    for call in started.values():
        what = f"once {call.what.partition(':')[2]}"
        with Process.fork(lambda _, c=call, w=what: resolve(c.entry, w in everything, w)) as person:
            person.result()
    with Process.fork(lambda _: run_calls(how, 3, CrashPlan())) as third:
        assert third.result()["result"] == sorted(names()), third.messages
    everything = [line["what"] for line in world.lines("effects")]
    once = [what for what in everything if what.startswith("once")]
    assert len(once) == len(set(once)) == total["once"], len(once)
    assert "effects_not_asked_for" not in snapshot_events()
    say(f"{len(recorded)} recorded, {len(started)} in doubt, {len(again)} made again")


def names():
    kinds = ("once", "step", "llm")
    return [f"{kinds[i % 3]} {i}" for i in range(CALLS_MADE)]


def snapshot():
    with Process.fork(lambda _: take_snapshot(URL)) as reader:
        import msgspec

        from holdfast.testing.checker import Snapshot

        return msgspec.convert(reader.result(), Snapshot)


def snapshot_events():
    store = open_store(URL)
    (task,) = store.read(verbs.list_tasks(None, 10))
    return [event.type for event in store.read(verbs.list_events(task.task_id))]


def run_calls(how, seed, plan):
    """Run the handler; each run makes its calls in another order, after pauses of its own."""
    world = World(Path.cwd(), plan)
    chance = random.Random(seed)  # noqa: S311  pauses
    store, _ = open_with_plan(URL, plan)
    runner = TaskRunner(store)

    @tool
    async def once(number: int) -> str:
        await asyncio.sleep(chance.uniform(0, 0.05))
        world.effect("effects", f"once {number}")
        return f"once {number}"

    async def step(name: str) -> str:
        await asyncio.sleep(chance.uniform(0, 0.05))
        world.effect("effects", name)
        return name

    @runner.task
    async def many(ctx: Context) -> list[str]:
        async def one(name: str) -> str:
            await asyncio.sleep(chance.uniform(0, 0.1))
            if name.startswith("once"):
                return await ctx.tool(once, int(name.split()[1]))
            if name.startswith("llm"):
                return await ctx.llm(step, name)
            return await ctx.step(step, name)

        todo = names()
        if how == "map":  # branches are named by their items, so their order may change
            chance.shuffle(todo)
            return sorted(await ctx.map(one, todo))
        if how == "gather":
            return sorted(await ctx.gather(*(one(name) for name in todo)))
        chance.shuffle(todo)
        return sorted(await asyncio.gather(*(one(name) for name in todo)))

    try:
        return {"result": runner.run(many), "needs": []}
    except errors.TaskBlockedError as blocked:
        return {"result": None, "needs": list(blocked.needs)}


# -- liveness -------------------------------------------------------------------------------------


def a_killed_worker_is_noticed():
    pauses = []
    for number in range(5):
        with (
            Process.fork(lambda tell, n=number: hang(tell, n, forever=True)) as first,
        ):
            until(lambda: len(first.messages) or (first.poll() and 0))
            with Process.fork(lambda tell, n=number: hang(tell, n, forever=False)) as other:
                until(lambda: "ready" in other.messages or (other.poll() and 0))
                time.sleep(0.1)
                os.kill(first.pid, signal.SIGKILL)
                killed = boottime()
                pauses.append(other.result() - killed)
    say("re-claimed after", [f"{pause:.3f} s" for pause in pauses])
    assert sorted(pauses)[2] < 0.5, pauses
    assert max(pauses) < 0.6, pauses


def hang(tell, number, *, forever):
    runner = TaskRunner(URL)
    started = []

    async def note() -> int:
        return 1

    @runner.task
    async def work(ctx: Context, number: int) -> int:
        started.append(boottime())
        await ctx.step(note)
        if forever:
            tell("hangs")
            await asyncio.sleep(60)
        return number

    if not forever:
        tell("ready")
    runner.run(work, number=number)
    return started[0]


def until(condition, seconds=20.0):
    end = boottime() + seconds
    while not condition():
        assert boottime() < end, "it never happened"
        time.sleep(0.002)


def a_blocked_event_loop():
    lease = 0.5
    with Process.fork(lambda tell: block(tell, lease, blocks=True)) as first:
        until(lambda: first.messages or (first.poll() and 0))
        with Process.fork(lambda tell: block(tell, lease, blocks=False)) as other:
            assert first.result() == 1
            assert other.result() == 1
    assert len(lines("ran")) == 1, lines("ran")
    store = open_store(URL)
    (task,) = store.read(verbs.list_tasks(None, 10))
    item = store.read(verbs.get_item(task.task_id, MAIN))
    assert (item.attempts, item.lease_token) == (1, 1)


def block(tell, lease, *, blocks):
    runner = TaskRunner(URL, lease=lease)

    async def note() -> int:
        return 1

    @runner.task
    async def work(ctx: Context) -> int:
        with Path("ran").open("a") as file:  # noqa: ASYNC230  short
            file.write(f"{os.getpid()}\n")
        tell("blocks")
        if blocks:
            time.sleep(3 * lease)  # noqa: ASYNC251  that is the point
        return await ctx.step(note)

    return runner.run(work)


def a_database_locked_for_longer_than_the_lease():
    lease = 0.8
    with Process.fork(lambda tell: tick(tell, lease)) as worker:
        until(lambda: worker.messages or (worker.poll() and 0))
        with Process.fork(lambda tell: lock(tell, 3 * lease)) as locker:
            until(lambda: "locked" in locker.messages or (locker.poll() and 0))
            locked_at = boottime()
            time.sleep(3 * lease)
            unlocked_at = locker.result()
        assert worker.result() == "done", worker.messages
    ticks = [line.split() for line in lines("ticks")]
    first = [float(at) for number, at in ticks if number == "1"]
    later = [float(at) for number, at in ticks if number != "1"]
    assert max(first) < locked_at + lease, max(first) - locked_at
    assert later, "it was never run again"
    assert min(later) > unlocked_at
    say(
        f"stopped {max(first) - locked_at:.2f} s after the lock came,",
        f"went on {min(later) - unlocked_at:.2f} s after it went",
    )


def tick(tell, lease):
    runner, runs = TaskRunner(URL, lease=lease), itertools.count(1)

    async def note() -> int:
        return 1

    @runner.task
    async def work(ctx: Context) -> str:
        await ctx.step(note)
        number = next(runs)  # `ctx.attempt` doesn't count one that was handed back
        tell("ticks")
        for _ in range(1000 if number == 1 else 10):
            with Path("ticks").open("a") as file:  # noqa: ASYNC230  short
                file.write(f"{number} {boottime()}\n")
            await asyncio.sleep(0.01)
        return "done"

    return runner.run(work)


def lock(tell, seconds):
    connection = apsw.Connection("holdfast.db")
    connection.set_busy_timeout(5000)
    connection.execute("BEGIN IMMEDIATE")
    tell("locked")
    time.sleep(seconds)
    connection.execute("ROLLBACK")
    return boottime()


if __name__ == "__main__":
    chosen, facts = sys.argv[1], dict(each.split("=") for each in sys.argv[2:])
    globals()[chosen](**facts)

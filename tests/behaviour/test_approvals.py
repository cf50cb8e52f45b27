"""Approvals: for exact arguments, without a process meanwhile, used once."""

from __future__ import annotations

import asyncio
import os
import pwd
import time

import pytest

from holdfast import WorkItem, errors, idempotency_key, operations, tool
from holdfast.models import RetryPolicy
from holdfast.states import EntryKind
from holdfast.store import verbs

NOW = RetryPolicy(max_attempts=3, initial=0.0)


def blocked(handle):
    """Run until the task is blocked, and return the entries that people are asked about."""
    with pytest.raises(errors.TaskBlockedError) as found:
        handle.run()
    return found.value.entries


def waiting(runner):
    return [(a.entry, a.name, a.text) for a in operations.approvals_of(runner.store)]


def entries(runner, task_id, item="main"):
    return runner.store.read(verbs.read_journal(task_id, item))


def status(runner, entry):
    return runner.store.read(verbs.get_approval(*operations.parse_entry(entry))).status


# -- ctx.approval ----------------------------------------------------------------------------------


def test_an_approval_is_waited_for_without_a_process_and_says_who_gave_it(new_runner):
    def program(runner):
        @runner.task
        async def deploy(ctx, host: str) -> list[object]:
            given = await ctx.approval("deploy", {"host": host}, text="to production")
            return [given.by, given.reason, given.at]

        return runner.options(key="k").submit(deploy, host="a")

    first = new_runner()
    handle = program(first)
    (entry,) = blocked(handle)
    assert waiting(first) == [(entry, "deploy", "to production")]
    assert handle.status == "blocked"
    first.close()

    second = new_runner()
    before = time.time()
    second.approve(entry, by="alice", reason="go ahead")
    handle = program(second)
    assert handle.status == "running"
    by, reason, at = handle.run()
    assert (by, reason) == ("alice", "go ahead")
    assert before <= at <= time.time()
    assert status(second, entry) == "used"
    assert waiting(second) == []


def test_the_one_who_approves_is_the_user_of_the_process_unless_it_is_said(runner):
    @runner.task
    async def deploy(ctx) -> str:
        return (await ctx.approval("deploy")).by

    handle = runner.submit(deploy)
    runner.approve(*blocked(handle))
    assert handle.run() == pwd.getpwuid(os.getuid()).pw_name


def test_a_rejection_is_raised_with_its_reason_and_the_same_at_a_replay(runner):
    seen = []

    @runner.task
    async def deploy(ctx) -> str:
        for name in ("first", "second"):
            try:
                await ctx.approval(name)
            except errors.ApprovalRejectedError as error:
                seen.append((name, error.by, error.reason))
        return "over"

    handle = runner.submit(deploy)
    runner.reject(*blocked(handle), by="bob", reason="not today")
    runner.reject(*blocked(handle), by="bob")
    assert handle.run() == "over"
    assert seen == [("first", "bob", "not today")] * 2 + [("second", "bob", None)]


def test_a_rejection_that_ends_the_task_is_not_tried_again_and_retry_asks_anew(runner):
    @runner.task(retry=NOW)
    async def deploy(ctx) -> str:
        return (await ctx.approval("deploy")).by

    handle = runner.submit(deploy)
    (entry,) = blocked(handle)
    runner.reject(entry, by="bob", reason="no")
    with pytest.raises(errors.TaskFailedError, match="bob rejected deploy: no") as failed:
        handle.run()
    assert failed.value.error_type == "ApprovalRejectedError"
    runner.retry(handle.task_id)
    (again,) = blocked(handle)
    assert again != entry
    runner.approve(again, by="alice")
    assert handle.run() == "alice"


def test_nobody_answers_in_time(runner):
    @runner.task
    async def deploy(ctx) -> str:
        try:
            await ctx.approval("deploy", timeout=0.3)
        except errors.ApprovalExpiredError:
            return "nobody"
        return "somebody"

    handle = runner.submit(deploy)
    started = time.monotonic()
    assert handle.run() == "nobody"  # like a signal with a time limit: `run` waits for it
    assert time.monotonic() - started >= 0.25
    (asked, *_) = entries(runner, handle.task_id)
    entry = f"{handle.task_id}:main:{asked.seq}"
    assert status(runner, entry) == "expired"
    with pytest.raises(errors.UsageError, match="expired"):
        runner.approve(entry)


def test_an_answer_ends_the_wait_at_once_in_a_task_that_runs_here(runner):
    @runner.task
    async def deploy(ctx) -> str:
        return (await ctx.approval("deploy", timeout=60)).by

    async def main():
        handle = await runner.asubmit(deploy)
        running = asyncio.ensure_future(handle.arun())
        async with asyncio.timeout(10):
            while not (asked := operations.approvals_of(runner.store)):
                await asyncio.sleep(0.01)
            await operations.approve(runner.store, asked[0].entry, by="alice")
            return await running

    assert asyncio.run(main()) == "alice"


def test_an_approval_can_be_given_once_and_not_after_the_task_has_ended(runner):
    @runner.task
    async def deploy(ctx, n: int) -> str:
        return (await ctx.approval("deploy")).by

    handle = runner.submit(deploy, n=1)
    (entry,) = blocked(handle)
    runner.approve(entry, by="alice")
    for decide in (runner.approve, runner.reject):
        with pytest.raises(errors.UsageError, match="approved already by alice"):
            decide(entry, by="bob")
    assert handle.run() == "alice"
    with pytest.raises(errors.UsageError, match="used already by alice"):
        runner.approve(entry)

    other = runner.submit(deploy, n=2)
    (entry,) = blocked(other)
    runner.cancel(other.task_id)
    with pytest.raises(errors.UsageError, match="its item is canceled"):
        runner.approve(entry)
    assert waiting(runner) == []
    for wrong in (f"{other.task_id}:main:99", f"{other.task_id}:nobody:1"):
        with pytest.raises(errors.UsageError, match="asks for no approval"):
            runner.approve(wrong)


def test_branches_wait_for_approvals_of_their_own(runner):
    @runner.task
    async def deploy(ctx) -> list[str]:
        given = await ctx.gather(*(ctx.approval("deploy", {"host": h}) for h in "ab"))
        return [each.by for each in given]

    handle = runner.submit(deploy)
    first, second = blocked(handle)
    runner.approve(second, by="two")
    assert blocked(handle) == [first]
    runner.approve(first, by="one")
    assert sorted(handle.run()) == ["one", "two"]


def test_an_approval_and_a_doubt_at_the_same_time_are_both_said(runner):
    @tool
    async def send() -> None:
        raise RuntimeError("cut off")

    @runner.task
    async def deploy(ctx) -> str:
        await ctx.gather(ctx.approval("deploy"), ctx.tool(send))
        return "over"

    handle = runner.submit(deploy)
    asked = blocked(handle)
    needs = [need.split()[1] for need in operations.needs_of(runner.store, handle.task_id)]
    assert sorted(needs) == ["approve", "resolve"]
    for entry in asked:
        if [entry] == [each.entry for each in operations.approvals_of(runner.store)]:
            runner.approve(entry)
        else:
            runner.resolve(entry, "done")
    assert handle.run() == "over"


# -- tools that must be approved -------------------------------------------------------------------


class Outbox:
    """Tools that must be approved, and what they did."""

    def __init__(self, effect):
        self.sent = []

        @tool(effect=effect, approve=True, raises=(ValueError,))
        async def send(to: str) -> str:
            if to == "broken":
                raise errors.NoEffect("the address is no address")
            self.sent.append((to, idempotency_key()))
            return f"sent to {to}"

        self.send = send


@pytest.fixture(params=["once", "idempotent", "read"])
def outbox(request):
    return Outbox(request.param)


def test_a_tool_is_called_only_when_a_person_has_approved_these_arguments(runner, outbox):
    @runner.task
    async def mail(ctx, to: str) -> str:
        return await ctx.tool(outbox.send, to=to)

    handle = runner.submit(mail, to="a@b.c")
    (entry,) = blocked(handle)
    assert outbox.sent == []
    (asked,) = operations.approvals_of(runner.store)
    assert (asked.name, asked.entry) == ("Outbox.__init__.send", entry)
    request = entries(runner, handle.task_id)[asked.seq - 1]
    assert request.kind is EntryKind.APPROVAL
    runner.approve(entry)
    assert handle.run() == "sent to a@b.c"
    kinds = [(e.kind.value, e.status.value, e.ref) for e in entries(runner, handle.task_id)]
    assert kinds == [
        ("approval", "started", None),
        ("approval", "done", 1),
        ("tool", "started", None),
        ("tool", "done", 3),
    ]


def test_an_approval_for_some_arguments_releases_no_others_and_no_second_call(runner, outbox):
    recipients = ["a"]

    @runner.task
    async def mail(ctx) -> int:
        for to in tuple(recipients):
            await ctx.tool(outbox.send, to=to)
        return len(outbox.sent)

    handle = runner.submit(mail)
    (asked_for_a,) = blocked(handle)
    runner.approve(asked_for_a)
    recipients[:] = ["b", "a", "a"]  # the code was edited while the task waited
    (asked_for_b,) = blocked(handle)
    assert outbox.sent == []
    runner.approve(asked_for_b)
    (third,) = blocked(handle)  # b was sent, a with the approval it had; the second a waits
    assert [to for to, _ in outbox.sent] == ["b", "a"]
    runner.approve(third)
    assert handle.run() == 3
    assert [to for to, _ in outbox.sent] == ["b", "a", "a"]


def test_a_call_that_failed_needs_a_new_approval_to_be_made_again(runner, outbox):
    @runner.task(retry=NOW)
    async def mail(ctx) -> str:
        return await ctx.tool(outbox.send, to="broken")

    handle = runner.submit(mail)
    asked = set()
    for _ in range(3):
        (entry,) = blocked(handle)
        asked.add(entry)
        runner.approve(entry)
    with pytest.raises(errors.TaskFailedError):
        handle.run()
    assert len(asked) == 3


def test_a_call_that_is_in_doubt_is_not_released_by_its_approval_nor_made_again_without_one(
    runner,
):
    made = []

    @tool
    async def send() -> str:
        made.append("called")
        if len(made) == 1:
            raise TimeoutError
        return "sent"

    @runner.task
    async def mail(ctx) -> str:
        return await ctx.options(approve=True).tool(send)

    handle = runner.submit(mail)
    (asked,) = blocked(handle)
    runner.approve(asked)
    (doubtful,) = blocked(handle)
    assert doubtful != asked
    runner.resolve(doubtful, "retry")  # it did not happen
    (again,) = blocked(handle)
    assert again not in {asked, doubtful}
    assert made == ["called"]
    runner.approve(again)
    assert handle.run() == "sent"
    assert made == ["called"] * 2


def test_an_idempotent_call_that_was_interrupted_is_made_again_under_the_same_approval(runner):
    keys = []

    @tool(effect="idempotent", approve=True)
    async def put() -> str:
        keys.append(idempotency_key())
        if len(keys) == 1:
            await asyncio.sleep(30)
        return "put"

    @runner.task(timeout=0.3, retry=NOW)
    async def job(ctx) -> str:
        return await ctx.tool(put)

    handle = runner.submit(job)
    runner.approve(*blocked(handle))
    assert handle.run() == "put"
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_an_approval_has_the_time_that_the_call_gives_it(runner):
    @tool
    async def send() -> None: ...

    @runner.task
    async def mail(ctx) -> str:
        try:
            await ctx.options(approve=0.2).tool(send)
        except errors.ApprovalExpiredError as error:
            return str(error)
        return "sent"

    handle = runner.submit(mail)
    assert "Nobody approved" in handle.run()
    assert [e.kind.value for e in entries(runner, handle.task_id)] == ["approval", "approval"]


def test_a_sync_handler_has_the_same(runner):
    @runner.task
    def deploy(ctx) -> str:
        return ctx.approval("deploy", {"host": "a"}, text="now", timeout=None).by

    handle = runner.submit(deploy)
    runner.approve(*blocked(handle), by="alice")
    assert handle.run() == "alice"


# -- policies --------------------------------------------------------------------------------------


def planned(runner, plans, ran):
    @runner.task
    async def step(ctx, n: int) -> None:
        ran.append(n)

    @runner.task
    async def whole(ctx) -> str:
        return "over"

    @runner.planner(whole)
    def plan(task):
        return [WorkItem(f"i{n}", step, {"n": n}) for n in plans[0]]

    return whole


@pytest.mark.parametrize("policy", ["assisted", "interactive"])
def test_a_plan_is_committed_only_when_a_person_has_approved_it(runner, policy):
    ran = []
    whole = planned(runner, [(1, 2)], ran)
    handle = runner.options(approvals=policy).submit(whole)
    (entry,) = blocked(handle)
    assert ran == []
    assert [i.item_id for i in runner.store.read(verbs.list_items(handle.task_id))] == [
        "plan", "main",
    ]  # fmt: skip
    assert waiting(runner) == [(entry, "plan", "a plan of 2 items")]
    runner.approve(entry)
    assert handle.run() == "over"
    assert sorted(ran) == [1, 2]
    assert status(runner, entry) == "used"


def test_what_is_pinned_is_the_plan_that_was_approved_and_another_one_is_asked_about(runner):
    ran, plans = [], [(1,)]
    handle = runner.options(approvals="assisted").submit(planned(runner, plans, ran))
    (first,) = blocked(handle)
    runner.approve(first)
    plans[0] = (2,)  # the planner is run again, and has changed its mind
    (second,) = blocked(handle)
    assert second != first
    assert [entry for entry, *_ in waiting(runner)] == [second]
    runner.approve(second)
    plans[0] = (1,)  # and again: what was approved before doesn't count any more
    (third,) = blocked(handle)
    assert third not in {first, second}
    runner.approve(third)
    assert handle.run() == "over"
    assert ran == [1]
    assert [status(runner, e) for e in (first, second, third)] == ["expired", "expired", "used"]


def test_a_rejected_plan_fails_the_task_and_retry_plans_anew(runner):
    ran, plans = [], [(1,)]
    handle = runner.options(approvals="assisted").submit(planned(runner, plans, ran))
    runner.reject(*blocked(handle), by="bob", reason="too little")
    with pytest.raises(errors.TaskFailedError, match="bob rejected plan: too little"):
        handle.run()
    plans[0] = (1, 2)
    runner.retry(handle.task_id)
    runner.approve(*blocked(handle))
    assert handle.run() == "over"
    assert sorted(ran) == [1, 2]


def test_interactive_asks_about_every_once_call_also_of_children_and_no_others(runner):
    made = []

    async def once(n: int) -> None:
        made.append(n)

    @tool(effect="idempotent")
    async def harmless() -> None:
        made.append("harmless")

    @runner.task
    async def child(ctx) -> None:
        await ctx.tool(once, 2)

    @runner.task
    async def parent(ctx) -> str:
        await ctx.tool(harmless)
        await ctx.step(harmless.function)
        await ctx.tool(once, 1)
        await ctx.child(child)
        return "over"

    handle = runner.options(approvals="interactive").submit(parent)
    (first,) = blocked(handle)
    assert made == ["harmless"] * 2
    runner.approve(first)
    (second,) = blocked(handle)
    assert made[2:] == [1]
    assert not second.startswith(handle.task_id)
    runner.approve(second)
    assert handle.run() == "over"
    assert made[2:] == [1, 2]


def test_a_plain_task_asks_about_nothing_and_a_policy_that_is_none_is_refused(runner):
    made = []

    async def once() -> None:
        made.append(1)

    @runner.task
    async def job(ctx) -> None:
        await ctx.tool(once)

    runner.run(job)
    assert made == [1]
    with pytest.raises(errors.UsageError, match="no approval policy"):
        runner.options(approvals="careful")

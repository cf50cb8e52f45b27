"""Done means provable: when evidence is checked, and what a rejection does."""

from __future__ import annotations

import asyncio
import sys

import pytest

from holdfast import (
    Context,
    Evidence,
    EvidencePack,
    ItemPolicy,
    RetryPolicy,
    WorkItem,
    errors,
    execution,
)
from holdfast.store import verbs

ONCE = RetryPolicy(max_attempts=1)


def test_a_checkpoint_is_committed_only_with_evidence_that_holds(runner, work, quick):
    taken = []

    @runner.task(retry=quick)
    async def job(ctx: Context) -> int:
        if ctx.attempt == 2:
            (work / "x").write_text("now")
        taken.append((await ctx.checkpoint({"n": 1}, evidence=Evidence.file("x"))).number)
        return ctx.attempt

    assert runner.run(job) == 2
    assert taken == [1]


def test_a_rejection_says_claim_by_claim_what_was_found(runner, work):
    (work / "x").write_text("x")
    seen = []

    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> None:
        try:
            await ctx.checkpoint(evidence=[Evidence.file("x"), Evidence.file("y")])
        except errors.EvidenceRejectedError as error:
            seen.extend(verdict.status.value for verdict in error.verdicts)
            raise

    with pytest.raises(errors.TaskFailedError, match=r"(?s)EvidenceRejectedError.*file:y"):
        runner.run(job)
    assert seen == ["verified", "failed"]


def test_exit_code_one_is_not_zero(runner):
    @runner.task(retry=ONCE)
    async def job(ctx: Context, code: int) -> None:
        argv = [sys.executable, "-c", f"raise SystemExit({code})"]
        await ctx.checkpoint(evidence=Evidence.command(argv))

    runner.run(job, 0)
    with pytest.raises(errors.TaskFailedError, match="EvidenceRejected"):
        runner.run(job, 1)


def test_a_verifier_that_crashes_verifies_nothing(runner):
    def crash(params: dict, root: object) -> bool:
        raise RuntimeError("broken verifier")

    runner.verifier.register("mine", crash)

    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> None:
        await ctx.checkpoint(evidence=Evidence.custom("mine", "thing"))

    with pytest.raises(errors.TaskFailedError, match="broken verifier"):
        runner.run(job)


def test_what_an_item_owes_is_checked_before_it_succeeds(runner, work):
    @runner.task(evidence=[Evidence.file("out")], retry=ONCE)
    async def write(ctx: Context, *, does: bool) -> None:
        if does:
            (work / "out").write_text("x")

    with pytest.raises(errors.TaskFailedError, match="file:out"):
        runner.run(write, does=False)
    handle = runner.submit(write, does=True)
    handle.run()
    item = runner.store.read(verbs.get_item(handle.task_id, "main"))
    assert item.proven


def test_without_evidence_an_item_is_recorded_not_proven_unless_that_is_forbidden(runner):
    @runner.task(retry=ONCE)
    async def job(ctx: Context, n: int = 0) -> None: ...

    @runner.task(retry=ONCE, require_evidence=True)
    async def strict(ctx: Context) -> None: ...

    handle = runner.submit(job)
    handle.run()
    assert not runner.store.read(verbs.get_item(handle.task_id, "main")).proven
    for submit, task in ((runner, strict), (runner.options(require_evidence=True), job)):
        with pytest.raises(errors.TaskFailedError, match="must prove what it did"):
            submit.run(task, *([] if task is strict else [1]))


def test_a_task_that_requires_evidence_requires_it_of_every_item(runner, work):
    (work / "x").write_text("x")

    @runner.task(retry=ONCE)
    async def part(ctx: Context) -> None: ...

    @runner.task(require_evidence=True, retry=ONCE)
    async def whole(ctx: Context) -> None:
        await ctx.checkpoint(evidence=Evidence.file("x"))

    runner.planner(whole)(lambda task: [WorkItem("a", part)])
    with pytest.raises(errors.TaskFailedError, match=r"a: EvidenceRejected.*part must prove"):
        runner.run(whole)


def test_direct_predecessors_are_checked_when_a_dependent_is_claimed(runner, work):
    ran = []

    @runner.task
    async def write(ctx: Context) -> str:
        ran.append("write")
        (work / "x").write_text("x")
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return "x"

    @runner.task
    async def break_it(ctx: Context) -> None:
        ran.append("break")
        if ran.count("break") == 1:
            (work / "x").unlink()

    @runner.task
    async def read(ctx: Context) -> str:
        ran.append("read")
        return (work / "x").read_text()

    @runner.task
    async def whole(ctx: Context) -> dict:
        return ctx.results

    runner.planner(whole)(
        lambda task: [
            WorkItem("write", write),
            WorkItem("break", break_it, after=["write"]),
            WorkItem("read", read, after=["write", "break"]),
        ]
    )
    assert runner.run(whole) == {"read": "x"}
    assert ran == ["write", "break", "write", "break", "read"]


def test_everything_is_checked_before_the_task_is_called_succeeded(runner, work):
    ran = []

    @runner.task
    async def write(ctx: Context) -> None:
        ran.append("write")
        (work / "x").write_text("x")
        await ctx.checkpoint(evidence=Evidence.file("x"))

    @runner.task
    async def other(ctx: Context) -> None:
        ran.append("other")

    @runner.task
    async def whole(ctx: Context) -> None:
        if ran.count("write") == 1:
            (work / "x").unlink()

    runner.planner(whole)(
        lambda task: [WorkItem("write", write), WorkItem("other", other, after=["write"])]
    )
    runner.run(whole)
    assert ran == ["write", "other", "write", "other"]


def test_the_evidence_of_an_interrupted_item_is_checked_at_takeover(runner, work):
    calls = []

    def write(text: str) -> None:
        calls.append(text)
        (work / "x").write_text(text)

    @runner.task
    async def job(ctx: Context) -> str:
        answer = await ctx.llm(lambda: calls.append("llm") or "text")
        await ctx.step(write, answer)
        await ctx.checkpoint(evidence=Evidence.file("x"))
        await ctx.sleep("nap", 0.5)
        return (work / "x").read_text()

    async def main() -> str:
        running = asyncio.ensure_future(runner.arun(job))
        while not runner.store.read(verbs.list_tasks("waiting", 1)):
            await asyncio.sleep(0.01)
        (work / "x").write_text("tampered")
        return await running

    assert asyncio.run(main()) == "text"
    assert calls == ["llm", "text", "text"]


def test_a_workspace_that_is_not_here_keeps_the_item_waiting(
    new_runner, work, tmp_path, monkeypatch
):
    monkeypatch.setattr(execution, "WORKSPACE_PAUSE", 0.5)
    (work / "x").write_text("x")
    first = new_runner()
    ran = []

    @first.task(name="job")
    async def job(ctx: Context) -> str:
        ran.append(1)
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return await ctx.signal("go")

    handle = first.submit(job)

    async def until_waiting() -> None:
        worker = first.new_worker()
        await worker.start()
        while handle.status != "waiting":
            await asyncio.sleep(0.01)
        await worker.stop()

    asyncio.run(until_waiting())
    work.rename(tmp_path / "elsewhere")
    first.signal(handle.task_id, "go", "went")
    second = new_runner()
    second.task(name="job")(job.function)

    async def look() -> None:
        worker = second.new_worker()
        await worker.start()
        await asyncio.sleep(0.3)
        await worker.stop()

    asyncio.run(look())
    item = second.store.read(verbs.get_item(handle.task_id, "main"))
    assert (item.status, item.failures, item.generation) == ("waiting", 0, 0)
    assert "workspace" in item.error
    assert len(ran) == 1

    (tmp_path / "elsewhere").rename(work)
    third = new_runner()
    third.task(name="job")(job.function)
    assert third.run_with_recovery(handle.task_id) == "went"
    assert len(ran) == 2


def test_a_checkpoint_where_the_workspace_is_missing_waits_too(new_runner, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "WORKSPACE_PAUSE", 0.1)
    runner = new_runner(workspace=str(tmp_path / "later"))
    tried = []

    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> str:
        tried.append(1)
        if len(tried) == 2:
            (tmp_path / "later").mkdir()
            (tmp_path / "later" / "x").write_text("x")
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return "proven"

    assert runner.run(job) == "proven"
    assert len(tried) == 2


def test_a_command_is_run_again_only_if_it_says_it_may_be(runner, work):
    count = work / "count"
    again = [sys.executable, "-c", f"open({str(count)!r}, 'a').write('again ')"]
    once = [sys.executable, "-c", f"open({str(count)!r}, 'a').write('once ')"]

    @runner.task
    async def job(ctx: Context) -> None:
        await ctx.checkpoint(
            evidence=[Evidence.command(again, recheck=True), Evidence.command(once)]
        )

    handle = runner.submit(job)
    handle.run()
    before = count.read_text().split()
    assert before.count("once") == 1
    assert before.count("again") == 2
    found = asyncio.run(runner.collect_evidence(handle.task_id))
    assert sorted(verdict.status for _, verdict in found.holding) == ["historic", "verified"]
    assert count.read_text().split().count("once") == 1


def test_enough_of_a_pack_is_enough_later_too(runner, work):
    for name in "ab":
        (work / name).write_text(name)
    ran = []

    @runner.task
    async def job(ctx: Context) -> None:
        ran.append(1)
        claims = [Evidence.file("a"), Evidence.file("b")]
        await ctx.checkpoint(evidence=EvidencePack(claims, min_verified=1))

    handle = runner.submit(job)
    handle.run()
    (work / "a").unlink()
    runner.resume(handle.task_id)
    assert ran == [1]
    (work / "b").unlink()
    found = asyncio.run(runner.collect_evidence(handle.task_id))
    assert not found.holds


def test_collect_evidence_says_what_holds_and_changes_nothing(runner, work):
    (work / "a").write_text("a")
    (work / "b").write_text("b")

    @runner.task
    async def job(ctx: Context) -> None:
        await ctx.checkpoint(evidence=[Evidence.file("a"), Evidence.file("b")])

    handle = runner.submit(job)
    handle.run()
    assert asyncio.run(runner.collect_evidence(handle.task_id)).holds
    (work / "b").write_text("changed")
    found = asyncio.run(runner.collect_evidence(handle.task_id))
    assert [claim.subject for claim, _ in found.failed] == ["file:b"]
    assert "file:b" in found.explain()
    assert handle.status == "succeeded"


def test_an_item_of_a_plan_may_owe_evidence(runner, work):
    @runner.task
    async def part(ctx: Context) -> None:
        if ctx.attempt == 2:
            (work / "out").write_text("x")

    @runner.task
    async def whole(ctx: Context) -> None: ...

    policy = ItemPolicy(RetryPolicy(max_attempts=2, initial=0.001))
    runner.planner(whole)(
        lambda task: [WorkItem("a", part, evidence=[Evidence.file("out")], policy=policy)]
    )
    runner.run(whole)

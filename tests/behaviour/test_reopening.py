"""Evidence that no longer holds: what is done again, what isn't, and when a person is asked."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import Context, Evidence, RetryPolicy, TaskRunner, WorkItem, errors, tool
from holdfast.models import Lease
from holdfast.reopening import reopen
from holdfast.store import verbs

ONCE = RetryPolicy(max_attempts=1)


def events(runner: TaskRunner, task_id: str, kind: str) -> list[str]:
    found = runner.store.read(verbs.list_events(task_id))
    return sorted(str(event.item_id) for event in found if event.type == kind)


class Chain:
    """write → use → last, and one that depends on none of them. Counts everything it does."""

    def __init__(self, runner: TaskRunner, work) -> None:
        self.did: list[str] = []
        self.text = "one"

        @tool(effect="once")
        async def send() -> str:
            self.did.append("send")
            return "sent"

        @runner.task
        async def write(ctx: Context) -> str:
            self.did.append("write")
            answer = await ctx.llm(lambda: self.did.append("llm") or "answer")
            sent = await ctx.tool(send)
            await ctx.step(lambda: (work / "x").write_text(self.text) and None)
            await ctx.checkpoint(evidence=Evidence.file("x"))
            return answer + sent

        @runner.task
        async def use(ctx: Context) -> str:
            self.did.append("use")
            await ctx.llm(lambda: self.did.append("llm2") or "answer")
            await ctx.step(lambda: self.did.append("read") or (work / "x").read_text())
            return "used"

        @runner.task
        async def last(ctx: Context) -> str:
            self.did.append("last")
            return "last"

        @runner.task
        async def apart(ctx: Context) -> None:
            self.did.append("apart")
            (work / "y").write_text("y")
            await ctx.checkpoint(evidence=Evidence.file("y"))

        @runner.task
        async def whole(ctx: Context) -> str:
            self.did.append("whole")
            return "whole"

        @runner.planner(whole)
        def plan(task) -> list[WorkItem]:
            return [
                WorkItem("write", write),
                WorkItem("use", use, after=["write"]),
                WorkItem("last", last, after=["use"]),
                WorkItem("apart", apart),
            ]

        self.handle = runner.submit(whole)
        self.handle.run()


@pytest.fixture
def chain(runner, work) -> Chain:
    made = Chain(runner, work)
    assert sorted(made.did) == [
        "apart", "last", "llm", "llm2", "read", "send", "use", "whole", "write",
    ]  # fmt: skip
    made.did.clear()
    return made


def test_nothing_is_done_again_while_everything_holds(runner, chain):
    assert runner.resume(chain.handle.task_id) == "whole"
    assert chain.did == []


@pytest.mark.parametrize("damage", ["delete", "alter"])
def test_the_item_and_its_dependents_are_done_again(runner, work, chain, damage):
    if damage == "delete":
        (work / "x").unlink()
    else:
        (work / "x").write_text("altered")
    assert runner.resume(chain.handle.task_id) == "whole"
    # No LLM output was paid for again and nothing was sent again. What came out as before
    # let the deeper ones stand.
    assert chain.did == ["write", "use", "read"]
    assert (work / "x").read_text() == "one"
    assert events(runner, chain.handle.task_id, "item_reopened") == ["last", "main", "use", "write"]
    assert events(runner, chain.handle.task_id, "item_unchanged") == ["last", "main"]
    assert runner.resume(chain.handle.task_id) == "whole"
    assert chain.did == ["write", "use", "read"]


def test_a_result_that_changed_runs_what_depends_on_it(runner, work, chain):
    (work / "x").unlink()
    chain.text = "two"
    runner.resume(chain.handle.task_id)
    assert chain.did == ["write", "use", "read"]  # use's own result is as before


def test_at_most_two_reopenings_then_a_person(runner, work, chain):
    for _ in range(2):
        (work / "x").unlink()
        runner.resume(chain.handle.task_id)
    (work / "x").unlink()
    with pytest.raises(errors.TaskBlockedError, match="reopened 2 times") as caught:
        runner.resume(chain.handle.task_id)
    assert any("holdfast retry" in need for need in caught.value.needs)
    runner.retry(chain.handle.task_id)
    assert chain.handle.run() == "whole"


def test_evidence_that_still_fails_puts_kept_effects_in_doubt(runner, work):
    sent, broken = [], []

    @tool(effect="once")
    async def publish() -> str:
        sent.append(1)
        if not broken:
            (work / "x").write_text("published")
        return "published"

    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> str:
        done = await ctx.tool(publish)
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return done

    handle = runner.submit(job)
    handle.run()
    (work / "x").unlink()
    with pytest.raises(errors.TaskBlockedError, match="doesn't hold") as caught:
        runner.resume(handle.task_id)
    assert sent == [1]
    (need,) = caught.value.needs
    entry = need.split()[2].rstrip(":")
    runner.resolve(entry, "retry")
    assert handle.run() == "published"
    assert sent == [1, 1]


def test_a_person_who_says_done_is_not_asked_about_that_effect_again(runner, work):
    sent = []

    @tool(effect="once")
    async def publish() -> str:
        sent.append(1)
        (work / "x").write_text("published")
        return "published"

    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> str:
        done = await ctx.tool(publish)
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return done

    handle = runner.submit(job)
    handle.run()
    (work / "x").unlink()
    with pytest.raises(errors.TaskBlockedError) as caught:
        runner.resume(handle.task_id)
    (work / "x").write_text("put back by hand")
    runner.resolve(caught.value.needs[0].split()[2].rstrip(":"), "done", "published by hand")
    assert handle.run() == "published by hand"
    assert sent == [1]


def test_without_kept_effects_llm_outputs_are_generated_anew_and_then_a_person(runner, work):
    answers = []
    good = [True]

    def model() -> str:
        answers.append(1)
        return "good" if good[0] or len(answers) >= 3 else "bad"

    def write(text: str) -> None:
        if text == "good":
            (work / "x").write_text("x")

    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> str:
        text = await ctx.llm(model)
        if good[0] or len(answers) > 1:
            await ctx.step(write, text)
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return text

    handle = runner.submit(job)
    handle.run()
    good[0] = False
    (work / "x").unlink()
    with pytest.raises(errors.TaskBlockedError, match="done again twice"):
        runner.resume(handle.task_id)
    assert len(answers) == 2  # once more, after the kept output had failed
    runner.retry(handle.task_id)
    assert handle.status != "blocked"


def test_a_later_items_claim_supersedes_an_earlier_ones(runner, work):
    ran = []

    @runner.task
    async def write(ctx: Context, text: str) -> str:
        ran.append(text)
        (work / "x").write_text(text)
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return text

    @runner.task
    async def whole(ctx: Context) -> dict:
        return ctx.results

    runner.planner(whole)(
        lambda task: [
            WorkItem("a", write, {"text": "a"}),
            WorkItem("b", write, {"text": "b"}, after=["a"]),
        ]
    )
    handle = runner.submit(whole)
    for _ in range(3):
        assert handle.run() == {"b": "b"}
        runner.resume(handle.task_id)
    assert ran == ["a", "b"]


def test_a_claim_that_the_item_no_longer_makes_is_withdrawn(runner, work):
    names = ["first", "second"]

    @runner.task(retry=ONCE)
    async def job(ctx: Context) -> str:
        name = names[0]
        (work / name).write_text(name)
        await ctx.checkpoint(name, evidence=Evidence.file(name))
        return name

    handle = runner.submit(job)
    handle.run()
    (work / "first").unlink()
    names.pop(0)
    assert runner.resume(handle.task_id) == "second"
    found = asyncio.run(runner.collect_evidence(handle.task_id))
    assert [claim.subject for claim, _ in found.holding] == ["file:second"]
    assert found.holds


def test_a_task_whose_workspace_is_gone_is_neither_verified_nor_reopened(
    runner, work, tmp_path, chain
):
    work.rename(tmp_path / "moved")
    with pytest.raises(errors.EvidenceUnavailableError):
        runner.resume(chain.handle.task_id)
    assert chain.handle.status == "succeeded"
    (tmp_path / "moved").rename(work)
    assert runner.resume(chain.handle.task_id) == "whole"
    assert chain.did == []


def test_a_reopened_item_that_restores_goes_back_before_what_no_longer_holds(runner, work):
    wrote = []

    @runner.task
    async def job(ctx: Context) -> list[str]:
        done = await ctx.restore([])
        while len(done) < 3:
            name = f"f{len(done)}"
            wrote.append(name)
            (work / name).write_text(name)
            done = [*done, name]
            await ctx.checkpoint(done, evidence=Evidence.file(name))
        return done

    handle = runner.submit(job)
    assert handle.run() == ["f0", "f1", "f2"]
    (work / "f1").unlink()
    # The newest checkpoint's own evidence holds, but f1 would not be written again behind it.
    assert runner.resume(handle.task_id) == ["f0", "f1", "f2"]
    assert wrote == ["f0", "f1", "f2", "f1", "f2"]
    assert (work / "f1").exists()


def test_a_restoring_handler_never_gets_the_state_of_the_final_check(runner, work):
    seen = []

    @runner.task(evidence=[Evidence.file("out")])
    async def job(ctx: Context) -> int:
        state = await ctx.restore({"n": 0})
        seen.append(state)
        while state["n"] < 2:
            state = {"n": state["n"] + 1}
            await ctx.checkpoint(state, evidence=Evidence.file("in"))
        (work / "out").write_text("out")
        return state["n"]

    (work / "in").write_text("in")
    handle = runner.submit(job)
    assert handle.run() == 2
    (work / "out").unlink()
    assert runner.resume(handle.task_id) == 2
    assert seen == [{"n": 0}, {"n": 2}]


def test_a_dependent_that_restores_starts_over_when_its_input_is_made_anew(runner, work):
    started = []

    @runner.task
    async def write(ctx: Context) -> str:
        text = f"text {len(started)}"
        (work / "x").write_text(text)
        await ctx.checkpoint(evidence=Evidence.file("x"))
        return text

    @runner.task
    async def use(ctx: Context) -> list[str]:
        state = await ctx.restore([])
        started.append(list(state))
        while len(state) < 2:
            state = [*state, ctx.results["write"]]
            await ctx.checkpoint(state)
        return state

    @runner.task
    async def whole(ctx: Context) -> list[str]:
        return ctx.results["use"]

    runner.planner(whole)(
        lambda task: [WorkItem("write", write), WorkItem("use", use, after=["write"])]
    )
    handle = runner.submit(whole)
    assert handle.run() == ["text 0", "text 0"]
    (work / "x").unlink()
    assert runner.resume(handle.task_id) == ["text 1", "text 1"]
    assert started == [[], []]


def test_many_dependents_that_find_it_at_once_reopen_an_item_once(runner, work):
    lost: list[str] = []

    @runner.task(require_evidence=True)
    async def write(ctx: Context) -> None:
        (work / "x").write_text("x")
        await ctx.checkpoint(evidence=Evidence.file("x"))

    @runner.task
    async def lose(ctx: Context) -> None:
        if not lost:
            lost.append("x")
            (work / "x").unlink()

    @runner.task
    async def use(ctx: Context, number: int) -> None: ...

    @runner.task
    async def whole(ctx: Context) -> str:
        return "done"

    @runner.planner(whole)
    def plan(task) -> list[WorkItem]:
        users = [WorkItem(f"use{n}", use, {"number": n}, after=("write", "lose")) for n in range(6)]
        return [WorkItem("write", write), WorkItem("lose", lose, after=("write",)), *users]

    handle = runner.submit(whole)
    assert runner.run_with_recovery(handle.task_id) == "done"
    assert events(runner, handle.task_id, "item_reopened").count("write") == 1
    assert runner.store.read(verbs.get_item(handle.task_id, "write")).generation == 1


@pytest.mark.parametrize("left", [None, "one"])
def test_what_two_items_made_of_one_file_is_made_again_from_where_it_still_holds(
    runner, work, left
):
    did: list[str] = []

    @runner.task
    async def write(ctx: Context) -> None:
        await ctx.step(lambda: did.append("write") or (work / "x").write_text("one"))
        await ctx.checkpoint(evidence=Evidence.file("x"))

    def add() -> None:
        did.append("edit")
        assert (work / "x").read_text() == "one"
        (work / "x").write_text("one two")

    @runner.task
    async def edit(ctx: Context) -> None:
        await ctx.step(add)
        await ctx.checkpoint(evidence=Evidence.file("x"))

    @runner.task
    async def whole(ctx: Context) -> str:
        return (work / "x").read_text()

    runner.planner(whole)(
        lambda task: [WorkItem("write", write), WorkItem("edit", edit, after=["write"])]
    )
    task_id = runner.submit(whole).task_id
    assert runner.run_with_recovery(task_id) == "one two"
    did.clear()
    (work / "x").unlink()
    if left is not None:
        (work / "x").write_text(left)
    assert runner.resume(task_id) == "one two"
    assert did == (["write", "edit"] if left is None else ["edit"])


def test_an_item_that_was_reopened_is_marked_to_be_done_again_once(runner, work, chain):
    task_id = chain.handle.task_id
    (work / "x").unlink()
    runner.resume(task_id)
    journal = runner.store.read(verbs.read_journal(task_id, "write"))
    assert [entry.name for entry in journal if entry.kind == "marker"] == ["redo"]


def test_what_was_reopened_is_not_reopened_again_before_it_is_done(runner, chain):
    task_id = chain.handle.task_id
    for _ in range(3):
        assert asyncio.run(reopen(runner.store, task_id, ["write"], "drifted"))
    assert runner.store.read(verbs.get_item(task_id, "write")).generation == 1
    assert runner.resume(task_id) == "whole"


def test_who_has_lost_its_lease_reopens_nothing(runner, chain):
    task_id = chain.handle.task_id
    stale = Lease(task_id, "use", 1, "somebody")
    assert asyncio.run(reopen(runner.store, task_id, ["write"], "drifted", stale))
    assert runner.store.read(verbs.get_item(task_id, "write")).status == "succeeded"

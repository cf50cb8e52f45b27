"""`holdfast agent`, from the goal to what is proven, over the real wire."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import sys

import pytest
from support import agent_script
from support.agent_bench import EDIT, MODEL, RIGHT, item, plan, scripted
from support.agent_script import FIXED, NOTES, restore
from support.model_server import Asked, Fail, Say, Use

from holdfast import Context, TaskRunner
from holdfast.agents.conversation import CORRECTIONS
from holdfast.cli.application import load_runner
from holdfast.states import FINAL_TASK
from holdfast.store import open_store, verbs

FIX = scripted(plan(item("fix")), {"fix": [Say(calls=(EDIT,)), "Fixed."]})
"""A model that fixes the bug without looking."""


ASSISTED = ("--approvals", "assisted")


def work_on(bench, task_id: str, seconds: float = 60.0) -> None:
    """Let a worker end a task."""
    runner = load_runner("holdfast.agents:runner")
    runner.use(bench.url)

    async def work() -> None:
        worker = runner.new_worker()
        await worker.start()
        try:
            while runner.store.read(verbs.get_task(task_id)).status not in FINAL_TASK:
                await asyncio.sleep(0.05)
        finally:
            await worker.stop()

    try:
        asyncio.run(asyncio.wait_for(work(), seconds))
    finally:
        runner.close()


# -- the whole way --------------------------------------------------------------------------------


def test_a_goal_is_planned_carried_out_and_proven(bench):
    bench.server.script = agent_script.fix
    ended = bench.agent(agent_script.GOAL, "--evidence", "pytest -q")
    assert ended.code == 0, ended.err
    assert (bench.root / "calc.py").read_text() == FIXED
    assert (bench.root / "NOTES.md").read_text() == NOTES
    assert bench.server.count == bench.server.distinct == 10
    assert ended.out.startswith("The goal is reached in 1 round, proven by 4 checks.\n")
    for line in (
        "files changed   calc.py, NOTES.md",
        "passed          tests: exit code 0",
        "passed          file:NOTES.md: exists",
        "paid            10 outputs, ",
    ):
        assert line in ended.out
    for line in (
        "plan            1. fix: Correct add() [implementation]",
        "fix             run_command  argv=pytest -q tests",
        "fix             edit_file  path=calc.py old=a - b new=a + b",
        "note            done: 5 calls made, 0 replayed",
        "agent           tests passed: exit code 0",
    ):
        assert line in ended.err
    verified = bench.holdfast("verify", ended.task_id)
    assert verified.code == 0, verified.out
    assert "verified    file:NOTES.md" in verified.out


def test_anthropics_protocol_does_as_well(bench):
    bench.server.script = FIX
    ended = bench.agent("Fix the bug", *RIGHT, model="anthropic:claude-haiku-4-5")
    assert ended.code == 0, ended.err
    assert {asked.protocol for asked in bench.server.requests} == {"anthropic"}
    assert (bench.root / "calc.py").read_text() == FIXED


def test_programs_are_told_in_documents(bench):
    bench.server.script = FIX
    told = bench.documents(bench.agent("Fix the bug", *RIGHT, "--json"))
    assert told[0]["event"] == "task"
    kinds = [each["event"] for each in told]
    assert kinds[1:] == [
        "model_answered", "progress", "planned", "item_started", "model_answered", "tool", "tool",
        "model_answered", "item_succeeded", "gate", "ended",
    ]  # fmt: skip
    last = told[-1]
    assert last["status"] == "succeeded"
    assert last["files_changed"] == ["calc.py"]
    assert last["paid"]["requests"] == 3
    assert last["paid"]["cost"] > 0


# -- which task -----------------------------------------------------------------------------------


def test_the_same_command_goes_on_and_after_success_is_a_new_task(bench):
    bench.server.script = scripted(plan(item("fix")), {"fix": [Fail(400, "No.")]})
    first = bench.agent("Fix the bug", *RIGHT)
    assert first.code == 5
    again = bench.agent("Fix the bug", *RIGHT)
    assert (again.code, again.task_id) == (5, first.task_id)
    bench.server.script = FIX
    assert bench.holdfast("retry", first.task_id).code == 0
    done = bench.agent("Fix the bug", *RIGHT)
    assert (done.code, done.task_id) == (0, first.task_id)
    assert "goes on; recorded and not paid again: 1 output, " in done.err
    restore(bench.root)
    anew = bench.agent("Fix the bug", *RIGHT)
    assert anew.code == 0
    assert anew.task_id != first.task_id


def test_new_is_a_new_task_although_one_is_under_way(bench):
    bench.server.script = lambda _: Fail(400, "No.")
    first = bench.agent("Fix the bug", *RIGHT)
    assert bench.agent("Fix the bug", *RIGHT, "--new").task_id != first.task_id


@pytest.mark.parametrize(
    "changed", [("--approvals", "interactive"), ("--sandbox", "required"), ("--sandbox", "off")]
)
def test_a_task_under_way_is_not_taken_to_have_rules_that_it_was_not_started_with(bench, changed):
    bench.server.script = FIX
    words = ("agent", "Fix the bug", "--workspace", str(bench.root), "--model", MODEL, *RIGHT)
    waiting = bench.holdfast(*words, "--mode", "implementation")
    assert waiting.code == 6
    (entry,) = re.findall(r"holdfast approve (\S+):", waiting.err)
    bench.holdfast("approve", entry)
    for again in ((*words, "--mode", "implementation"), ("agent", "--task", waiting.task_id)):
        ended = bench.holdfast(*again, *changed)
        assert (ended.code, bench.server.count) == (2, 1)
        assert "goes on as it was started (approvals assisted, sandbox auto)" in ended.err
        assert changed[0] in ended.err
    assert (bench.root / "calc.py").read_text() == agent_script.BUG
    same = ("--approvals", "assisted", "--sandbox", "auto")
    assert bench.holdfast("agent", "--task", waiting.task_id, *same).code == 0


def test_options_of_a_start_say_nothing_to_a_task_that_is_named(bench):
    bench.server.script = lambda _: Fail(400, "No.")
    task_id = bench.agent("Fix the bug", *RIGHT).task_id
    ended = bench.resume(task_id, "--model", "openai:gpt-5", "--budget", "1")
    assert ended.code == 2
    assert "would ignore --model, --budget. Nothing was done." in ended.err


def test_another_goal_model_gate_or_workspace_is_another_task(bench, tmp_path):
    bench.server.script = lambda _: Fail(400, "No.")
    agent_script.make_repository(tmp_path / "other")
    ids = {
        bench.agent("Fix the bug", *RIGHT).task_id,
        bench.agent("Fix it", *RIGHT).task_id,
        bench.agent("Fix the bug", "--gate", "doctor").task_id,
        bench.agent("Fix the bug", *RIGHT, model="openai:gpt-5").task_id,
        bench.agent("Fix the bug", *RIGHT, "--workspace", str(tmp_path / "other")).task_id,
    }
    assert len(ids) == 5


def test_a_task_that_succeeded_is_checked_again_and_goes_on_where_its_gates_no_longer_pass(bench):
    bench.server.script = FIX
    task_id = bench.agent("Fix the bug", *RIGHT).task_id
    count = bench.server.count
    assert bench.resume(task_id).code == 0
    assert bench.server.count == count
    restore(bench.root)
    bench.server.script = scripted(plan(item("again")), {"again": [Say(calls=(EDIT,)), "Done."]})
    resumed = bench.resume(task_id)
    assert resumed.code == 0, resumed.err
    assert (bench.root / "calc.py").read_text() == FIXED
    assert "The goal is reached in 2 rounds" in resumed.out


# -- plans through the cache ----------------------------------------------------------------------


def test_the_same_goal_on_the_restored_workspace_costs_no_planning(bench):
    planning = [
        Say(calls=(Use("list_files", {"path": "."}),)),
        Say(calls=(Use("read_file", {"path": "calc.py"}), Use("search_files", {"pattern": "add"}))),
        plan(item("fix")),
    ]
    bench.server.script = scripted(planning, {"fix": [Say(calls=(EDIT,)), "Fixed."]})
    assert bench.agent("Fix the bug", *RIGHT).code == 0
    assert bench.server.count == 5
    restore(bench.root)
    (bench.root / ".pytest_cache").mkdir()  # ignored: it makes no difference
    again = bench.agent("Fix the bug", *RIGHT)
    assert again.code == 0
    assert not [asked for asked in bench.server.requests[5:] if "final_result" in asked.tools]
    saved = next(line for line in again.out.splitlines() if line.startswith("from the cache"))
    assert saved.startswith("from the cache  3 outputs, ")
    assert "$0.00" in saved
    assert saved.endswith(" saved")


@pytest.mark.parametrize("what", ["goal", "contents", "a new file", "model"])
def test_another_goal_model_or_workspace_is_planned_anew(bench, what):
    bench.server.script = FIX
    assert bench.agent("Fix the bug", *RIGHT).code == 0
    restore(bench.root)
    goal, model = "Fix the bug", "openai:gpt-5-mini"
    if what == "contents":
        (bench.root / "pyproject.toml").write_text("")
    elif what == "a new file":
        (bench.root / "new.txt").write_text("new")
    elif what == "goal":
        goal = "Fix the bug, please"
    else:
        model = "openai:gpt-5"
    before = bench.server.count
    assert bench.agent(goal, *RIGHT, model=model).code == 0
    assert "final_result" in bench.server.requests[before].tools


# -- plans that don't do --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [Say(calls=(Use("give_up", {"reason": "Not today."}),)), plan()],
    ids=["gave up", "no plan"],
)
@pytest.mark.parametrize("how", ["retry", "new"])
def test_what_came_to_no_plan_is_asked_anew(bench, answer, how):
    bench.server.script = scripted(answer, {})
    words = ("Fix the bug", *RIGHT, "--max-rounds", "1")
    failed = bench.agent(*words)
    assert failed.code == 5
    bench.server.script = FIX
    if how == "retry":
        assert bench.holdfast("retry", failed.task_id).code == 0
    ended = bench.agent(*words, *(["--new"] if how == "new" else []))
    assert ended.code == 0, ended.err
    assert "from the cache" not in ended.err + ended.out


def test_a_plan_that_does_not_do_goes_back_with_the_reasons_and_is_corrected(bench):
    bad = plan(item("fix", mode="ops", evidence=[{"kind": "file", "path": "../x"}]))
    bench.server.script = scripted(
        [bad, plan(item("fix"))], {"fix": [Say(calls=(EDIT,)), "Fixed."]}
    )
    ended = bench.agent("Fix the bug", *RIGHT)
    assert ended.code == 0, ended.err
    told = bench.server.requests[1].results[0].text
    assert "there is no mode 'ops' on offer" in told
    assert "contains '..'" in told


def test_corrections_are_bounded_and_so_are_rounds(bench):
    bench.server.script = scripted(plan(), {})
    ended = bench.agent("Fix the bug", *RIGHT, "--max-rounds", "2")
    assert ended.code == 5
    assert "The goal wasn't reached in 2 rounds." in ended.err
    assert bench.server.count == 2 * (1 + CORRECTIONS)


# -- gates, and rounds ----------------------------------------------------------------------------


def test_a_failing_gate_is_planned_for_with_its_output_and_its_passing_ends_the_task(bench):
    def script(asked: Asked):
        if "final_result" in asked.tools:
            if "went wrong" not in asked.prompt:
                return plan(item("nothing"))
            assert "The gate right failed: exit code 1" in asked.prompt
            return plan(item("fix"))
        return scripted("", {"nothing": ["Done."], "fix": [Say(calls=(EDIT,)), "Fixed."]})(asked)

    bench.server.script = script
    ended = bench.agent("Fix the bug", *RIGHT)
    assert ended.code == 0, ended.err
    assert "The goal is reached in 2 rounds, proven by 1 check." in ended.out
    assert "agent           right failed: exit code 1" in ended.err


def test_the_same_failure_three_times_in_a_row_ends_the_task_with_its_reason(bench):
    bench.server.script = scripted(plan(item("nothing")), {"nothing": ["Done."]})
    ended = bench.agent("Fix the bug", *RIGHT, "--max-rounds", "9")
    assert ended.code == 5
    assert "The goal wasn't reached in 3 rounds. The last failures were one and the same." in (
        ended.err
    )
    assert "The gate right failed: exit code 1" in ended.err
    with open_store(bench.url) as store:
        assert store.read(verbs.get_task(ended.task_id)).status == "failed"


def test_evidence_that_an_item_owes_and_that_does_not_hold_fails_its_round(bench):
    owing = item("write", evidence=[{"kind": "file", "path": "made.txt"}])
    bench.server.script = scripted(plan(owing), {"write": ["It is there."]})
    ended = bench.agent("Fix the bug", *RIGHT, "--max-rounds", "1")
    assert ended.code == 5
    assert "EvidenceRejectedError" in ended.err
    assert "file:made.txt" in ended.err


def test_what_an_item_proved_must_still_be_so_at_the_end(bench):
    make = Use("write_file", {"path": "made.txt", "content": "x"})
    over = Use("write_file", {"path": "made.txt", "content": "y"})
    owing = item(
        "make",
        evidence=[
            {"kind": "file_hash", "path": "made.txt", "sha256": hashlib.sha256(b"x").hexdigest()}
        ],
    )
    bench.server.script = scripted(
        plan(owing, item("spoil")),
        {"make": [Say(calls=(make,)), "Made."], "spoil": [Say(calls=(over,)), "Spoiled."]},
    )
    ended = bench.agent("Fix the bug", "--gate", "doctor", "--max-rounds", "1")
    assert ended.code == 5
    assert "The gate file:made.txt failed" in ended.err


def test_a_worker_without_the_workspace_leaves_the_task_to_others(bench, tmp_path):
    bench.server.script = FIX
    waiting = bench.agent("Fix the bug", *RIGHT, *ASSISTED)
    (entry,) = re.findall(r"holdfast approve (\S+):", waiting.err)
    bench.holdfast("approve", entry)
    bench.root.rename(tmp_path / "elsewhere")
    with pytest.raises(TimeoutError):
        work_on(bench, waiting.task_id, seconds=3.0)
    (tmp_path / "elsewhere").rename(bench.root)
    work_on(bench, waiting.task_id)
    assert bench.resume(waiting.task_id).code == 0
    assert bench.server.count == bench.server.distinct == 3


def test_a_provider_that_refuses_ends_the_task_at_once(bench):
    bench.server.script = lambda _: Fail(401, "Incorrect API key provided.")
    ended = bench.agent("Fix the bug", *RIGHT)
    assert ended.code == 5
    assert bench.server.count == 1


# -- what a model may not do ----------------------------------------------------------------------


def refused(bench, *calls: Use, mode: str = "implementation") -> list[str]:
    """Let a model make calls in one answer, and return what it is told."""
    bench.server.script = scripted(
        plan(item("try", mode=mode)), {"try": [Say(calls=calls), "I tried."]}
    )
    given = ("--mode", mode, "--gate", "doctor", "--sandbox", "off")
    ended = bench.agent("Try it", *given)
    assert ended.code == 0, ended.err
    return [result.text for result in bench.server.requests[-1].results]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("write_file", {"path": "x", "content": "x"}),
        ("edit_file", {"path": "calc.py", "old": "-", "new": "+"}),
        ("run_command", {"argv": ["pytest"]}),
    ],
)
def test_a_tool_outside_the_modes_permission_is_refused_even_if_the_model_calls_it(
    bench, name, arguments
):
    (told,) = refused(bench, Use(name, arguments), mode="design")
    assert "Unknown tool" in told or told.startswith("Refused: ")
    assert (bench.root / "calc.py").read_text() == agent_script.BUG
    assert not (bench.root / "x").exists()


def test_the_planner_may_not_change_anything_either(bench):
    sneaky = [Say(calls=(EDIT, Use("run_command", {"argv": ["pytest"]}))), plan(item("nothing"))]
    bench.server.script = scripted(sneaky, {"nothing": ["Done."]})
    assert bench.agent("Try it", "--gate", "doctor").code == 0
    assert (bench.root / "calc.py").read_text() == agent_script.BUG


def test_paths_and_commands_outside_the_workspace_are_refused(bench):
    (bench.place / "secret").write_text("hush")
    (bench.root / "link").symlink_to(bench.place / "secret")
    told = refused(
        bench,
        Use("read_file", {"path": "../secret"}),
        Use("read_file", {"path": str(bench.place / "secret")}),
        Use("read_file", {"path": "link"}),
        Use("write_file", {"path": "../made", "content": "x"}),
        Use("write_file", {"path": ".git/hooks/post-commit", "content": "x"}),
        Use("run_command", {"argv": ["cat", "../secret"]}),
        Use("run_command", {"argv": ["pytest", "../"]}),
        Use("run_command", {"argv": ["sh", "-c", "cat ../secret"]}),
    )
    assert all(text.startswith("Refused: ") for text in told), told
    assert "hush" not in "".join(told)
    assert not (bench.place / "made").exists()
    assert not (bench.root / ".git/hooks/post-commit").exists()


def test_a_plan_cannot_claim_what_a_command_of_its_own_says(bench):
    owing = item("x", evidence=[{"kind": "command", "argv": ["touch", "made"]}])
    bench.server.script = scripted(plan(owing), {})
    ended = bench.agent("Fix the bug", *RIGHT, "--max-rounds", "1")
    assert ended.code == 5
    assert not (bench.root / "made").exists()


# -- at the door ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "Give a goal, or --task"),
        (("Fix it", "--task", "x"), "Give a goal, or --task"),
        (("Fix it",), "Name a model"),
        (("Fix it", "--model", "m", "--workspace", "gone"), "no directory"),
        (("Fix it", "--model", "m", "--mode", "magic"), "There is no mode 'magic'"),
        (("Fix it", "--model", "m", "--gate", "lint"), "There is no gate 'lint'"),
        (("Fix it", "--model", "m", "--evidence", "'"), "No closing quotation"),
        (("Fix it", "--model", "m", "--repeatable", ""), "An empty command"),
        (("Fix it", "--model", "m", "--budget", "lots"), "US dollars (2.50) or tokens (200k)"),
        (("Fix it", "--model", "m", "--budget", "2", "--budget", "$3"), "names cost twice"),
        ((" ", "--model", "m"), "A goal has 1 to"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_recorded(bench, words, says):
    ended = bench.holdfast("agent", *words)
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert not bench.server.requests


def test_only_an_agents_task_can_be_gone_on_with(bench):
    runner = TaskRunner(bench.url)

    @runner.task
    async def other(ctx: Context) -> None:
        """Do nothing."""

    task_id = runner.submit(other).task_id
    runner.close()
    ended = bench.resume(task_id)
    assert ended.code == 2
    assert "is no agent's" in ended.err
    assert bench.resume("gone").code == 3


def test_without_the_extra_one_line_says_what_to_install(bench, monkeypatch):
    monkeypatch.setattr("holdfast.providers.find_spec", lambda _: None)
    ended = bench.holdfast("agent", "Fix it", "--model", "openai:x")
    assert ended.code == 2
    assert "pip install 'holdfast[agent]'" in ended.err
    assert ended.err.count("\n") == 1


def test_keys_are_neither_stored_nor_printed(bench, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecretkeyofthistest1")
    bench.server.script = FIX
    ended = bench.agent("Fix the bug", *RIGHT)
    assert ended.code == 0
    assert "verysecret" not in ended.out + ended.err
    for file in bench.place.glob("holdfast.db*"):
        assert b"verysecret" not in file.read_bytes()
    assert bench.server.requests[0].headers["authorization"].endswith("verysecretkeyofthistest1")


# -- approvals ------------------------------------------------------------------------------------


def test_a_plan_waits_for_approval_and_the_same_command_goes_on_with_it(bench):
    bench.server.script = FIX
    waiting = bench.agent("Fix the bug", *RIGHT, *ASSISTED)
    assert waiting.code == 6
    assert "a plan of 1 item" in waiting.err
    assert (bench.root / "calc.py").read_text() == agent_script.BUG
    (entry,) = re.findall(r"holdfast approve (\S+):", waiting.err)
    shown = bench.holdfast("approvals")
    assert '"title": "fix"' in shown.out
    assert bench.holdfast("approve", entry).code == 0
    done = bench.agent("Fix the bug", *RIGHT, *ASSISTED)
    assert (done.code, done.task_id) == (0, waiting.task_id), done.err
    assert bench.server.count == bench.server.distinct == 3


def test_a_rejected_plan_is_made_anew_knowing_why(bench):
    def script(asked: Asked):
        if "final_result" in asked.tools:
            return plan(item("fix" if "in calc.py only" in asked.prompt else "rewrite"))
        return FIX(asked)

    bench.server.script = script
    waiting = bench.agent("Fix the bug", *RIGHT, *ASSISTED)
    (entry,) = re.findall(r"holdfast approve (\S+):", waiting.err)
    assert bench.holdfast("reject", entry, "--reason", "in calc.py only").code == 0
    waiting = bench.agent("Fix the bug", *RIGHT, *ASSISTED)
    assert waiting.code == 6
    assert '"title": "fix"' in bench.holdfast("approvals").out
    assert bench.agent("Fix the bug", *RIGHT, *ASSISTED, "--yes").code == 0


def test_yes_approves_and_says_so_in_the_record(bench):
    bench.server.script = FIX
    ended = bench.agent("Fix the bug", *RIGHT, *ASSISTED, "--yes")
    assert ended.code == 0, ended.err
    (given,) = [
        each
        for each in bench.entries(ended.task_id)
        if each.kind == "approval" and each.status == "done"
    ]
    assert b"--yes" in given.outcome


def test_on_a_terminal_the_plan_is_shown_and_asked_about(bench, monkeypatch):
    bench.server.script = FIX
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    ended = bench.agent("Fix the bug", *RIGHT, *ASSISTED)
    assert ended.code == 0, ended.err
    assert "The plan:\n  1. fix: fix [implementation]\n     Do fix.\n" in ended.err
    assert "Approve? y, n, or why not" in ended.err


def test_an_approval_of_one_call_does_not_release_another(bench):
    other = Use("write_file", {"path": "other.txt", "content": "x"})
    bench.server.script = scripted(
        plan(item("fix")), {"fix": [Say(calls=(EDIT,)), Say(calls=(other,)), "Fixed."]}
    )
    asked = []
    for _ in range(3):
        waiting = bench.agent("Fix the bug", *RIGHT, "--approvals", "interactive")
        assert waiting.code == 6, waiting.err
        (entry,) = re.findall(r"holdfast approve (\S+):", waiting.err)
        asked.append(bench.holdfast("approvals").out)
        changed = (bench.root / "calc.py").read_text(), (bench.root / "other.txt").exists()
        assert changed == (FIXED if len(asked) == 3 else agent_script.BUG, False)
        assert bench.holdfast("approve", entry).code == 0
    assert bench.agent("Fix the bug", *RIGHT, "--approvals", "interactive").code == 0
    assert "edit_file" in asked[1]
    assert "other.txt" in asked[2]


def test_a_rejected_call_is_told_to_the_model(bench):
    bench.server.script = scripted(
        plan(item("fix")), {"fix": [Say(calls=(EDIT,)), "I may not edit it."]}
    )
    words = (*RIGHT, "--approvals", "interactive", "--max-rounds", "1")
    for answer in ("approve", "reject"):
        waiting = bench.agent("Fix the bug", *words)
        (entry,) = re.findall(r"holdfast approve (\S+):", waiting.err)
        assert bench.holdfast(answer, entry, "--reason", "leave it").code == 0
    assert bench.agent("Fix the bug", *words).code == 5
    assert "leave it" in bench.server.requests[-1].results[0].text


# -- budgets --------------------------------------------------------------------------------------


def test_a_budget_that_is_used_up_parks_the_task_however_often_it_is_started(bench):
    bench.server.script = FIX
    words = ("Fix the bug", *RIGHT, "--budget", "7k")
    first = bench.agent(*words)
    assert first.code == 6
    assert f"holdfast budget {first.task_id}" in first.err
    count = bench.server.count
    for _ in range(3):  # starting again resets nothing
        again = bench.agent(*words)
        assert (again.code, again.task_id) == (6, first.task_id)
    assert bench.server.count == count
    assert bench.holdfast("budget", first.task_id, "--add-tokens", "100000").code == 0
    assert bench.agent(*words).code == 0
    assert bench.server.count == bench.server.distinct == 3


def test_what_a_kill_left_open_stays_spent(bench):
    bench.server.script = lambda _: Say("too late", delay=30)
    words = ("Fix the bug", *RIGHT, "--budget", "12k")  # enough, if nothing is lost
    bench.kill_when_asked(*words)
    bench.server.script = FIX
    ended = bench.agent(*words)
    assert ended.code == 6, ended.err
    spent = json.loads(bench.holdfast("budget", ended.task_id, "--json").out)["tokens"]
    assert 6_000 < spent["spent"] < 12_000  # what was answered took less than 3,000
    assert bench.holdfast("budget", ended.task_id, "--add-tokens", "100000").code == 0
    assert bench.agent(*words).code == 0


def test_a_budget_of_money_covers_the_whole_task(bench):
    bench.server.script = FIX
    ended = bench.agent("Fix the bug", *RIGHT, "--budget", "1.50")
    assert ended.code == 0, ended.err
    spent = json.loads(bench.holdfast("budget", ended.task_id, "--json").out)["cost"]
    assert 0 < spent["spent"] < 0.1
    assert spent["reserved"] == 0


def test_a_model_of_unknown_price_is_refused_under_a_budget_of_money(bench):
    bench.server.script = FIX
    ended = bench.agent("Fix the bug", *RIGHT, "--budget", "2.50", model="openai:nobody-knows-1")
    assert ended.code == 5
    assert "UnknownPriceError" in ended.err
    assert bench.server.count == 0
    assert bench.agent("Fix the bug", *RIGHT, "--new", model="openai:nobody-knows-1").code == 0


# -- workers --------------------------------------------------------------------------------------


def test_a_worker_executes_agents_too(bench):
    bench.server.script = FIX
    waiting = bench.agent("Fix the bug", *RIGHT, *ASSISTED)
    (entry,) = re.findall(r"holdfast approve (\S+):", waiting.err)
    bench.holdfast("approve", entry)
    work_on(bench, waiting.task_id)
    assert bench.resume(waiting.task_id).code == 0
    assert (bench.root / "calc.py").read_text() == FIXED

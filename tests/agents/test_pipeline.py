"""Pipelines of modes, with a scripted provider behind real SDKs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("pydantic_ai", reason="NO PYDANTIC AI: holdfast[agent] isn't installed")

from support.model_server import Fail, Say, Use

from holdfast import Evidence, TaskRunner, errors, tool
from holdfast.agents.modes import MODES, Mode
from holdfast.agents.permissions import AllowedCommand, Permissions
from holdfast.agents.pipeline import ModePipelineRunner
from holdfast.agents.selector import ModeSelector, Rule
from holdfast.states import CheckpointType, EntryKind
from holdfast.store import verbs

MODEL = "openai:gpt-5-mini"
TESTS = [sys.executable, "-m", "unittest", "-q"]
WITH_TESTS = (AllowedCommand((sys.executable, "-m", "unittest"), frozenset({"-q"})),)

EDIT = Use("edit_file", {"path": "calc.py", "old": "a - b", "new": "a + b"})

BUG = "def add(a, b):\n    return a - b\n"
FIXED = "def add(a, b):\n    return a + b\n"
TEST = """import unittest
from calc import add

class Adds(unittest.TestCase):
    def test(self):
        self.assertEqual(add(1, 2), 3)
"""


@pytest.fixture
def work(tmp_path):
    place = tmp_path / "work"
    place.mkdir()
    (place / "calc.py").write_text(BUG)
    (place / "test_calc.py").write_text(TEST)
    return place


@pytest.fixture
def runner(tmp_path, work):
    made = TaskRunner(f"sqlite:///{tmp_path}/h.db", workspace=str(work))
    yield made
    made.close()


def with_unittest():
    """Return the mode `testing`, allowed to run the unittest of this interpreter."""
    permissions = Permissions(run_commands=True, commands=WITH_TESTS)
    return MODES["testing"].with_(permissions=permissions)


def mode_of(asked):
    """Return the mode whose instructions a request has."""
    return next(name for name, mode in MODES.items() if mode.instructions in asked.system)


def fix(asked):
    """A model that finds a bug, removes it and runs the test."""
    step = (mode_of(asked), asked.round)
    answers = {
        ("debug", 0): Say(calls=(Use("read_file", {"path": "calc.py"}),)),
        ("debug", 1): "It subtracts.",
        ("implementation", 0): Say(calls=(EDIT,)),
        ("implementation", 1): "It adds now.",
        ("testing", 0): Say(calls=(Use("run_command", {"argv": TESTS}),)),
        ("testing", 1): asked.results[0].text.splitlines()[0] if asked.results else "",
    }
    return answers[step]


def items_of(runner, result=None):
    (task,) = runner.store.read(verbs.list_tasks(None, 10))
    return runner.store.read(verbs.list_items(task.task_id))


def events_of(runner, kind):
    (task,) = runner.store.read(verbs.list_tasks(None, 10))
    events = runner.store.read(verbs.list_events(task.task_id))
    return [event for event in events if event.type == kind]


def test_a_goal_is_reached_stage_by_stage_each_told_what_came_out_before(runner, serve, work):
    server = serve(fix)
    pipelines = ModePipelineRunner(runner, model=MODEL, modes=[with_unittest()])
    result = pipelines.run_pipeline("Fix the sum", sandbox="off", repeatable=[TESTS])
    assert [(stage.mode, stage.output) for stage in result.stages] == [
        ("debug", "It subtracts."),
        ("implementation", "It adds now."),
        ("testing", "exit code 0"),
    ]
    assert result.output == "exit code 0"
    assert result.why == "the rule 'fix' matched 'Fix'"
    assert (work / "calc.py").read_text() == FIXED
    assert server.count == server.distinct == 6
    assert [item.item_id for item in items_of(runner)] == [
        "plan", "1-debug", "2-implementation", "3-testing", "main",
    ]  # fmt: skip
    prompts = {mode_of(asked): asked.prompt for asked in server.requests}
    assert prompts["debug"] == "Goal: Fix the sum"
    assert prompts["testing"] == (
        "Goal: Fix the sum\n\n"
        "The stage debug before you said:\n\nIt subtracts.\n\n"
        "The stage implementation before you said:\n\nIt adds now."
    )
    for item in items_of(runner)[1:4]:
        (checkpoint,) = runner.store.read(verbs.list_checkpoints(item.task_id, item.item_id))
        assert checkpoint.type is CheckpointType.STATE_TRANSITION


def test_what_one_answer_asks_for_is_done_one_after_the_other(runner, serve, work):
    """A test that runs longer than the edit after it takes must not see that edit."""

    def script(asked):
        if asked.round == 0:
            return Say(calls=(Use("run_command", {"argv": TESTS}), EDIT))
        return asked.results[0].text.splitlines()[0]

    serve(script)
    permissions = Permissions(change_files=True, run_commands=True, commands=WITH_TESTS)
    mode = MODES["implementation"].with_(permissions=permissions)
    pipelines = ModePipelineRunner(runner, model=MODEL)
    assert pipelines.run_pipeline("Hm", [mode], sandbox="off").output == "exit code 1"
    assert (work / "calc.py").read_text() == FIXED


def test_the_same_pipeline_again_is_the_same_task(runner, serve, work, tmp_path):
    server = serve(lambda asked: f"You said {asked.prompt}")
    pipelines = ModePipelineRunner(runner, model=MODEL)
    first = pipelines.run_pipeline("What is this?", ["chat"])
    assert pipelines.run_pipeline("What is this?", ["chat"]) == first
    assert pipelines.run_pipeline("What is that?", ["chat"]) != first
    assert server.count == 2
    for place in (work, tmp_path, tmp_path):
        pipelines.run_pipeline("What is there?", ["chat"], workspace=str(place))
    assert server.count == 4


# -- permissions ----------------------------------------------------------------------------------

ATTEMPTS = (
    Use("write_file", {"path": "f", "content": "owned"}),
    Use("edit_file", {"path": "calc.py", "old": "a", "new": "b"}),
    Use("run_command", {"argv": ["touch", "f"]}),
    Use("read_file", {"path": "../secret"}),
    Use("deploy", {"where": "production"}),
)


def test_what_a_mode_may_not_do_is_refused_although_its_model_calls_it(
    runner, serve, work, tmp_path
):
    (tmp_path / "secret").write_text("outside")
    deployed, told = [], []

    @tool
    def deploy(where: str) -> str:
        deployed.append(where)
        return "deployed"

    def script(asked):
        if asked.round == 0:
            return Say(calls=ATTEMPTS)
        told.extend(result.text for result in asked.results)
        return "Nothing can be done."

    server = serve(script)
    pipelines = ModePipelineRunner(
        runner, model=MODEL, modes=[MODES["planning"].with_(tools=(deploy,))]
    )
    result = pipelines.run_pipeline("Plan it", ["planning"], sandbox="off")
    assert result.output == "Nothing can be done."
    assert len(told) == len(ATTEMPTS)
    assert [text for text in told if not text.startswith("Refused: ")] == []
    assert "may not use deploy, whose effect is 'once'" in told[-1]
    assert deployed == []
    assert sorted(path.name for path in work.iterdir()) == ["calc.py", "test_calc.py"]
    assert {name for asked in server.requests for name in asked.tools} == {
        "read_file", "list_files", "search_files", "give_up",
    }  # fmt: skip
    refused = [json.loads(event.data) for event in events_of(runner, "tool_refused")]
    assert sorted(each["tool"] for each in refused) == sorted(use.name for use in ATTEMPTS)
    assert {each["reason"] for each in refused} == set(told)
    item = items_of(runner)[1]
    entries = runner.store.read(verbs.read_journal(item.task_id, item.item_id))
    recorded = {entry.name for entry in entries if entry.kind is EntryKind.TOOL}
    assert recorded == {use.name for use in ATTEMPTS}


def test_a_tool_that_is_not_there_and_arguments_that_do_not_fit_are_told_to_the_model(
    runner, serve
):
    def script(asked):
        if asked.round == 0:
            return Say(calls=(Use("rm", {"path": "/"}), Use("read_file", {"wrong": 1})))
        return "I see."

    serve(script)
    result = ModePipelineRunner(runner, model=MODEL).run_pipeline("Hm", ["chat"])
    assert result.output == "I see."


def test_a_tool_of_ones_own_takes_the_place_of_one_of_the_workspaces(runner, serve):
    @tool(effect="read")
    def run_command(argv: list[str]) -> str:
        """Pretend."""
        return f"pretended {argv[0]}"

    use = Use("run_command", {"argv": ["rm"]})
    serve(lambda asked: Say(calls=(use,)) if asked.round == 0 else asked.results[0].text)
    chat = MODES["chat"].with_(tools=(run_command,))
    pipelines = ModePipelineRunner(runner, model=MODEL, modes=[chat])
    assert pipelines.run_pipeline("Hm", ["chat"]).output == "pretended rm"


def test_a_tool_of_ones_own_runs_where_its_effect_is_permitted(runner, serve):
    deployed = []

    @tool
    def deploy(where: str) -> str:
        """Deploy."""
        deployed.append(where)
        return "deployed"

    serve(lambda asked: Say(calls=ATTEMPTS[-1:]) if asked.round == 0 else asked.results[0].text)
    pipelines = ModePipelineRunner(runner, model=MODEL, modes=[MODES["ops"].with_(tools=(deploy,))])
    assert pipelines.run_pipeline("Deploy", ["ops"], sandbox="off").output == "deployed"
    assert deployed == ["production"]


# -- stages that fail -----------------------------------------------------------------------------


def statuses(runner):
    return {item.item_id: item.status.value for item in items_of(runner)}


def test_a_stage_whose_model_gives_up_ends_the_pipeline_with_its_reason(runner, serve):
    server = serve(lambda _: Say(calls=(Use("give_up", {"reason": "there is no calc.rs"}),)))
    pipelines = ModePipelineRunner(runner, model=MODEL)
    with pytest.raises(errors.TaskFailedError, match=r"no calc\.rs") as failed:
        pipelines.run_pipeline("Fix calc.rs", sandbox="off")
    assert failed.value.item_id == "1-debug"
    assert failed.value.error_type == "GaveUpError"
    assert statuses(runner) == {
        "plan": "succeeded",
        "1-debug": "failed",
        "2-implementation": "skipped",
        "3-testing": "skipped",
        "main": "skipped",
    }
    assert server.count == 1


def test_a_retry_asks_the_model_that_gave_up_once_more(runner, serve):
    def script(asked):
        if asked.round == 0:
            return Say(calls=(Use("list_files"),))
        return Say(calls=(Use("give_up", {"reason": "no"}),)) if asked.nth == 0 else "Well then."

    server = serve(script)
    pipelines = ModePipelineRunner(runner, model=MODEL)
    with pytest.raises(errors.TaskFailedError) as failed:
        pipelines.run_pipeline("Hm", ["chat"])
    with pytest.raises(errors.TaskFailedError):
        pipelines.run_pipeline("Hm", ["chat"])
    assert server.count == 2
    runner.retry(failed.value.task_id)
    assert pipelines.run_pipeline("Hm", ["chat"]).output == "Well then."
    assert server.count == 3


def test_a_stage_that_does_not_prove_what_it_owes_ends_the_pipeline(runner, serve, work):
    serve(lambda _: "Written, I promise.")
    owing = MODES["implementation"].with_(evidence=[Evidence.file("report.md")])
    pipelines = ModePipelineRunner(runner, model=MODEL, modes=[owing])
    with pytest.raises(errors.TaskFailedError, match=r"report\.md") as failed:
        pipelines.run_pipeline("Write it", ["implementation", "testing"], sandbox="off")
    assert failed.value.item_id == "1-implementation"
    assert statuses(runner)["2-testing"] == "skipped"


def test_a_stage_whose_provider_refuses_ends_the_pipeline(runner, serve):
    serve(lambda _: Fail(401, "no such key"))
    pipelines = ModePipelineRunner(runner, model=MODEL)
    with pytest.raises(errors.TaskFailedError) as failed:
        pipelines.run_pipeline("Hm", ["chat"])
    assert failed.value.item_id == "1-chat"


# -- outputs, models, modes -----------------------------------------------------------------------


@dataclass
class Verdict:
    passed: bool
    failures: list[str]


def test_a_stage_with_an_output_type_hands_on_values_of_it(runner, serve):
    judge = Mode("judge", "Judge the tests.", output=Verdict)

    def script(asked):
        if "Judge" in asked.system:
            return Say(calls=(Use("final_result", {"passed": False, "failures": ["a"]}),))
        return "Heard."

    server = serve(script)
    pipelines = ModePipelineRunner(runner, model=MODEL)
    result = pipelines.run_pipeline("Hm", [judge, "chat"])
    assert result.stages[0].output == Verdict(passed=False, failures=["a"])
    assert '"failures": [\n    "a"\n  ]' in server.requests[-1].prompt


def test_a_mode_may_name_its_own_model(runner, serve):
    server = serve(lambda asked: asked.model)
    small = MODES["chat"].with_(model="openai-chat:gpt-5")
    pipelines = ModePipelineRunner(runner, model=MODEL, modes=[small])
    result = pipelines.run_pipeline("Hm", ["chat", "design"], model="openai:gpt-5-nano")
    assert [stage.output for stage in result.stages] == ["gpt-5", "gpt-5-nano"]
    assert server.count == 2


def test_rules_of_ones_own_select(runner, serve):
    serve(lambda _: "ok")
    selector = ModeSelector([Rule("mine", "^hm", ("design",))])
    pipelines = ModePipelineRunner(runner, model=MODEL, selector=selector)
    result = pipelines.run_pipeline("Hm")
    assert (result.stages[0].mode, result.why) == ("design", "the rule 'mine' matched 'Hm'")


@pytest.mark.parametrize(
    ("modes", "told"),
    [
        (["bogus"], "no mode 'bogus'"),
        (["chat"], "No model is named for chat"),
        ([], "needs a mode"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_recorded(runner, modes, told):
    with pytest.raises(errors.UsageError, match=told):
        ModePipelineRunner(runner).run_pipeline("Hm", modes)
    assert runner.store.read(verbs.list_tasks(None, 10)) == []


# -- crashes --------------------------------------------------------------------------------------


def edit(asked):
    if mode_of(asked) == "design":
        return "Good."
    if asked.round == 0:
        return Say(calls=(Use("edit_file", {"path": "f", "old": "n old", "new": " new"}),))
    return "Edited."


@pytest.mark.timeout(200)
def test_a_pipeline_that_is_killed_goes_on_where_it_was(serve, tmp_path):
    """See `pipeline_crashes.py`; the provider's own log says what was asked twice."""
    server = serve(edit)
    folder = tmp_path / "crashes"
    folder.mkdir()
    done = subprocess.run(  # noqa: S603  our own program
        [sys.executable, Path(__file__).parent / "pipeline_crashes.py"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    times = Counter(asked.digest for asked in server.requests)
    assert max(times.values()) <= 2
    goal_of = {asked.digest: asked.prompt.splitlines()[0] for asked in server.requests}
    again = Counter(goal_of[digest] for digest in times if times[digest] > 1)
    assert len(set(goal_of.values())) == 1 + 4 + 2
    assert max(again.values(), default=0) <= 1, "one request was in flight, no more"


def test_importing_holdfast_does_not_import_what_agents_need():
    code = (
        "import sys, holdfast; from holdfast import ModePipelineRunner, Mode, ModeSelector; "
        "print(*sys.modules)"
    )
    done = subprocess.run(  # noqa: S603  our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"pydantic_ai", "pydantic", "openai"} & set(done.stdout.split())

"""`agent`: a goal, planned by a model, carried out in a workspace, proven by gates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import msgspec
from click.core import ParameterSource

from holdfast import codec, errors
from holdfast.cli.agent_run import Run
from holdfast.cli.budget import parse_budget
from holdfast.cli.session import Session, command
from holdfast.models import Task
from holdfast.operations import find_task
from holdfast.runner import TaskRunner
from holdfast.states import TaskStatus
from holdfast.store import verbs

if TYPE_CHECKING:  # what an agent needs is imported when one runs
    from holdfast.agents.assignment import Assignment
    from holdfast.agents.rounds import Agent

_OVER = frozenset({TaskStatus.SUCCEEDED, TaskStatus.CANCELED})
_ITS_BUDGET = "it goes on with the budget it was given; `holdfast budget` adds to that"
_RULES = ("approvals", "sandbox")
_OF_A_START = (*_RULES, "model", "base_url", "modes", "budgets", "gates", "evidence", "repeatable",
               "max_rounds", "workspace", "new")  # fmt: skip
"""Options that a task under way doesn't take: by its goal, and by its name."""
_MOST_TASKS = 10_000
"""How often one goal can be reached anew with one database."""


class Wanted(msgspec.Struct, frozen=True):
    """What the command line asks for: the same again names the same task."""

    goal: str
    workspace: str
    model: str
    base_url: str | None
    modes: tuple[str, ...]
    gates: tuple[str, ...]
    evidence: tuple[str, ...]
    repeatable: tuple[str, ...]
    max_rounds: int

    @property
    def key(self) -> str:
        """What names its task, without the number of the run."""
        return f"agent:{codec.digest(msgspec.structs.asdict(self)).hex()[:32]}"


@command("agent")
@click.argument("goal", required=False)
@click.option("--task", "task", metavar="TASK", help="Go on with this task.")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where it works; the current directory if not given.",
)
@click.option("--model", metavar="NAME", help="Such as openai:gpt-5-mini.")
@click.option("--base-url", metavar="URL", help="A server with that provider's API.")
@click.option(
    "--mode", "modes", multiple=True, metavar="NAME", help="Modes that items may have; repeatable."
)
@click.option(
    "--approvals",
    type=click.Choice(["interactive", "assisted", "autonomous"]),
    default="assisted",
    show_default=True,
    help="What needs your approval: the plan and every once call, the plan, or nothing.",
)
@click.option("--yes", is_flag=True, help="Approve whatever needs approval.")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    metavar="AMOUNT",
    help="US dollars (2.50) or tokens (200k) that it may spend; may be given twice.",
)
@click.option(
    "--evidence",
    multiple=True,
    metavar="COMMAND",
    help="A command that must pass at the end, such as 'pytest -q'; repeatable.",
)
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="NAME",
    help="doctor, smoke, tests, or name=command; those that find something to run if not given.",
)
@click.option(
    "--repeatable",
    multiple=True,
    metavar="COMMAND",
    help="How commands begin that may run again after a crash.",
)
@click.option(
    "--max-rounds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    metavar="N",
    help="How often a plan is made.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "required", "off"]),
    default="auto",
    show_default=True,
    help="Whether commands run in bubblewrap.",
)
@click.option("--new", is_flag=True, help="A new task, even if the same goal is under way.")
def agent_command(
    session: Session,
    goal: str | None,
    task: str | None,
    *,
    yes: bool,
    new: bool,
    **options: Any,
) -> int:
    """Reach a goal in a workspace with a model: plan, carry out, prove.

    The task's id is printed first. The goal and the options that say how it is to be reached name
    the task: the same command goes on after a crash, and is a new task once the last one succeeded.
    A task under way keeps the approvals and the sandbox that it was started with.
    What needs your approval is asked for on a terminal; elsewhere this exits with 6 and says how to
    approve. API keys are read from the environment, such as OPENAI_API_KEY, and never stored.
    """
    if (goal is None) == (task is None):
        message = "Give a goal, or --task with a task to go on with. Nothing was started."
        raise errors.UsageError(message)
    _require_models()
    with closing(TaskRunner(session.url)) as runner:
        agent = _agent(runner)
        if task is not None:
            found = _resumed(runner, agent, task)
            _refuse_changes(runner, found, _OF_A_START)
            task_id, told = found.task_id, list[str]()
        else:
            wanted = _wanted(cast("str", goal), options)
            task_id, told = _submit(runner, agent, wanted, options, new=new)
        return Run(session, runner, task_id, yes=yes).to_the_end(told)


def _require_models() -> None:
    from holdfast import providers

    providers.require()


def _agent(runner: TaskRunner) -> Agent:
    from holdfast.agents.rounds import Agent

    return Agent(runner)


def _wanted(goal: str, options: Mapping[str, Any]) -> Wanted:
    if not options["model"]:
        message = "Name a model: --model openai:gpt-5-mini. Nothing was started."
        raise errors.UsageError(message)
    names = ("model", "base_url", "modes", "gates", "evidence", "repeatable", "max_rounds")
    return Wanted(
        goal, str(options["workspace"].absolute()), **{name: options[name] for name in names}
    )


def _assignment(wanted: Wanted, modes: Sequence[str], sandbox: str) -> Assignment:
    from holdfast.agents.assignment import Assignment
    from holdfast.agents.gates import command_gate, find_gates, split_command
    from holdfast.agents.modes import modes_named
    from holdfast.agents.sandbox import Sandbox, is_used

    is_used(Sandbox(sandbox))  # refuses where one is required and there is none
    root = Path(wanted.workspace)
    if not root.is_dir():
        raise errors.UsageError(f"There is no directory {root}. Nothing was started.")
    gates = {gate.argv: gate for gate in find_gates(root, wanted.gates)}
    for gate in map(command_gate, wanted.evidence):
        gates.setdefault(gate.argv, gate)
    return Assignment(
        wanted.goal,
        wanted.model,
        tuple(mode.name for mode in modes_named(modes)),
        base_url=wanted.base_url,
        gates=tuple(gates.values()),
        repeatable=tuple(map(split_command, wanted.repeatable)),
        max_rounds=wanted.max_rounds,
        sandbox=sandbox,
    )


def _refuse_changes(runner: TaskRunner, task: Task, names: Collection[str]) -> None:
    """Refuse options that a task under way doesn't have: it goes on as it was started.

    Whoever asks for more approvals, or for a sandbox, must not believe that they have it.
    """
    assignment: Assignment = runner.arguments(task)["assignment"]
    has = {"approvals": task.approvals.value, "sandbox": assignment.sandbox}
    context = click.get_current_context()
    ignored = [
        each.opts[0]
        for each in context.command.params
        if each.name in names
        and context.get_parameter_source(each.name) is ParameterSource.COMMANDLINE
        and context.params[each.name] != has.get(each.name)
    ]
    if ignored:
        its = ", ".join(f"{name} {value}" for name, value in has.items())
        message = (
            f"Task {task.task_id} goes on as it was started ({its}), and would ignore "
            f"{', '.join(ignored)}. Nothing was done. Leave that out, or start anew with --new."
        )
        raise errors.UsageError(message)


def _submit(
    runner: TaskRunner, agent: Agent, wanted: Wanted, options: Mapping[str, Any], *, new: bool
) -> tuple[str, list[str]]:
    """Return the task of this command that isn't over yet, or else a new one; and what to tell."""
    for number in range(_MOST_TASKS):
        key = f"{wanted.key}:{number}"
        found = runner.store.read(verbs.task_of_key(agent.task.name, key))
        if found is not None and not new and found.status not in _OVER:
            _refuse_changes(runner, found, _RULES)
            return found.task_id, [_ITS_BUDGET] if options["budgets"] else []
        if found is None:
            modes, told = _modes(wanted)
            assignment = _assignment(wanted, modes, options["sandbox"])
            submitter = runner.options(
                key=key,
                workspace=wanted.workspace,
                approvals=options["approvals"],
                budget=parse_budget("--budget", options["budgets"]),
            )
            told += [f"gate {gate.name}: {gate.rule}" for gate in assignment.gates]
            return submitter.submit(agent.task, assignment).task_id, told
    message = f"This goal was reached {_MOST_TASKS} times with this database. Use another one."
    raise errors.UsageError(message)


def _resumed(runner: TaskRunner, agent: Agent, named: str) -> Task:
    """Return the agent's task of that name; one below it stands for it, too."""
    root = runner.store.read(verbs.get_task(find_task(runner.store, named).root_id))
    if root.name != agent.task.name:
        message = f"Task {root.task_id} ({root.name}) is no agent's. `holdfast resume` goes on."
        raise errors.UsageError(message)
    return root


def _modes(wanted: Wanted) -> tuple[Sequence[str], list[str]]:
    """Return the modes that items may have: those that were named, or by the selector's rules."""
    from holdfast.agents.selector import ModeSelector

    if wanted.modes:
        return wanted.modes, []
    selected = ModeSelector().select(wanted.goal)
    names = tuple(name for name in selected.modes if name != "planning") or ("design",)
    return names, [f"modes {', '.join(names)}: {selected.why}; --mode names others"]

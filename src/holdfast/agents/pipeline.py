"""ModePipelineRunner: modes in their order, each a work item that builds on those before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec

from holdfast import codec, errors
from holdfast.agents.conversation import Setting, converse
from holdfast.agents.modes import MODES, Mode, modes_named
from holdfast.agents.sandbox import Sandbox
from holdfast.agents.selector import ModeSelector
from holdfast.context import Context
from holdfast.evidence import EvidencePack
from holdfast.handlers import Handler
from holdfast.models import Task, WorkItem
from holdfast.registry import register_type
from holdfast.runner import TaskRunner
from holdfast.states import CheckpointType

SAID = 32_000
"""Characters of an earlier stage's output that a later one is told."""


class Pipeline(msgspec.Struct, frozen=True):
    """What a pipeline is to reach, and how; pinned to its task.

    Args:
        goal: in a person's words.
        modes: the stages, by the names of their modes.
        why: how the modes were chosen.
        model: the model of stages whose mode names none; the runner's own when None.
        repeatable: how commands begin that may run again after a crash.
        sandbox: `auto`, `required` or `off`.
    """

    goal: str
    modes: tuple[str, ...]
    why: str
    model: str | None = None
    repeatable: tuple[tuple[str, ...], ...] = ()
    sandbox: str = "auto"


class StageOutput(msgspec.Struct, frozen=True):
    """What one stage came to: the name of its mode, and its output, of the mode's type."""

    mode: str
    output: Any


class PipelineResult(msgspec.Struct, frozen=True):
    """What a pipeline came to.

    Args:
        stages: the output of each stage, in order.
        why: how the modes were chosen.
    """

    stages: tuple[StageOutput, ...]
    why: str

    @property
    def output(self) -> Any:  # noqa: ANN401  the last mode's type
        """The output of the last stage."""
        return self.stages[-1].output


for _kind in (Pipeline, StageOutput, PipelineResult):
    register_type(_kind, name=f"holdfast:{_kind.__name__}")


class ModePipelineRunner:
    """Runs pipelines of modes on a runner.

    A pipeline is a task, and each stage a work item that comes after the one before it. A crash
    resumes in the stage where it was: what the model said and what its tools did is replayed, and a
    stage that has ended is not touched again. A stage that fails ends the task: those after it
    are skipped, and the error names it.

    Args:
        runner: its handlers `pipeline` and `pipeline-stage` are registered with it.
        model: what stages use whose mode and pipeline name none.
        base_url: where named models are, if they aren't at their providers.
        modes: modes of your own; one replaces the built-in one of its name.
        selector: chooses modes where none are given.

    Raises:
        UsageError: the runner has other handlers of those names.
    """

    def __init__(
        self,
        runner: TaskRunner,
        *,
        model: Any = None,  # noqa: ANN401  a name, or a model of Pydantic AI's
        base_url: str | None = None,
        modes: Iterable[Mode] = (),
        selector: ModeSelector | None = None,
    ) -> None:
        self._runner = runner
        self._model = model
        self._base_url = base_url
        self._selector = selector or ModeSelector()
        self._modes: dict[str, Mode] = dict(MODES)
        for mode in modes:
            self._know(mode)
        self._stage = runner.task(name="pipeline-stage")(self._run_stage)
        self.task: Handler[[Pipeline], PipelineResult] = runner.task(name="pipeline")(self._collect)
        """The task of a pipeline, to be run with options of your own: see `prepare`."""
        runner.planner(self.task)(self._plan)

    @property
    def modes(self) -> Mapping[str, Mode]:
        """The modes known here, by name."""
        return self._modes

    # -- running ---------------------------------------------------------------------------------

    def run_pipeline(
        self,
        goal: str,
        modes: Sequence[str | Mode] | None = None,
        *,
        workspace: str | None = None,
        model: str | None = None,
        repeatable: Iterable[Sequence[str]] = (),
        sandbox: Sandbox | str = Sandbox.AUTO,
        key: str | None = None,
    ) -> PipelineResult:
        """Run a pipeline to its end in this process, and return what its stages came to.

        The arguments, or the key, name the task: a program that was killed is simply started again.

        Args:
            goal: in a person's words.
            modes: the stages, as names or modes; chosen by the selector when None. A mode is known
                by its name from then on.
            workspace: the directory it works in; the runner's when None.
            model: the model of stages whose mode names none.
            repeatable: how commands begin that may run again after a crash, such as `["pytest"]`.
            sandbox: `auto`, `required` or `off`; see `Sandbox`.
            key: names the task, instead of the arguments.

        Raises:
            UsageError: no such mode, or no model.
            TaskFailedError: a stage failed; `item_id` names it.
            TaskBlockedError: nothing can run until a person acts; `needs` says what.
            TaskCanceledError: it was canceled.
        """
        pipeline = self.prepare(goal, modes, model=model, repeatable=repeatable, sandbox=sandbox)
        if workspace is not None and key is None:  # the same goal elsewhere is another task
            key = f"pipeline:{codec.digest([pipeline, str(Path(workspace).absolute())]).hex()}"
        return self._runner.options(key=key, workspace=workspace).run(self.task, pipeline)

    def prepare(
        self,
        goal: str,
        modes: Sequence[str | Mode] | None = None,
        *,
        model: str | None = None,
        repeatable: Iterable[Sequence[str]] = (),
        sandbox: Sandbox | str = Sandbox.AUTO,
    ) -> Pipeline:
        """Return the input of `task`, checked; the arguments are those of `run_pipeline`.

        `await runner.arun(pipelines.task, pipelines.prepare(goal))` runs a pipeline inside an event
        loop, `runner.submit(…)` leaves it to workers, `runner.options(budget=…)` limits it.

        Raises:
            UsageError: no such mode, or no model.
        """
        if modes is None:
            selected = self._selector.select(goal)
            modes, why = selected.modes, selected.why
        else:
            why = "they were given"
        for mode in modes:
            if isinstance(mode, Mode):
                self._know(mode)
        stages = modes_named(modes, self._modes)
        without = [mode.name for mode in stages if (mode.model or model or self._model) is None]
        if without or not stages:
            names = ", ".join(dict.fromkeys(without))
            message = f"No model is named for {names}." if names else "A pipeline needs a mode."
            raise errors.UsageError(f"{message} Nothing was started.")
        return Pipeline(
            goal,
            tuple(mode.name for mode in stages),
            why,
            model,
            tuple(tuple(words) for words in repeatable),
            Sandbox(sandbox).value,
        )

    def _know(self, mode: Mode) -> None:
        self._modes[mode.name] = mode
        if isinstance(mode.output, type):
            with suppress(errors.UsageError):  # a built-in type
                register_type(cast("type[Any]", mode.output))

    # -- the task --------------------------------------------------------------------------------

    def _plan(self, task: Task) -> list[WorkItem]:
        """Make one item for each mode, after the one before it."""
        pipeline: Pipeline = self._runner.arguments(task)["pipeline"]
        items: list[WorkItem] = []
        for number, mode in enumerate(modes_named(pipeline.modes, self._modes), 1):
            items.append(
                WorkItem(
                    f"{number}-{mode.name}",
                    self._stage,
                    {"pipeline": pipeline, "number": number},
                    after=[items[-1].item_id] if items else (),
                    evidence=mode.evidence,
                )
            )
        return items

    async def _run_stage(self, ctx: Context, pipeline: Pipeline, number: int) -> list[StageOutput]:
        """Carry out one stage; returns its output behind those of the stages before it."""
        if not ctx.workspace.is_dir():
            message = f"There is no directory {str(ctx.workspace)!r} on this machine."
            raise errors.EvidenceUnavailableError(message, workspace=str(ctx.workspace))
        stages = modes_named(pipeline.modes, self._modes)
        mode = stages[number - 1]
        (before,) = cast("list[list[StageOutput]]", [*ctx.results.values()]) or [[]]
        setting = Setting(
            mode.model or pipeline.model or self._model,
            self._runner.store,
            base_url=self._base_url,
            repeatable=pipeline.repeatable,
            evidence=[each for stage in stages for each in EvidencePack.of(stage.evidence).items],
            sandbox=pipeline.sandbox,
        )
        output = await converse(ctx, mode, stage_prompt(pipeline.goal, before), setting)
        done = [*before, StageOutput(mode.name, output)]
        await ctx.checkpoint(done, type=CheckpointType.STATE_TRANSITION)
        return done

    async def _collect(self, ctx: Context, pipeline: Pipeline) -> PipelineResult:
        (stages,) = ctx.results.values()
        return PipelineResult(tuple(stages), pipeline.why)


def stage_prompt(goal: str, before: Sequence[StageOutput]) -> str:
    """Return what a stage is asked: the goal, and what the stages before it said.

    Args:
        goal: of the pipeline.
        before: the outputs so far, in order.
    """
    parts = [f"Goal: {goal}"]
    parts += [f"The stage {each.mode} before you said:\n\n{_as_text(each)}" for each in before]
    return "\n\n".join(parts)


def _as_text(said: StageOutput) -> str:
    if isinstance(said.output, str):
        text = said.output
    else:
        from pydantic_core import to_json

        text = to_json(said.output, indent=2, fallback=str).decode()
    return text if len(text) <= SAID else f"{text[:SAID]}\n[cut after {SAID} characters]"

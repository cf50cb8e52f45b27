"""How an agent reaches a goal: rounds of plan, items and gates.

A round is a child task: its planner asks a model for a plan, its items are carried out one by one.
Then the gates are run. Where one fails, or the round itself, the next round's plan is made knowing
why. Rounds are bounded, and the same failure three times in a row ends the task.
"""

from __future__ import annotations

import functools
from typing import cast

from holdfast import codec, errors
from holdfast.agents.assignment import Assignment, is_stuck
from holdfast.agents.conversation import Setting, converse
from holdfast.agents.fingerprint import fingerprint
from holdfast.agents.gates import GateResult, explain_failures, run_gates
from holdfast.agents.modes import MODES, modes_named
from holdfast.agents.plan import (
    Permitted,
    Plan,
    PlannedItem,
    evidence_of,
    work_items,
)
from holdfast.agents.prompts import item_prompt, planning_prompt
from holdfast.agents.results import AgentResult, ItemResult
from holdfast.context import Context
from holdfast.evidence import Evidence
from holdfast.handlers import Handler
from holdfast.llm_cache import Reuse
from holdfast.models import RetryPolicy, Task, WorkItem
from holdfast.rechecks import workspace_of
from holdfast.runner import TaskRunner
from holdfast.states import Effect
from holdfast.store import verbs
from holdfast.store.payload import decode_payload
from holdfast.threads import start_thread

PLANS_KEPT = 30 * 86_400.0
"""Seconds for which a plan answers for the same goal in a workspace of the same contents."""

_ONCE = RetryPolicy(max_attempts=1)

_CRASHES = 10
"""Crashes without progress before a person is asked. A model may think for minutes, in which
nothing is recorded; an item that is interrupted then needn't be to blame."""

_NO_PLAN_HELPS = frozenset(
    {"RequestRejectedError", "ProviderUnavailableError", "UnknownPriceError", "UsageError"}
)
"""Names of errors that another plan would only run into again."""


class Agent:
    """The handlers of agents on one runner.

    Args:
        runner: they are registered with it.
    """

    def __init__(self, runner: TaskRunner) -> None:
        self._runner = runner
        self._item = runner.task(name="agent-item", max_crashes=_CRASHES)(self._carry_out)
        self._round = runner.task(name="agent-round", max_crashes=_CRASHES)(self._collect)
        runner.planner(self._round)(self._plan)
        self.task: Handler[[Assignment], AgentResult] = runner.task(name="agent", retry=_ONCE)(
            self._reach
        )
        """The task to run or submit."""

    # -- the task --------------------------------------------------------------------------------

    async def _reach(self, ctx: Context, assignment: Assignment) -> AgentResult:
        """Reach a goal, round by round."""
        failures = list[str]()
        while len(failures) < assignment.max_rounds and not is_stuck(failures):
            number = len(failures) + 1
            failed = failures[-1] if failures else None
            try:
                items = await ctx.child(self._round, assignment, number, failed)
            except errors.TaskFailedError as error:
                if error.error_type in _NO_PLAN_HELPS:
                    raise
                failures.append(str(error).partition(" failed: ")[2])
                continue
            claims = _claims(assignment, items)
            await _require_workspace(ctx)
            results = await ctx.options(name="gates").step(
                self._run_gates, claims, ctx.task.workspace, number
            )
            failure = explain_failures(results)
            if not failure:
                # Claimed as it is now: whatever the items proved may have been edited since.
                await ctx.checkpoint({"round": number}, evidence=claims.values())
                return AgentResult(number, items, results)
            failures.append(failure)
        raise _not_reached(ctx.task, failures)

    async def _run_gates(
        self, claims: dict[str, Evidence], root: str | None, number: int
    ) -> list[GateResult]:
        del number  # tells the rounds apart
        workspace = await start_thread(functools.partial(workspace_of, root))
        return await run_gates(self._runner.verifier, claims, workspace)

    # -- a round ---------------------------------------------------------------------------------

    async def _plan(self, ctx: Context, task: Task) -> list[WorkItem]:
        """Ask a model for a plan.

        Every request is shared under the goal and the contents of the workspace: a crash pays for
        none twice, and neither does another task for the same goal on the same contents.
        """
        given = self._runner.arguments(task)
        assignment: Assignment = given["assignment"]
        failed: str | None = given["failed"]
        await _require_workspace(ctx)
        contents = await ctx.options(name="fingerprint", effect=Effect.READ).step(
            _contents, task.workspace
        )
        permitted = permitted_by(assignment)
        modes = modes_named(assignment.modes)

        def items(plan: Plan) -> list[WorkItem]:
            return work_items(plan, permitted, self._runner.handlers, self._item, task)

        prompt = planning_prompt(assignment, modes, failed)
        # The prompt is part of each request anyway: the namespace is this conversation's own.
        namespace = f"plan:{contents}:{codec.digest(prompt).hex()}"
        shared = ctx.options(reuse=Reuse(PLANS_KEPT, namespace=namespace))
        try:
            plan: Plan = await converse(
                shared, MODES["planning"], prompt, self._setting(assignment),
                output=Plan, check=items,
            )  # fmt: skip
        except (errors.GaveUpError, errors.OutputRejectedError) as error:
            # No plan came of it: whoever wants one next asks for another.
            await self._runner.store.commit(verbs.invalidate(namespace, None, None))
            if isinstance(error, errors.GaveUpError):
                raise
            raise errors.PlanError(str(error)) from error  # recorded: the same however often
        await ctx.progress(plan.summary)
        return items(plan)

    async def _carry_out(self, ctx: Context, item: PlannedItem) -> str:
        """Carry out one item of a plan, in its mode."""
        assignment: Assignment = self._runner.arguments(ctx.task)["assignment"]
        await _require_workspace(ctx)
        prompt = item_prompt(assignment.goal, item, ctx.results)
        return await converse(ctx, MODES[item.mode], prompt, self._setting(assignment))

    def _setting(self, assignment: Assignment) -> Setting:
        return Setting(
            assignment.model,
            self._runner.store,
            base_url=assignment.base_url,
            repeatable=assignment.repeatable,
            evidence=[gate.evidence for gate in assignment.gates],
            sandbox=assignment.sandbox,
        )

    async def _collect(
        self, ctx: Context, assignment: Assignment, number: int, failed: str | None
    ) -> list[ItemResult]:
        """Return what the items of a round came to."""
        del assignment, number, failed  # the plan was made from them
        store, task_id = self._runner.store, ctx.task.task_id
        found = list[ItemResult]()
        for item in store.read(verbs.list_items(task_id)):
            if item.handler == self._item.name and item.result is not None:
                given = cast("dict[str, PlannedItem]", decode_payload(store, task_id, item.input))
                planned = given["item"]
                said = cast("str", decode_payload(store, task_id, item.result))
                found.append(ItemResult(planned.id, planned.title, said, planned.evidence))
        return found


async def _require_workspace(ctx: Context) -> None:
    """Leave the item to a worker that has its workspace, before anything is recorded about it.

    Raises:
        EvidenceUnavailableError: this machine doesn't have it.
    """
    if not await start_thread(ctx.workspace.is_dir):
        message = f"There is no directory {ctx.workspace} on this machine."
        raise errors.EvidenceUnavailableError(message, workspace=str(ctx.workspace))


def permitted_by(assignment: Assignment) -> Permitted:
    """Return what the items of an assignment's plans may do."""
    modes = modes_named(assignment.modes)
    # A command can change files, too, whatever else the mode may do.
    changing = [
        mode.name
        for mode in modes
        if mode.permissions.change_files or mode.permissions.run_commands
    ]
    return Permitted(assignment.modes, changing, assignment.claimable)


def _contents(root: str | None) -> str:
    return fingerprint(root or ".").sha256


def _claims(assignment: Assignment, items: list[ItemResult]) -> dict[str, Evidence]:
    """Return what must hold at the end, by name: the gates, and what the last plan owed."""
    claims = {gate.name: gate.evidence for gate in assignment.gates}
    subjects = {claim.subject for claim in claims.values()}
    permitted = permitted_by(assignment)
    for owed in (owed for item in items for owed in item.evidence):
        claim = evidence_of(owed, permitted)
        if claim.subject not in subjects:
            claims[claim.subject] = claim
    return claims


def _not_reached(task: Task, failures: list[str]) -> errors.GoalNotReachedError:
    stuck = " The last failures were one and the same." if is_stuck(failures) else ""
    message = (
        f"The goal wasn't reached in {len(failures)} rounds.{stuck} What it did is in the "
        f"workspace; `holdfast show {task.task_id}` says more. The last round failed so: "
        f"{failures[-1]}"
    )
    return errors.GoalNotReachedError(message, task_id=task.task_id, rounds=len(failures))

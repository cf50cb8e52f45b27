"""One run of `holdfast agent`: from the task's id to the summary."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from holdfast import errors
from holdfast.cli.agent_view import AgentView, Tally, watched
from holdfast.cli.plain import clean
from holdfast.cli.session import Session
from holdfast.cli.waiting import Stopped, run_until_signal
from holdfast.models import ApprovalRecord
from holdfast.operations import approvals_of, approve, reject
from holdfast.runner import TaskRunner
from holdfast.store import verbs

if TYPE_CHECKING:
    from holdfast.agents.results import AgentResult

_REPLAY = "llm_replay."


class Run:
    """Brings an agent's task to its end, shows what happens, and asks for approval.

    Args:
        session: where output goes.
        runner: executes it.
        task_id: the task.
        yes: approve whatever needs approval.
    """

    def __init__(self, session: Session, runner: TaskRunner, task_id: str, *, yes: bool) -> None:
        self._output = session.output
        self._runner = runner
        self._store = runner.store
        self._task_id = task_id
        self._yes = yes
        self._view = AgentView(self._store, task_id)
        self._before = self._store.read(verbs.read_counters())

    def to_the_end(self, told: Sequence[str]) -> int:
        """Run the task until it ends or needs somebody; returns the exit code.

        Args:
            told: what else is said after its id.

        Raises:
            TaskFailedError, TaskBlockedError, TaskCanceledError: how it ended.
        """
        self._begin(told)
        try:
            result = self._until_it_ends()
        except Stopped as stopped:
            self._output.note("Stopped; what ran was handed back. The same command goes on.")
            return stopped.code
        except errors.TaskError:
            for line in self._costs():
                self._output.note(line)
            raise
        self._output.answer(self._document(result), map(clean, self._lines(result)))
        return 0

    def _begin(self, told: Sequence[str]) -> None:
        self._view.news()  # what was recorded before is no news
        if self._output.json:
            self._output.document({"event": "task", "task_id": self._task_id})
            return
        for line in (f"task {self._task_id}", *told):
            self._output.note(line)
        if self._view.paid.requests:
            self._output.note(f"goes on; recorded and not paid again: {self._view.paid.text}")

    def _until_it_ends(self) -> AgentResult:
        async def drive() -> AgentResult:
            call = functools.partial(self._runner.aresume, self._task_id)
            return await watched(self._output, self._view, call)

        while True:
            try:
                return run_until_signal(drive)
            except errors.TaskBlockedError:
                if not self._approve():
                    raise

    # -- approvals -------------------------------------------------------------------------------

    def _approve(self) -> bool:
        """Ask about what waits for an approval; returns whether anything was answered."""
        asks = sys.stdin.isatty() and not self._output.json
        waiting = approvals_of(self._store, self._task_id)
        for wanted in waiting:
            if not self._yes:
                for line in self._view.wanted(wanted):
                    self._output.note(line)
            if self._yes or asks:
                self._decide(wanted, None if self._yes else self._ask())
        return bool(waiting) and (self._yes or asks)

    def _ask(self) -> str | None:
        """Return why not, or None for yes."""
        question = "Approve? y, n, or why not"
        while not (said := str(click.prompt(question, err=True)).strip()):
            continue
        if said.lower() in {"y", "yes"}:
            return None
        return "no" if said.lower() in {"n", "no"} else said

    def _decide(self, wanted: ApprovalRecord, why_not: str | None) -> None:
        if why_not is None:
            reason = "--yes" if self._yes else None
            asyncio.run(approve(self._store, wanted.entry, reason=reason))
        else:
            asyncio.run(reject(self._store, wanted.entry, reason=why_not))

    # -- what came of it -------------------------------------------------------------------------

    def _replayed(self) -> Tally:
        """Return what recorded outputs of this task saved in this run."""
        now = self._store.read(verbs.read_counters())

        def gained(name: str) -> float:
            return now.get(_REPLAY + name, 0) - self._before.get(_REPLAY + name, 0)

        return Tally(
            int(gained("hits")),
            int(gained("input_tokens_saved")),
            int(gained("output_tokens_saved")),
            gained("cost_saved"),
        )

    def _costs(self) -> Iterator[str]:
        yield f"paid            {self._view.paid.text}"
        if self._view.shared.requests:
            yield f"from the cache  {self._view.shared.text} saved"
        replayed = self._replayed()
        if replayed.requests:
            yield f"replayed        {replayed.text} not paid again in this run"

    def _lines(self, result: AgentResult) -> Iterator[str]:
        proof = f"proven by {_number(len(result.gates), 'check')}"
        if not result.gates:
            proof = "recorded, not proven: no gate found anything to run"
        yield f"The goal is reached in {_number(result.rounds, 'round')}, {proof}."
        yield f"files changed   {', '.join(self._view.changed) or 'none'}"
        for gate in result.gates:
            yield f"passed          {gate.name}: {gate.detail}"
        yield from self._costs()

    def _document(self, result: AgentResult) -> dict[str, Any]:
        return {
            "event": "ended",
            "task_id": self._task_id,
            "status": "succeeded",
            "rounds": result.rounds,
            "items": result.items,
            "gates": result.gates,
            "files_changed": list(self._view.changed),
            "paid": msgspec.structs.asdict(self._view.paid),
            "from_cache": msgspec.structs.asdict(self._view.shared),
            "replayed": msgspec.structs.asdict(self._replayed()),
        }


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"

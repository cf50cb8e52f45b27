"""Rounds: the steps of many verbs in one transaction, with as few journeys as that takes.

Where every statement is a journey, a hundred finished items would wait for hundreds of answers
one after another. Verbs that keep to a task of their own are run side by side instead: in each
round every one of them sends its next statement, and one journey brings all the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from holdfast.store.engine import Engine, RemoteEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.store.ticket import Ticket
    from holdfast.store.verb import Rows, Statement, Steps

T = TypeVar("T")


class Rounds:
    """Runs operations inside the transaction of an engine.

    What comes out is the same as if each were run after the other. Two that are about the same task
    are; and one that turns to another task, such as its parent, goes no further until those beside
    it are through.

    Args:
        engine: whose transaction it is.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._remote = engine if isinstance(engine, RemoteEngine) else None
        self.culprit: Ticket[Any] | None = None
        """Whose operation it is that fails, when `run` raises."""

    def run(self, tickets: Sequence[Ticket[Any]]) -> None:
        """Run operations to their end and keep their results."""
        beside: dict[str, Ticket[Any]] = {}
        for ticket in tickets:
            ticket.error = None
            task_id = ticket.verb.keeps_to if self._remote is not None else None
            if task_id is None or task_id in beside:
                self._run_beside(beside)
                beside = {}
            if task_id is None:
                self.culprit = ticket
                ticket.result = drive(ticket.verb.start(), self._engine.execute)
            else:
                beside[task_id] = ticket
        self._run_beside(beside)
        self.culprit = None

    def _run_beside(self, tickets: dict[str, Ticket[Any]]) -> None:
        """Run operations side by side, each of which keeps to the task it stands under."""
        remote, turned = self._remote, list[tuple[_Run, "Statement"]]()
        runs = [_Run(task_id, ticket, ticket.verb.start()) for task_id, ticket in tickets.items()]
        answers: list[Rows | None] = [None] * len(runs)
        while runs and remote is not None:
            asking: list[_Run] = []
            statements: list[Statement] = []
            for each, rows in zip(runs, answers, strict=True):
                statement = self._advance(each, rows)
                if statement is None:
                    continue
                if statement.params.get("task_id") == each.task_id:
                    asking.append(each)
                    statements.append(statement)
                else:
                    turned.append((each, statement))
            if asking:
                self.culprit = asking[0].ticket
                answers = [*remote.execute_all(statements)]
            runs = asking
        for each, first in turned:
            statement: Statement | None = first
            while statement is not None:
                self.culprit = each.ticket
                statement = self._advance(each, self._engine.execute(statement))

    def _advance(self, run: _Run, rows: Rows | None) -> Statement | None:
        """Give an operation the rows it asked for; return what it asks next, None at its end."""
        self.culprit = run.ticket
        try:
            return run.steps.send(rows)  # type: ignore[arg-type]
        except StopIteration as end:
            run.ticket.result = end.value
            return None


class _Run(NamedTuple):
    """An operation under way, and the task it keeps to."""

    task_id: str
    ticket: Ticket[Any]
    steps: Steps[Any]


def drive(steps: Steps[T], execute: Callable[[Statement], Rows]) -> T:
    """Run a verb's steps to their end and return its result."""
    try:
        statement = next(steps)
        while True:
            statement = steps.send(execute(statement))
    except StopIteration as stop:
        return stop.value

"""`budget`: what a task may spend, and has spent."""

from __future__ import annotations

import click

from holdfast import operations
from holdfast.cli.output import table
from holdfast.cli.report import Document
from holdfast.cli.session import Session, command
from holdfast.models import NANOS, BudgetRecord
from holdfast.operations import find_task


@command("budget")
@click.argument("task", metavar="TASK")
@click.option("--add-tokens", type=int, default=0, metavar="N", help="Let it use N tokens more.")
@click.option(
    "--add-cost", type=float, default=0.0, metavar="USD", help="Let it spend USD dollars more."
)
def budget_command(session: Session, task: str, add_tokens: int, add_cost: float) -> None:
    """Show what a task may spend and has spent, or let it spend more.

    A budget belongs to a root task and everything below it. What is reserved for calls under way,
    or for calls whose outcome a crash has lost, is part of what is spent. What waits for the budget
    goes on when there is enough.
    """
    with session.store() as store:
        task_id = find_task(store, task).task_id
        if add_tokens or add_cost:
            added = operations.add_to_budget(store, task_id, tokens=add_tokens, cost=add_cost)
            found = session.run(added)
        else:
            found = operations.budget_of(store, task_id)
    session.output.answer(_document(found), _lines(found))


def _document(found: BudgetRecord) -> Document:
    return {
        "task_id": found.task_id,
        "tokens": {
            "limit": found.token_limit,
            "spent": found.tokens,
            "reserved": found.reserved_tokens,
        },
        "cost": {
            "limit": None if found.nano_limit is None else found.nano_limit / NANOS,
            "spent": found.nanos / NANOS,
            "reserved": found.reserved_nanos / NANOS,
        },
    }


def _lines(found: BudgetRecord) -> list[str]:
    limit = "none" if found.token_limit is None else f"{found.token_limit:,}"
    cost_limit = "none" if found.nano_limit is None else f"${found.nano_limit / NANOS:,.2f}"
    rows = [
        ("tokens", limit, f"{found.tokens:,}", f"{found.reserved_tokens:,}"),
        ("US dollars", cost_limit, _dollars(found.nanos), _dollars(found.reserved_nanos)),
    ]
    return [
        f"budget of task {found.task_id}",
        *table(("", "limit", "spent", "of it reserved"), rows),
    ]


def _dollars(nanos: int) -> str:
    return f"${nanos / NANOS:,.4f}"

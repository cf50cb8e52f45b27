"""`budget`: what a task may spend, and has spent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from holdfast import errors, operations
from holdfast.cli.output import table
from holdfast.cli.report import Document
from holdfast.cli.session import Session, command
from holdfast.models import NANOS, Budget, BudgetRecord
from holdfast.operations import find_task

_AMOUNT = re.compile(r"\$?(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[km])?")
_UNITS = {"k": 1_000, "m": 1_000_000}


@command("budget")
@click.argument("task", metavar="TASK")
@click.option(
    "--add",
    "amounts",
    multiple=True,
    metavar="AMOUNT",
    help="US dollars (2.50) or tokens (200k) more; may be given twice.",
)
@click.option("--add-tokens", type=int, default=0, metavar="N", help="Let it use N tokens more.")
@click.option(
    "--add-cost", type=float, default=0.0, metavar="USD", help="Let it spend USD dollars more."
)
def budget_command(
    session: Session, task: str, amounts: tuple[str, ...], add_tokens: int, add_cost: float
) -> None:
    """Show what a task may spend and has spent, or let it spend more.

    A budget belongs to a root task and everything below it. What is reserved for calls under way,
    or for calls whose outcome a crash has lost, is part of what is spent. What waits for the budget
    goes on when there is enough.
    """
    more = parse_budget("--add", amounts)
    if more is not None:
        add_tokens, add_cost = add_tokens + (more.tokens or 0), add_cost + (more.cost or 0.0)
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


def parse_budget(option: str, amounts: Sequence[str]) -> Budget | None:
    """Return what an option says: `2.50` or `$2.50` are US dollars, `200k` or `1.5M` tokens.

    Raises:
        UsageError: an amount is neither, or one kind is limited twice.
    """
    found: dict[str, Any] = {}
    for amount in amounts:
        match = _AMOUNT.fullmatch(amount.strip().lower())
        if match is None:
            message = f"{option} takes US dollars (2.50) or tokens (200k), not {amount!r}."
            raise errors.UsageError(message)
        kind = "tokens" if match["unit"] else "cost"
        if kind in found:
            raise errors.UsageError(f"{option} names {kind} twice. Give each once.")
        number = float(match["number"])
        found[kind] = int(number * _UNITS[match["unit"]]) if match["unit"] else number
    return Budget(**found) if found else None

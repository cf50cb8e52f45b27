"""`approvals`, `approve` and `reject`: what people are asked, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click

from holdfast import operations
from holdfast.cli.output import moment, text_of
from holdfast.cli.payloads import load_value
from holdfast.cli.plain import clean
from holdfast.cli.report import Document
from holdfast.cli.session import Session, command
from holdfast.models import ApprovalRecord
from holdfast.operations import find_task, needs_of
from holdfast.store import Store, verbs

_Decision = Callable[..., None]


@command("approvals")
@click.argument("task", metavar="[TASK]", required=False)
def approvals_command(session: Session, task: str | None) -> None:
    """List what waits for an approval, with its exact arguments.

    Of TASK and what is below it, or of all tasks. An approval holds for exactly these arguments,
    and for one call.
    """
    with session.store() as store:
        task_id = None if task is None else find_task(store, task).task_id
        found = [_document(store, each) for each in operations.approvals_of(store, task_id)]
    lines = [line for each in found for line in _lines(each)]
    session.output.answer(found, lines or ["Nothing waits for an approval."])


def _document(store: Store, found: ApprovalRecord) -> Document:
    entries = store.read(verbs.read_journal(found.task_id, found.item_id, found.seq - 1))
    request = entries[0].request if entries and entries[0].seq == found.seq else None
    return {
        "entry": found.entry,
        "task_id": found.task_id,
        "item_id": found.item_id,
        "name": found.name,
        "scope": found.scope,
        "text": found.text,
        "arguments": load_value(store, found.task_id, request),
        "digest": found.digest.hex(),
        "requested_at": found.requested_at,
        "expires_at": found.expires_at,
    }


def _lines(found: Document) -> Iterator[str]:
    yield clean(f"{found['entry']}  {found['name']}" + (f": {found['text']}" * bool(found["text"])))
    until = f", expires {moment(found['expires_at'])}" if found["expires_at"] else ""
    yield f"  asked {moment(found['requested_at'])}{until} (UTC)"
    for line in text_of(found["arguments"]).splitlines():
        yield f"  {line}"


def _options(function: _Decision) -> _Decision:
    function = click.option("--reason", metavar="TEXT", help="For whoever reads it later.")(
        function
    )
    function = click.option("--by", metavar="NAME", help="Who decides; you when left out.")(
        function
    )
    return click.argument("entry", metavar="ENTRY")(function)


@command("approve")
@_options
def approve_command(session: Session, entry: str, by: str | None, reason: str | None) -> None:
    """Let go on what waits for an approval.

    ENTRY is task:item:number, as `holdfast approvals` lists it. The approval holds for exactly the
    arguments shown there, and for one call.
    """
    with session.store() as store:
        session.run(operations.approve(store, entry, by=by, reason=reason))
        _answer(session, store, entry, "approved")


@command("reject")
@_options
def reject_command(session: Session, entry: str, by: str | None, reason: str | None) -> None:
    """Say no to what waits for an approval.

    ENTRY is task:item:number, as `holdfast approvals` lists it. Whoever waits is told the reason.
    """
    with session.store() as store:
        session.run(operations.reject(store, entry, by=by, reason=reason))
        _answer(session, store, entry, "rejected")


def _answer(session: Session, store: Store, entry: str, how: str) -> None:
    named, item_id, seq = operations.parse_entry(entry)
    task_id = find_task(store, named).task_id
    status, needs = store.read(verbs.get_task(task_id)).status.value, needs_of(store, task_id)
    lines = [f"{task_id}:{item_id}:{seq} is {how}; task {task_id} is {status}."]
    lines += [f"  {need}" for need in needs]
    document = {
        "entry": f"{task_id}:{item_id}:{seq}",
        "decision": how,
        "task_id": task_id,
        "status": status,
        "needs": needs,
    }
    session.output.answer(document, map(clean, lines))

"""`verify`: does what a task claims still hold, and is its journal as it was written?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from holdfast.cli.deciding import verifier_of
from holdfast.cli.failures import OTHER
from holdfast.cli.output import status
from holdfast.cli.plain import clean, one_line
from holdfast.cli.session import Session, command
from holdfast.evidence import Verdict
from holdfast.models import Claim
from holdfast.operations import ChainReport, find_task, verify_chains
from holdfast.rechecks import Recheck, recheck_claims, workspace_of
from holdfast.store import verbs


@command("verify")
@click.argument("task", metavar="TASK")
@click.option("--app", metavar="APP", help="Where evidence of your own kinds is checked.")
def verify_command(session: Session, task: str, app: str | None) -> int:
    """Check a task's evidence, hash chains and stored payloads again.

    Nothing is reopened: that does `holdfast resume`. Exits with 1 if anything doesn't hold, or
    can't be checked here.
    """
    with session.store() as store:
        found = find_task(store, task)
        chains = verify_chains(store, found.task_id)
        rechecked = session.run(
            recheck_claims(
                store, verifier_of(app), lambda: workspace_of(found.workspace), found.task_id
            )
        )
        claims = store.read(verbs.list_claims(found.task_id))
    document = _document(found.task_id, claims, rechecked, chains)
    session.output.answer(document, _lines(document))
    return 0 if document["holds"] else OTHER


def _document(
    task_id: str, claims: list[Claim], found: Recheck, chains: ChainReport
) -> dict[str, Any]:
    verdicts = {
        claim.subject: verdict
        for claim, verdict in (*found.holding, *found.failed, *found.unavailable)
    }
    return {
        "task_id": task_id,
        "holds": found.holds and not (chains.broken or chains.damaged),
        "evidence": [_evidence(claim, verdicts.get(claim.subject)) for claim in claims],
        "entries": chains.entries,
        "broken_chains": list(chains.broken),
        "damaged_payloads": list(chains.damaged),
    }


def _evidence(claim: Claim, verdict: Verdict | None) -> dict[str, str]:
    if verdict is None:
        found, detail = "spared", "doesn't hold, but enough of its pack does"
    else:
        found, detail = verdict.status.value, verdict.detail
    return {
        "subject": claim.subject,
        "item_id": claim.item_id,
        "verdict": found,
        "detail": detail,
    }


def _lines(document: dict[str, Any]) -> Iterator[str]:
    for each in document["evidence"]:
        line = clean(f"{each['subject']}  {one_line(each['detail'])}")
        yield f"{status(each['verdict'].ljust(11))} {line}".rstrip()
    if not document["evidence"]:
        yield "No evidence: what this task did is recorded, not proven."
    for problem in (*document["broken_chains"], *document["damaged_payloads"]):
        yield f"{status('problem'.ljust(11))} {clean(one_line(problem))}"
    chains = "broken" if document["broken_chains"] else "unbroken"
    yield f"Hash chain of {document['entries']} journal entries: {chains}."
    yield "Everything holds." if document["holds"] else "Not everything holds."

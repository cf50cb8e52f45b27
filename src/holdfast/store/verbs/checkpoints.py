"""Verbs about checkpoints and the claims they make about the world."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.models import Checkpoint, Claim, Lease
from holdfast.store.payload import Payload, keep_blob
from holdfast.store.verb import Refused, Steps, run, verb
from holdfast.store.verbs.shared import Append, appended, event, fence


@verb(witness=appended, keeps=True)
def commit_checkpoint(  # noqa: PLR0917  the facts of one row
    lease: Lease,
    append: Append,
    checkpoint: Checkpoint,
    claims: Sequence[Claim],
    state: Payload,
    now: float,
) -> Steps[Refused | None]:
    """Record a checkpoint, its verdicts and its claims, in one transaction with its entry."""
    refused = yield from fence(lease, append, "commit_checkpoint", now)
    if refused:
        return refused
    yield from keep_blob(lease.task_id, state)
    yield from put_checkpoint(checkpoint, claims)
    return None


def put_checkpoint(checkpoint: Checkpoint, claims: Sequence[Claim]) -> Steps[None]:
    """Insert a checkpoint; its claims supersede earlier ones about the same subjects.

    A reopened item that loses a subject this way must run again, even when its inputs come out
    unchanged: what it had made of that subject is gone.
    """
    yield from run("checkpoint.put", **msgspec.structs.asdict(checkpoint))
    for claim in claims:
        yield from run(
            "claim.displace",
            task_id=checkpoint.task_id,
            item_id=claim.item_id,
            subject=claim.subject,
        )
        yield from run("claim.put", task_id=checkpoint.task_id, **msgspec.structs.asdict(claim))


@verb()
def list_checkpoints(task_id: str, item_id: str | None = None) -> Steps[list[Checkpoint]]:
    """Return the checkpoints of a task, or of one item, oldest first."""
    rows = yield from run("checkpoint.list", task_id=task_id, item_id=item_id)
    return [msgspec.convert(row, Checkpoint, strict=False) for row in rows]


@verb()
def newest_checkpoints(
    task_id: str, item_id: str, below: int, limit: int
) -> Steps[list[Checkpoint]]:
    """Return an item's checkpoints numbered below `below`, newest first."""
    rows = yield from run(
        "checkpoint.newest", task_id=task_id, item_id=item_id, below=below, limit=limit
    )
    return [msgspec.convert(row, Checkpoint, strict=False) for row in rows]


@verb()
def get_checkpoint(task_id: str, item_id: str, number: int) -> Steps[Checkpoint | None]:
    """Return one checkpoint."""
    rows = yield from run("checkpoint.get", task_id=task_id, item_id=item_id, number=number)
    return msgspec.convert(rows[0], Checkpoint, strict=False) if rows else None


@verb()
def set_checkpoint_status(  # noqa: PLR0917  the facts of one row
    task_id: str, item_id: str, number: int, status: str, reason: str, now: float
) -> Steps[None]:
    """Record that a checkpoint's evidence was found to hold, or not to."""
    yield from run(
        "checkpoint.set_status",
        task_id=task_id,
        item_id=item_id,
        number=number,
        status=status,
        now=now,
    )
    if status == "refuted":
        yield from event(task_id, item_id, "checkpoint_refuted", now, number=number, reason=reason)


@verb()
def set_restores(task_id: str, item_id: str) -> Steps[None]:
    """Remember that an item's handler restores: what is before its checkpoint may be pruned."""
    yield from run("item.set_restores", task_id=task_id, item_id=item_id)


@verb()
def list_claims(task_id: str, item_ids: Sequence[str] | None = None) -> Steps[list[Claim]]:
    """Return the newest claim about every subject of a task, or those made by some items."""
    items = None if item_ids is None else msgspec.json.encode(list(item_ids)).decode()
    rows = yield from run("claim.list", task_id=task_id, items=items)
    return [msgspec.convert(row, Claim, strict=False) for row in rows]


@verb(keeps=True)
def record_verdicts(task_id: str, claims: Sequence[Claim]) -> Steps[None]:
    """Store new verdicts of claims that still stand as they did when they were checked."""
    for claim in claims:
        yield from run(
            "claim.set_verdict",
            task_id=task_id,
            subject=claim.subject,
            item_id=claim.item_id,
            number=claim.number,
            verdict=claim.verdict,
            checked_at=claim.checked_at,
        )

"""Finishing: checking what an item owes, and what its success records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from holdfast import codec, errors
from holdfast.attempt import Attempt
from holdfast.evidence import EvidencePack, PackVerdict, Verdict
from holdfast.models import Checkpoint, Claim
from holdfast.resume_point import NO_STATE
from holdfast.states import CheckpointType
from holdfast.store.payload import make_payload
from holdfast.store.verbs import Finish

_CONTENT = frozenset({"sha256", "exit_code", "row", "commit", "status"})
"""What of a capture says whether the world came out the same; the rest is when and where."""


async def prove(attempt: Attempt, value: object, *, required: bool) -> Finish:
    """Check the evidence the item owes, and return what finishing it records.

    Args:
        attempt: the attempt whose handler returned.
        value: what it returned.
        required: whether the item must have proven anything.

    Raises:
        EncodingError, PayloadTooLargeError: the result can't be kept.
        EvidenceRejectedError: what it owes doesn't hold, or it must prove something and hasn't.
        EvidenceUnavailableError: this machine doesn't have the workspace.
    """
    item, manager = attempt.item, attempt.checkpoints
    data = codec.encode(value)
    result = make_payload(data)
    owes = _owed(item.owes)
    verdict = await manager.check(owes)
    await attempt.journal.flush()
    made = manager.made()
    standing = manager.still_claimed(made)
    if required and not standing and verdict is None:
        message = (
            f"{item.handler} must prove what it did, and no evidence was committed. Take a "
            f"checkpoint with evidence before returning."
        )
        raise errors.EvidenceRejectedError(message, verdicts=[])
    checkpoint, claims = _final_checkpoint(attempt, owes, verdict)
    digest = _result_hash(data, [*standing, *claims])
    return Finish(
        result,
        digest,
        changed=item.result_hash != digest,
        proven=bool(standing or claims),
        checkpoint=checkpoint,
        claims=claims,
        withdrawn=tuple(claim for claim in made if claim not in standing),
    )


def _owed(column: bytes | None) -> EvidencePack:
    return EvidencePack() if column is None else msgspec.msgpack.decode(column, type=EvidencePack)


def _final_checkpoint(
    attempt: Attempt, owes: EvidencePack, verdict: PackVerdict | None
) -> tuple[Checkpoint | None, tuple[Claim, ...]]:
    if verdict is None:
        return None, ()
    manager = attempt.checkpoints
    checkpoint = manager.build(
        manager.next_number(), CheckpointType.STATE_TRANSITION, NO_STATE, owes, verdict
    )
    return checkpoint, manager.claims(checkpoint, owes, verdict)


def _result_hash(result: bytes, claims: Iterable[Claim]) -> bytes:
    """Return the digest of what an item produced: its result and what its evidence captured."""
    content = hashlib.sha256(result)
    captured = {claim.subject: _captured(claim.verdict) for claim in claims}
    content.update(codec.digest(sorted(captured.items())))
    return content.digest()


def _captured(verdict: bytes) -> dict[str, object]:
    found = msgspec.msgpack.decode(verdict, type=Verdict).captured
    return {name: value for name, value in found.items() if name in _CONTENT}

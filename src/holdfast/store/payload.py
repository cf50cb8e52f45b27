"""Payloads as columns hold them: small ones inline, large ones by content among the task's blobs.

A column starts with the header byte of `packing.pack`, or with `REFERENCE` and the SHA-256 of the
blob. Blobs belong to one task, so pruning one task can't take another's.
"""

from __future__ import annotations

import hashlib

import msgspec

from holdfast import codec, errors, packing
from holdfast.store.store import Store
from holdfast.store.verb import Steps, run, verb

INLINE = 2048
"""Bytes, compressed, up to which a payload stays in its row."""

MAX_PAYLOAD = 256 * 1024 * 1024
"""Bytes, uncompressed, that one payload may have. SQLite itself ends at 1,000,000,000."""

REFERENCE = b"\xff"


class Payload(msgspec.Struct, frozen=True):
    """A payload ready to be stored: what goes into the column, and into `blobs` if anything."""

    column: bytes
    digest: bytes | None = None
    data: bytes | None = None


def make_payload(data: bytes) -> Payload:
    """Compress an encoded value and decide where it goes.

    Raises:
        PayloadTooLargeError: over `MAX_PAYLOAD` bytes; nothing was recorded.
    """
    if len(data) > MAX_PAYLOAD:
        message = (
            f"A value of {len(data):,} bytes is over the limit of {MAX_PAYLOAD:,}; nothing was "
            f"recorded. Keep it in a file of the workspace and record its path and hash."
        )
        raise errors.PayloadTooLargeError(message, size=len(data), limit=MAX_PAYLOAD)
    packed = packing.pack(data)
    if len(packed) <= INLINE:
        return Payload(packed)
    digest = hashlib.sha256(packed).digest()
    return Payload(REFERENCE + digest, digest, packed)


def encode_payload(value: object) -> Payload:
    """Encode a value and make it ready to be stored.

    Raises:
        EncodingError, PayloadTooLargeError: refused; nothing was recorded.
    """
    return make_payload(codec.encode(value))


def keep_blob(task_id: str, payload: Payload | None) -> Steps[None]:
    """Insert the payload's blob, where it has one, inside a verb."""
    if payload is not None and payload.digest is not None:
        yield from run("blob.put", task_id=task_id, digest=payload.digest, data=payload.data)


@verb()
def read_blob(task_id: str, digest: bytes) -> Steps[bytes | None]:
    """Return a blob of the task, packed."""
    rows = yield from run("blob.get", task_id=task_id, digest=digest)
    return rows[0][0] if rows else None


def load_payload(store: Store, task_id: str, column: bytes) -> bytes:
    """Return the encoded value behind a column.

    Raises:
        DecodingError: the blob is missing or damaged.
    """
    packed: bytes | None = column
    if column[:1] == REFERENCE:
        packed = store.read(read_blob(task_id, column[1:]))
        if packed is None or hashlib.sha256(packed).digest() != column[1:]:
            message = (
                f"A stored payload of task {task_id} is missing or damaged; "
                f"`holdfast verify {task_id}` says which. Restore the database from a copy."
            )
            raise errors.DecodingError(message)
    return packing.unpack(packed or b"", MAX_PAYLOAD)


def decode_payload(store: Store, task_id: str, column: bytes) -> object:
    """Return the value behind a column.

    Raises:
        DecodingError: missing, damaged, or of a type this program doesn't know.
    """
    return codec.decode(load_payload(store, task_id, column))

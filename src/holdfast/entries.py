"""Entries of a journal: what names a call, and the hash chain that each is a link of."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec

from holdfast import errors
from holdfast.models import Entry, ItemRecord
from holdfast.states import Effect, EntryKind, EntryStatus, MarkerKind
from holdfast.store.payload import Payload, make_payload
from holdfast.store.verbs import Append

IDENTITY = 16
"""Bytes of an identity: 2^64 calls of one item before two are likely to collide."""

_encoder = msgspec.msgpack.Encoder()

INSIDE = "/>"
"""Begins the part of a scope that is a call, not a branch."""

REQUEST_LIMIT = 2048
"""Bytes up to which the arguments of any call are kept for people. Those of `once` and keyed calls
are always kept whole."""


class Draft(msgspec.Struct):
    """An entry before it has its place in the chain."""

    kind: EntryKind
    name: str
    identity: bytes
    status: EntryStatus
    scope: str = ""
    effect: Effect | None = None
    ref: int | None = None
    keyed: bool = False
    """Of an entry that is done: the call used its idempotency key. Of one in doubt: the call is
    known to have ended. Of a failed `once` call: it had its effect, and a retry must not repeat it.
    """
    micros: int = 0
    request: Payload | None = None
    outcome: Payload | None = None
    usage: bytes | None = None


class Recorded(msgspec.Struct):
    """A call as the journal knows it: its first entry, and what is known of its outcome."""

    entry: Entry
    outcome: Entry | None
    asked: bool = False
    questioned: bool = False
    """It was done, and put in doubt after all: if it is done now, a person has said so."""

    @property
    def last(self) -> Entry:
        """The entry that says what is known about the call."""
        return self.entry if self.outcome is None else self.outcome

    @property
    def status(self) -> EntryStatus:
        """What is known about the call."""
        return self.last.status

    @property
    def open(self) -> bool:
        """Whether it was started and its outcome isn't known."""
        return self.status in {EntryStatus.STARTED, EntryStatus.DOUBT}


def identity_of(scope: str, kind: EntryKind, name: str, arguments: bytes, key: str | None) -> bytes:
    """Return what names a call within its item.

    Args:
        scope: the branch it was made in.
        kind: of entry.
        name: of the tool, model function or step.
        arguments: digest of its canonical arguments.
        key: an explicit name; then the arguments only serve to notice a reuse of the key.
    """
    if key is not None:
        named = _encoder.encode(("key", kind, name, key))
        return sha256(named).digest()[:IDENTITY] + arguments[:IDENTITY]
    named = _encoder.encode((scope, kind, name, arguments))
    return sha256(named).digest()[:IDENTITY]


def is_keyed(identity: bytes) -> bool:
    """Say whether an explicit key names the call: then a digest of its arguments follows."""
    return len(identity) > IDENTITY


def scope_inside(entry: Entry) -> str:
    """Return the scope of calls that are made inside a call."""
    return inside(entry.scope, entry.name, entry.identity)


def inside(scope: str, name: str, identity: bytes) -> str:
    """Return the scope of calls that are made inside a call, before that is an entry."""
    return f"{scope}{INSIDE}{name.replace('/', '|')}.{identity[:6].hex()}"


def check_key_reuse(recorded: Recorded, identity: bytes, key: str | None) -> None:
    """Refuse a key that named a call with other arguments.

    Raises:
        KeyReusedError: it did.
    """
    if key is not None and recorded.entry.identity != identity:
        message = (
            f"The key {key!r} of {recorded.entry.name} was used with other arguments before. "
            f"Nothing was called. Give this call a key of its own."
        )
        raise errors.KeyReusedError(message, key=key)


def request_payload(data: bytes, *, whole: bool) -> Payload | None:
    """Return the encoded arguments of a call as they are kept; large ones only where needed."""
    return make_payload(data) if whole or len(data) <= REQUEST_LIMIT else None


def is_redone(call: Recorded, *, llm_too: bool) -> bool:
    """Say whether a reopened item makes this call again instead of replaying it."""
    if call.entry.kind is EntryKind.CHECKPOINT:
        return True
    match call.entry.effect:
        case Effect.READ:
            return True
        case Effect.IDEMPOTENT:
            return not (call.entry.keyed or settled_keyed(call))
        case Effect.LLM:
            return llm_too
        case _:
            return False


def settled_keyed(call: Recorded) -> bool:
    """Say whether a call used its idempotency key, as its outcome has it."""
    return call.outcome is not None and call.outcome.keyed


# -- the chain ------------------------------------------------------------------------------------


def addition(drafts: Iterable[Draft], seq: int, head: bytes, *, attempt: int, now: float) -> Append:
    """Return drafts as an addition to a journal that ends at `seq` with that chain head."""
    before = seq
    entries: list[Entry] = []
    blobs: list[Payload] = []
    for draft in drafts:
        entry = place(draft, seq + 1, head, attempt=attempt, now=now)
        seq, head = entry.seq, entry.chain
        entries.append(entry)
        blobs += [p for p in (draft.request, draft.outcome) if p is not None and p.digest]
    return Append(before, tuple(entries), tuple(blobs), head)


def place(draft: Draft, seq: int, head: bytes, *, attempt: int, now: float) -> Entry:
    """Return the draft as an entry behind the chain's head."""
    columns = (
        seq, draft.kind, draft.name, draft.scope, draft.identity, draft.status, draft.effect,
        draft.ref, draft.keyed, attempt, now, draft.micros,
        draft.request and draft.request.column, draft.outcome and draft.outcome.column, draft.usage,
    )  # fmt: skip
    return Entry(*columns, chain=_link(columns, head))


def link(entry: Entry, head: bytes) -> bytes:
    """Return the chain's head behind an entry: SHA-256 over the old head and the entry.

    Payloads enter by their digests, so the chain can be checked without unpacking any.
    """
    return _link(msgspec.structs.astuple(entry)[:-1], head)


def _link(columns: tuple[Any, ...], head: bytes) -> bytes:
    *facts, request, outcome, usage = columns
    digests = [
        None if part is None else sha256(part).digest() for part in (request, outcome, usage)
    ]
    return sha256(head + _encoder.encode((*facts, digests))).digest()


def verify_chain(
    entries: Iterable[Entry], anchor: bytes | None, head: bytes, item: ItemRecord
) -> None:
    """Check that entries follow one another from the anchor to the head.

    Raises:
        ChainBrokenError: an entry was altered, added or removed outside Holdfast.
    """
    current = bytes(32) if anchor is None else anchor
    last = None
    for entry in entries:
        current = link(entry, current)
        if current != entry.chain:
            _broken(item, entry.seq)
        last = entry.seq
    if current != head:
        _broken(item, last)


def _broken(item: ItemRecord, seq: int | None) -> None:
    message = (
        f"The journal of {item.task_id}/{item.item_id} was altered outside Holdfast, at or after "
        f"entry {seq}. It is not resumed from. Restore the database, or cancel the task."
    )
    raise errors.ChainBrokenError(message, task_id=item.task_id, item_id=item.item_id, seq=seq)


def settling(intent: Entry, status: EntryStatus, outcome: Payload | None) -> Draft:
    """Return a draft that says what became of a call."""
    return Draft(
        intent.kind,
        intent.name,
        intent.identity,
        status,
        scope=intent.scope,
        effect=intent.effect,
        ref=intent.seq,
        outcome=outcome,
    )


def marker(kind: MarkerKind, ref: int | None = None) -> Draft:
    """Return a draft that changes which earlier entries answer."""
    return Draft(EntryKind.MARKER, kind, b"", EntryStatus.DONE, ref=ref)

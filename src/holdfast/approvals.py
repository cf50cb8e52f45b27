"""What needs a person's consent: asked for once, given for exact arguments, used once.

A request is an entry of the journal and a row that people look at, written together. An approval is
used up in the transaction that records what it releases, so a crash before that leaves it usable,
and after it there is nothing left that could release a second time.
"""

from __future__ import annotations

from typing import cast

import msgspec

from holdfast import codec, errors
from holdfast.branches import ApprovalNeed, Waits
from holdfast.entries import Draft, Recorded, check_key_reuse
from holdfast.failures import decode_failure, encode_failure, tag
from holdfast.journal import Journal
from holdfast.models import ApprovalRecord, Entry
from holdfast.redaction import redact
from holdfast.states import EntryKind, EntryStatus
from holdfast.store import verbs
from holdfast.store.payload import Payload, encode_payload
from holdfast.store.verbs import Asked


class Approval(msgspec.Struct, frozen=True):
    """A person's consent.

    Args:
        by: who gave it.
        at: when, wall time in seconds.
        reason: what they said about it.
    """

    by: str
    at: float
    reason: str | None = None


codec.register_type(Approval, name="holdfast:Approval")


class Wanted(msgspec.Struct, frozen=True):
    """What consent is wanted for.

    Args:
        name: of what is to happen.
        scope: the branch that asks.
        identity: names the request within its item.
        digest: of the exact arguments.
        request: the arguments, for people.
        text: what people are told besides.
        seconds: how long they have for an answer; as long as they like when None.
        supersedes: whether what was asked under that name before doesn't count any more.
        key: the explicit name the request has, if any.
    """

    name: str
    scope: str
    identity: bytes
    digest: bytes
    request: Payload | None
    text: str = ""
    seconds: float | None = None
    supersedes: bool = False
    key: str | None = None


class Granted(msgspec.Struct, frozen=True):
    """An approval that isn't used yet. `used` is the entry that uses it up."""

    approval: Approval
    used: Draft
    seq: int


class Approvals:
    """The requests of one work item.

    Args:
        journal: where they are recorded; it holds the lease.
        waits: what to do until a person has answered.
    """

    def __init__(self, journal: Journal, waits: Waits) -> None:
        self._journal = journal
        self._waits = waits
        self._left: dict[bytes, int] = {}
        """Requests of this attempt that nobody waits for any more, by what they ask."""

    async def approval(self, wanted: Wanted) -> Approval:
        """Wait for an approval, and use it up.

        Raises:
            ApprovalRejectedError, ApprovalExpiredError: there is none; the same at a replay.
        """
        recorded = self._find(wanted, used_too=True)
        if recorded is not None and recorded.status is EntryStatus.DONE:
            self._journal.replayed += 1
            return cast("Approval", self._journal.decode(recorded.last.outcome))
        granted = await self._wait(wanted, recorded)
        await self.use(granted)
        return granted.approval

    async def for_call(self, wanted: Wanted) -> Granted:
        """Wait for an approval of a call that isn't recorded; the call is to use it.

        What is used belongs to an earlier call, and answers for no other.

        Raises:
            ApprovalRejectedError, ApprovalExpiredError: there is none; the same at a replay.
        """
        return await self._wait(wanted, self._find(wanted))

    async def use(self, granted: Granted, *drafts: Draft) -> Entry:
        """Record what an approval releases, and use it up, together; returns the last entry."""
        journal = self._journal
        append = journal.extend((granted.used, *drafts))
        await journal.write(
            verbs.use_approval(journal.lease, append, granted.seq, journal.store.now())
        )
        return append.entries[-1]

    async def look(self, wanted: Wanted) -> Granted | ApprovalNeed:
        """Return the approval, or what to wait for where nobody has answered yet.

        Raises:
            ApprovalRejectedError, ApprovalExpiredError: there is none.
        """
        seq, found = await self._asked(wanted, self._find(wanted))
        if self._is_undecided(found):
            return _need(found)
        return await self._settle(wanted, seq)

    # -- asking ----------------------------------------------------------------------------------

    def _find(self, wanted: Wanted, *, used_too: bool = False) -> Recorded | None:
        """Return the request that counts; pass over those that were used or don't count any more.

        Raises:
            ApprovalRejectedError, ApprovalExpiredError: so it was answered.
        """
        journal = self._journal
        while (recorded := journal.find(wanted.identity, keyed=wanted.key is not None)) is not None:
            check_key_reuse(recorded, wanted.identity, wanted.key)
            if recorded.status is EntryStatus.FAILED:
                journal.replayed += 1
                raise tag(decode_failure(journal.decode(recorded.last.outcome)), recorded.entry.seq)
            if recorded.open:
                found = self._read(recorded.entry.seq)
                counts = found is not None and found.status != "expired"
            else:
                counts = used_too
            if counts:
                return recorded
            journal.drop(recorded)
        return None

    async def _wait(self, wanted: Wanted, recorded: Recorded | None) -> Granted:
        seq, found = await self._asked(wanted, recorded)
        need, answered = _need(found), False
        try:
            answered = await self._waits.until(
                need, lambda: not self._is_undecided(self._read(seq))
            )
        finally:
            if not answered:
                self._left[wanted.identity] = seq
        if not answered:
            message = (
                f"{need.text}. Nothing was called. `holdfast approve {need.entry}` or `holdfast "
                f"reject {need.entry}` answers."
            )
            raise errors.ApprovalNeededError(message, entry=need.entry)
        return await self._settle(wanted, seq)

    async def _asked(self, wanted: Wanted, recorded: Recorded | None) -> tuple[int, ApprovalRecord]:
        """Return the request there is, or ask."""
        seq = self._left.pop(wanted.identity, None) if recorded is None else recorded.entry.seq
        found = None if seq is None else self._read(seq)
        if found is not None:
            return found.seq, found
        journal, now = self._journal, self._journal.store.now()
        draft = Draft(
            EntryKind.APPROVAL,
            wanted.name,
            wanted.identity,
            EntryStatus.STARTED,
            scope=wanted.scope,
            request=wanted.request,
        )
        asked = Asked(
            wanted.name,
            wanted.scope,
            wanted.digest,
            redact(wanted.text),
            None if wanted.seconds is None else now + wanted.seconds,
            wanted.supersedes,
        )
        append = journal.extend((draft,))
        await journal.write(verbs.request_approval(journal.lease, append, asked, now))
        found = self._read(append.after)
        assert found is not None  # noqa: S101  written just now, and pruned with its task only
        return append.after, found

    def _read(self, seq: int) -> ApprovalRecord | None:
        item = self._journal.item
        return self._journal.store.read(verbs.get_approval(item.task_id, item.item_id, seq))

    def _is_undecided(self, found: ApprovalRecord | None) -> bool:
        if found is None or found.status != "waiting":
            return False
        return found.expires_at is None or self._journal.store.now() < found.expires_at

    # -- answers ---------------------------------------------------------------------------------

    async def _settle(self, wanted: Wanted, seq: int) -> Granted:
        found = self._read(seq)
        settled = Draft(
            EntryKind.APPROVAL, wanted.name, wanted.identity, EntryStatus.DONE,
            scope=wanted.scope, ref=seq,
        )  # fmt: skip
        if found is not None and found.status == "approved":
            approval = Approval(found.decided_by or "", found.decided_at or 0.0, found.reason)
            settled.outcome = encode_payload(approval)
            return Granted(approval, settled, seq)
        error = _refusal(wanted.name, found)
        settled.status, settled.outcome = EntryStatus.FAILED, encode_failure(error)
        journal, now = self._journal, self._journal.store.now()
        if found is not None and found.status == "waiting":
            append = journal.extend((settled,))
            await journal.write(verbs.expire_approval(journal.lease, append, seq, now))
        else:
            await journal.record(settled)
        raise tag(error, seq)


def _need(found: ApprovalRecord) -> ApprovalNeed:
    about = f": {found.text}" if found.text else ""
    text = f"{found.name} waits for an approval{about}"
    return ApprovalNeed(found.entry, found.seq, text, found.expires_at)


def _refusal(name: str, found: ApprovalRecord | None) -> BaseException:
    if found is not None and found.status == "rejected":
        why = f": {found.reason}" if found.reason else ""
        message = f"{found.decided_by} rejected {name}{why}. It was not called."
        return errors.ApprovalRejectedError(message, by=found.decided_by, reason=found.reason)
    message = f"Nobody approved {name} in time. It was not called; `holdfast retry` asks again."
    return errors.ApprovalExpiredError(message)

"""The journal of one work item under one lease.

Entries are found by content, not by position: an entry answers for a call with the same scope,
kind, name and arguments, the oldest unused one first. So parallel calls, reordered calls and edited
code are fine.

It is append-only and hash-chained. Whoever holds the lease is the only one who appends, so sequence
numbers and the chain are computed here, and the store checks both with the token in one statement.
After a write that failed nothing more is accepted: this attempt is over.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from holdfast import errors
from holdfast.entries import (
    IDENTITY,
    INSIDE,
    Draft,
    Recorded,
    addition,
    is_keyed,
    is_redone,
    scope_inside,
    settled_keyed,
    verify_chain,
)
from holdfast.models import Claimed, Entry, ItemRecord, Lease, Task
from holdfast.states import Effect, EntryKind, EntryStatus, MarkerKind
from holdfast.store import Store, verbs
from holdfast.store.payload import decode_payload
from holdfast.store.ticket import Ticket
from holdfast.store.verb import Refused, Verb
from holdfast.store.verbs import Append

T = TypeVar("T")

LeaseCheck = Callable[[], Awaitable[None]]
"""Raises `LeaseLostError` when the local deadline of a lease has passed."""


class Journal:
    """What one work item did, and the only way to add to it.

    Args:
        store: where it is kept.
        claimed: the lease and the item as it was claimed.
        check_lease: see the attribute; by default a lease is trusted.
    """

    def __init__(
        self, store: Store, claimed: Claimed, check_lease: LeaseCheck | None = None
    ) -> None:
        self.store = store
        self.check_lease: LeaseCheck = check_lease or _trust
        """Makes sure that the lease can still be trusted, just before an effect.

        Raises `LeaseLostError`: it couldn't be renewed in time; others may have taken over.
        """
        self.lease: Lease = claimed.lease
        self.item: ItemRecord = claimed.item
        self.task: Task = claimed.task
        self.seq = claimed.item.seq
        self.head: bytes = claimed.item.chain_head
        self.segment = 0
        """Number of the last checkpoint passed: idempotency keys count from there."""
        self.regenerated = False
        """Whether the item was already done again without its recorded LLM outputs."""
        self.replayed = 0
        self.executed = 0
        self.savings: Counter[str] = Counter()
        self._failed: Exception | None = None
        self._behind: Ticket[Refused | None] | None = None
        self._loaded = False
        self._calls: dict[int, Recorded] = {}
        self._answers: dict[bytes, deque[Recorded]] = {}
        self._nested: dict[str, list[Recorded]] = {}
        self._allowed: Counter[bytes] = Counter()
        self._nth: defaultdict[bytes, int] = defaultdict(int)

    # -- reading ---------------------------------------------------------------------------------

    @property
    def untouched(self) -> bool:
        """Whether no call has looked into the journal yet in this attempt."""
        return not self._loaded

    def load(self, after: int = 0, anchor: bytes | None = None) -> None:
        """Read the entries behind a checkpoint, or all of them.

        Args:
            after: the checkpoint's position; earlier entries no longer answer.
            anchor: the chain's head at that position.

        Raises:
            ChainBrokenError: an entry was altered, or some are missing.
        """
        self._loaded = True
        entries: list[Entry] = []
        if self.seq > after:
            asked = verbs.read_journal(self.item.task_id, self.item.item_id, after)
            entries = self.store.read(asked)
        if anchor is not None or not self.item.pruned_seq:
            verify_chain(entries, anchor, self.head, self.item)
        for entry in entries:
            self._add(entry)

    def load_kept(self) -> None:
        """Read what is left, where no checkpoint can be resumed from."""
        self._loaded = True
        whole = not self.item.pruned_seq
        if whole:
            self.load()
            return
        for entry in self.store.read(verbs.read_journal(self.item.task_id, self.item.item_id)):
            self._add(entry)

    def find(self, identity: bytes, *, keyed: bool = False) -> Recorded | None:
        """Return the oldest recorded call of that identity nobody asked for yet.

        A keyed call answers every time.

        Raises:
            RestoreOrderError: entries were pruned, and the handler didn't call `restore` first.
        """
        self._ensure_loaded()
        waiting = self._answers.get(identity[:IDENTITY])
        if not waiting:
            return None
        recorded = waiting[0] if keyed else waiting.popleft()
        recorded.asked = True
        for inner in self._made_inside(recorded):
            inner.asked = True
        return recorded

    def _made_inside(self, call: Recorded) -> Iterator[Recorded]:
        """Yield the calls that were made inside a call; where it replays they are not asked for."""
        if self._nested and not call.open:
            for inner in self._nested.get(scope_inside(call.entry), ()):
                if inner.entry.seq <= call.last.seq:
                    yield inner
                    yield from self._made_inside(inner)

    def drop(self, call: Recorded) -> None:
        """Let a recorded call answer for no other."""
        self._calls.pop(call.entry.seq, None)
        waiting = self._answers.get(call.entry.identity[:IDENTITY])
        if waiting and call in waiting:
            waiting.remove(call)

    def unasked(self, effect: Effect, name: str | None = None) -> list[Recorded]:
        """Return recorded calls of an effect class (and tool) that nobody asked for."""
        return [
            call
            for call in self._calls.values()
            if not call.asked
            and call.entry.effect is effect
            and (name is None or call.entry.name == name)
        ]

    def in_doubt(self) -> list[Recorded]:
        """Return the `once` calls that were started and whose outcome isn't known."""
        return [
            call for call in self._calls.values() if call.entry.effect is Effect.ONCE and call.open
        ]

    def kept_effects(self) -> list[Recorded]:
        """Return recorded effects that are not repeated when the item is done again.

        Not those that a person has confirmed since: nobody is asked twice.
        """
        return [
            call
            for call in self._calls.values()
            if call.status is EntryStatus.DONE
            and call.entry.seq <= self.item.seq
            and not call.questioned
            and (call.entry.effect is Effect.ONCE or call.entry.keyed or settled_keyed(call))
        ]

    def take_allowance(self, identity: bytes) -> bool:
        """Say whether a person let one more call of that identity through, and use it up."""
        allowed = self._allowed[identity[:IDENTITY]] > 0
        self._allowed[identity[:IDENTITY]] -= allowed
        return allowed

    def decode(self, column: bytes | None) -> object:
        """Return the value behind a column of this item."""
        return None if column is None else decode_payload(self.store, self.item.task_id, column)

    def _ensure_loaded(self) -> None:
        if self._loaded:
            return
        if self.item.pruned_seq:
            message = (
                f"{self.item.task_id}/{self.item.item_id} resumes from a checkpoint: its earlier "
                f"journal was pruned because the handler called restore. Call restore first again."
            )
            raise errors.RestoreOrderError(message)
        self.load()

    def _add(self, entry: Entry) -> None:
        if entry.kind is EntryKind.MARKER:
            self._apply_marker(entry)
        elif entry.ref is not None:
            self._settle(entry)
        else:
            call = Recorded(entry, None)
            self._calls[entry.seq] = call
            self._answers.setdefault(entry.identity[:IDENTITY], deque()).append(call)
            outer, mark, rest = entry.scope.rpartition(INSIDE)
            if mark:
                self._nested.setdefault(outer + mark + rest.partition("/")[0], []).append(call)

    def _note(self, entry: Entry) -> None:
        """Know a call of this attempt, where it may be asked for again or stay in doubt."""
        if entry.ref is not None and entry.kind is not EntryKind.MARKER:
            self._settle(entry)
        elif is_keyed(entry.identity):
            self._add(entry)
            self._calls[entry.seq].asked = True
        elif entry.effect is Effect.ONCE:
            self._calls[entry.seq] = Recorded(entry, None, asked=True)

    def _settle(self, entry: Entry) -> None:
        call = self._calls.get(entry.ref or 0)
        if call is None:
            return
        if call.status is EntryStatus.DONE and entry.status is EntryStatus.DOUBT:
            call.questioned = True
        if entry.status is EntryStatus.RELEASED and call.entry.effect is Effect.ONCE:
            self.drop(call)
            self._allowed[call.entry.identity[:IDENTITY]] += 1
        elif (
            call.asked
            and entry.seq > self.item.seq
            and not is_keyed(entry.identity)
            and (entry.status is not EntryStatus.DOUBT)
        ):
            self._calls.pop(call.entry.seq)  # settled in this attempt: nobody asks again
            call.outcome = entry
        else:
            call.outcome = entry

    def _apply_marker(self, marker: Entry) -> None:
        if marker.name == MarkerKind.RETRY:
            call = self._calls.get(marker.ref or 0)
            if call is not None:
                failed = [c for c in self._made_inside(call) if c.status is EntryStatus.FAILED]
                for each in (call, *failed, *self._timers_of(call)):
                    self.drop(each)
            return
        self.regenerated = self.regenerated or marker.name == MarkerKind.REGENERATE
        for call in tuple(self._calls.values()):
            if is_redone(call, llm_too=marker.name == MarkerKind.REGENERATE):
                self.drop(call)

    def _timers_of(self, signal: Recorded) -> list[Recorded]:
        """Return the timer by which a signal had to come, where it has one."""
        wanted = (EntryKind.TIMER, f"signal:{signal.entry.name}", signal.entry.scope)
        timers = [
            call
            for call in self._calls.values()
            if signal.entry.kind is EntryKind.SIGNAL
            and call.entry.seq < signal.entry.seq
            and (call.entry.kind, call.entry.name, call.entry.scope) == wanted
        ]
        return timers[-1:]

    # -- writing ---------------------------------------------------------------------------------

    def extend(self, drafts: Iterable[Draft]) -> Append:
        """Give drafts their place in the chain, and return what a verb has to append.

        Raises:
            LeaseLostError, StoreError: an earlier write of this attempt failed.
        """
        if self._failed is not None:
            raise self._failed
        append = addition(
            drafts, self.seq, self.head, attempt=self.item.attempts, now=self.store.now()
        )
        self.seq, self.head = append.after, append.head
        for entry in append.entries:
            self._note(entry)
        return append

    async def write(self, verb: Verb[T]) -> T:
        """Commit a verb that appends to this journal; a failure ends the attempt.

        Raises:
            LeaseLostError: another worker holds the lease now; nothing was kept.
            StoreError: not kept; see there.
        """
        try:
            return await self.store.commit(verb)
        except errors.JournalError as error:  # the world was quicker: this attempt starts anew
            self._failed = errors.StoreUnavailableError(str(error))
            raise self._failed from error
        except Exception as error:
            self._failed = self._failed or error
            raise

    async def record(self, draft: Draft) -> Entry:
        """Append one entry; durable when this returns."""
        append = self.extend((draft,))
        (entry,) = append.entries
        await self.write(verbs.append_entries(self.lease, append, entry.at))
        return entry

    def record_behind(self, draft: Draft) -> int:
        """Append one entry that is durable before the next effect of this item; returns its seq."""
        append = self.extend((draft,))
        verb = verbs.append_entries(self.lease, append, self.store.now())
        self._behind = self.store.commit(verb).behind()
        return self.seq

    async def flush(self) -> None:
        """Make everything recorded so far durable.

        Raises:
            LeaseLostError, StoreError: it isn't, and can't be any more; the attempt is over.
        """
        if self._failed is not None:
            raise self._failed
        behind = self._behind
        if behind is None:
            return
        if behind.done:
            try:
                behind.outcome()
            except Exception as error:
                self._failed = error
                raise
        else:
            append = self.extend(())
            await self.write(verbs.append_entries(self.lease, append, self.store.now()))
        if self._behind is behind:
            self._behind = None

    def note_checkpoint(self, number: int) -> None:
        """Start a new segment: idempotency keys count from the last checkpoint passed."""
        self.segment = number
        self._nth.clear()

    def next_idempotency_key(self, identity: bytes, *, keyed: bool) -> Callable[[], str]:
        """Return what gives the key for the next call of that identity, should it be asked for.

        It is the same after a crash: it depends on the item, the call and how many such calls came
        since the last checkpoint, and on nothing else.
        """
        which: tuple[int, ...] = ()
        if not keyed:
            which = self.segment, self._nth[identity]
            self._nth[identity] += 1
        return partial(_idempotency_key, self.item, identity, which)


async def _trust() -> None:
    """Trust a lease: whoever made the journal sees to it."""


def _idempotency_key(item: ItemRecord, identity: bytes, which: Sequence[int]) -> str:
    parts = [item.task_id, item.item_id, identity[:IDENTITY], *which]
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()[:32]

"""What an attempt waits for, durably: moments, signals, people, children; and chosen values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec

from holdfast import codec, errors
from holdfast.approvals import Approval, Wanted
from holdfast.attempt import Attempt
from holdfast.branches import ChildNeed, SignalNeed, TimerNeed, current_scope
from holdfast.endings import child_error
from holdfast.entries import Draft, Recorded, check_key_reuse, identity_of
from holdfast.failures import decode_failure, encode_failure, tag
from holdfast.handlers import Handler, TaskOptions, new_task
from holdfast.models import Budget, Task
from holdfast.states import FINAL_TASK, EntryKind, EntryStatus
from holdfast.store import verbs
from holdfast.store.payload import Payload, decode_payload, encode_payload


class Waiting:
    """The waits and values of one attempt, under the key they are to have, if any."""

    def __init__(self, attempt: Attempt, key: str | None) -> None:
        self._attempt = attempt
        self._journal = attempt.journal
        self._store = attempt.store
        self._key = key

    # -- values and moments ----------------------------------------------------------------------

    def value(self, name: str, choose: Callable[[], object]) -> object:
        """Choose a value once: recorded, durable before the next effect."""
        identity = self._identity(EntryKind.VALUE, name)
        known = self._find(identity)
        if known is not None:
            return self._journal.decode(known.entry.outcome)
        value = choose()
        self._journal.record_behind(
            self._draft(EntryKind.VALUE, name, identity, outcome=encode_payload(value))
        )
        return value

    async def moment(self, name: str, seconds: float) -> float:
        """Return the wall time that is `seconds` after this was first reached; durable."""
        identity = self._identity(EntryKind.TIMER, name)
        known = self._find(identity)
        if known is not None:
            return cast("float", self._journal.decode(known.entry.outcome))
        at = self._store.now() + seconds
        await self._journal.record(
            self._draft(EntryKind.TIMER, name, identity, outcome=encode_payload(at))
        )
        return at

    async def sleep(self, name: str, seconds: float) -> None:
        """Wait for a moment."""
        wake_at = await self.moment(name, seconds)
        await self._attempt.branches.until(TimerNeed(wake_at), lambda: self._store.now() >= wake_at)

    # -- signals ---------------------------------------------------------------------------------

    async def signal(self, name: str, seconds: float | None) -> object:
        """Wait for a signal for at most so many seconds, and take it."""
        # Before the signal is looked for, so that each keeps its own time at a replay.
        wake_at = None if seconds is None else await self.moment(f"signal:{name}", seconds)
        identity = self._identity(EntryKind.SIGNAL, name)
        known = self._find(identity)
        if known is not None:
            value = self._journal.decode(known.entry.outcome)
            if known.status is EntryStatus.FAILED:
                raise tag(decode_failure(value), known.entry.seq)
            return value
        found = await self._await_signal(name, wake_at)
        if found is None:
            raise await self._missed(name, identity, seconds or 0.0)
        return await self._take(name, identity, *found)

    async def _await_signal(self, name: str, wake_at: float | None) -> tuple[str, bytes] | None:
        """Return the oldest signal nobody takes; None when the time is over."""
        task_id, taking = self._attempt.item.task_id, self._attempt.taking

        def here() -> tuple[str, bytes] | None:
            found = self._store.read(verbs.peek_signal(task_id, name))
            return None if found is None or found[0] in taking else found

        def is_over() -> bool:
            return wake_at is not None and self._store.now() >= wake_at

        while True:
            need = SignalNeed(name, wake_at)
            await self._attempt.branches.until(need, lambda: here() is not None or is_over())
            found = here()
            if found is not None or is_over():
                return found

    async def _take(self, name: str, identity: bytes, signal_id: str, column: bytes) -> object:
        self._attempt.taking.add(signal_id)
        draft = self._draft(EntryKind.SIGNAL, name, identity, outcome=Payload(column))
        append = self._journal.extend((draft,))
        await self._journal.write(
            verbs.take_signal(self._journal.lease, append, signal_id, self._store.now())
        )
        self._attempt.taking.discard(signal_id)
        return self._journal.decode(column)

    async def _missed(self, name: str, identity: bytes, seconds: float) -> BaseException:
        message = f"No signal {name!r} came within {seconds:g} s."
        error = errors.CallTimeoutError(message, seconds=seconds)
        draft = self._draft(EntryKind.SIGNAL, name, identity, outcome=encode_failure(error))
        draft.status = EntryStatus.FAILED
        return tag(error, (await self._journal.record(draft)).seq)

    # -- approvals -------------------------------------------------------------------------------

    async def approval(
        self, name: str, arguments: dict[str, Any], text: str, seconds: float | None
    ) -> Approval:
        """Wait for a person's approval for at most so many seconds, and use it up."""
        digest, scope = codec.digest(arguments), current_scope.get()
        identity = identity_of(scope, EntryKind.APPROVAL, f"approval:{name}", digest, self._key)
        request = encode_payload(arguments)
        wanted = Wanted(name, scope, identity, digest, request, text, seconds, key=self._key)
        return await self._attempt.approvals.approval(wanted)

    # -- children --------------------------------------------------------------------------------

    async def child(
        self, handler: Handler[..., Any], arguments: dict[str, Any], options: TaskOptions
    ) -> object:
        """Submit a child, unless it was, and wait for its outcome."""
        scope, digest = current_scope.get(), codec.digest(arguments)
        identity = identity_of(scope, EntryKind.CHILD, handler.name, digest, self._key)
        known = self._find(identity)
        if known is None:
            child_id, seq = await self._submit(handler, arguments, options, identity)
            return await self._await_child(child_id, seq, identity)
        check_key_reuse(known, identity, self._key)
        if known.outcome is None:
            child_id = cast("str", self._journal.decode(known.entry.request))
            return await self._await_child(child_id, known.entry.seq, identity)
        value = self._journal.decode(known.outcome.outcome)
        if known.status is EntryStatus.FAILED:
            raise tag(decode_failure(value), known.entry.seq)
        return value

    async def _submit(
        self,
        handler: Handler[..., Any],
        arguments: dict[str, Any],
        options: TaskOptions,
        identity: bytes,
    ) -> tuple[str, int]:
        """Submit a child; returns its id and the number of the entry that names it."""
        parent = self._attempt.task
        budget = (
            None if parent.budget is None else msgspec.msgpack.decode(parent.budget, type=Budget)
        )
        options = msgspec.structs.replace(
            options,
            priority=options.priority or parent.priority,
            workspace=parent.workspace,
            approvals=parent.approvals,
        )
        new = msgspec.structs.replace(
            new_task(handler, arguments, options, self._store.now()),
            root_id=parent.root_id,
            parent_id=parent.task_id,
            parent_item=self._attempt.item.item_id,
            budget=budget,
        )
        draft = self._draft(EntryKind.CHILD, handler.name, identity)
        draft.status, draft.request = EntryStatus.STARTED, encode_payload(new.task_id)
        append = self._journal.extend((draft,))
        await self._journal.write(
            verbs.append_child(self._journal.lease, append, new, self._store.now())
        )
        return new.task_id, append.after

    async def _await_child(self, child_id: str, seq: int, identity: bytes) -> object:
        def child() -> Task:
            return self._store.read(verbs.get_task(child_id))

        await self._attempt.branches.until(
            ChildNeed(child_id), lambda: child().status in FINAL_TASK
        )
        ended = child()
        draft = self._draft(EntryKind.CHILD, ended.name, identity)
        draft.ref = seq
        error = child_error(self._store, ended)
        if error is not None:
            draft.status, draft.outcome = EntryStatus.FAILED, encode_failure(error)
            await self._journal.record(draft)
            raise tag(error, seq)
        column = ended.result
        value = None if column is None else decode_payload(self._store, child_id, column)
        draft.outcome = encode_payload(value)
        await self._journal.record(draft)
        return value

    # -- entries ---------------------------------------------------------------------------------

    def _identity(self, kind: EntryKind, name: str) -> bytes:
        return identity_of(current_scope.get(), kind, name, b"", self._key)

    def _find(self, identity: bytes) -> Recorded | None:
        known = self._journal.find(identity, keyed=self._key is not None)
        self._journal.replayed += known is not None
        return known

    def _draft(
        self, kind: EntryKind, name: str, identity: bytes, outcome: Payload | None = None
    ) -> Draft:
        return Draft(
            kind, name, identity, EntryStatus.DONE, scope=current_scope.get(), outcome=outcome
        )

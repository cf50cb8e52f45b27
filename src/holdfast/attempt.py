"""One attempt at a work item: everything its context works with."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from holdfast.approvals import Approvals
from holdfast.branches import Branches
from holdfast.checkpoints import CheckpointManager
from holdfast.handlers import Handlers
from holdfast.journal import Journal, LeaseCheck
from holdfast.llm_cache import LLMOutputCache
from holdfast.models import Claimed, ItemRecord, Task
from holdfast.redaction import redact
from holdfast.store import Store, verbs
from holdfast.store.payload import decode_payload
from holdfast.tool_ledger import ToolLedger
from holdfast.verifiers import EvidenceVerifier

log = logging.getLogger("holdfast")


class Attempt:
    """The state one execution of a work item shares with its context.

    Args:
        store: the database.
        claimed: the lease, the item and the task.
        handlers: what a child call may name.
        verifier: what checks evidence.
        check_lease: raises `LeaseLostError` when the local lease deadline has passed.
    """

    def __init__(
        self,
        store: Store,
        claimed: Claimed,
        handlers: Handlers,
        verifier: EvidenceVerifier,
        check_lease: LeaseCheck,
    ) -> None:
        self.store = store
        self.task: Task = claimed.task
        self.item: ItemRecord = claimed.item
        self.handlers = handlers
        self.journal = Journal(store, claimed, check_lease)
        self.branches = Branches(store.on_wake)
        self.approvals = Approvals(self.journal, self.branches)
        self.ledger = ToolLedger(self.journal, self.branches)
        self.llm_cache = LLMOutputCache(self.journal, self.branches)
        self.checkpoints = CheckpointManager(self.journal, claimed.task.workspace, verifier)
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.taking: set[str] = set()
        """Signals that a branch is taking out of the mailbox."""
        self._results: dict[str, Any] | None = None
        self._held: list[AbstractAsyncContextManager[Any]] = []
        self._holding = AsyncExitStack()
        self._opening = asyncio.Lock()

    async def hold(self, resource: AbstractAsyncContextManager[Any]) -> None:
        """Open something that calls share, such as connections, until the attempt ends."""
        async with self._opening:
            if not any(each is resource for each in self._held):
                await self._holding.enter_async_context(resource)
                self._held.append(resource)

    async def close(self) -> None:
        """Close what was opened for the attempt; called when its handler has ended."""
        try:
            await self._holding.aclose()
        except Exception as error:  # noqa: BLE001  how the attempt ended doesn't depend on it
            log.warning("What an attempt had opened doesn't close: %s", redact(repr(error)))

    @property
    def results(self) -> dict[str, Any]:
        """What the items directly before this one returned, by item id."""
        if self._results is None:
            before = self.store.read(verbs.list_predecessors(self.item.task_id, self.item.item_id))
            self._results = {
                item.item_id: decode_payload(self.store, item.task_id, item.result)
                for item in before
                if item.result is not None
            }
        return self._results

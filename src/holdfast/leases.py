"""LeaseManager: one holder at a time for a named piece of work, seen through by a fencing token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from holdfast import errors
from holdfast.branches import POLL
from holdfast.ids import new_id
from holdfast.journal import Journal
from holdfast.liveness import LEASE, Heartbeat, Observer
from holdfast.models import MAIN, Claimed
from holdfast.states import ItemStatus
from holdfast.store import Store, open_store, verbs
from holdfast.store.payload import encode_payload
from holdfast.store.verbs import NewItem, NewTask, Parked

HANDLER = "holdfast.lease"
"""The task name of leases taken by name; no worker claims it."""


class LeaseManager:
    """Leases on names of your own, for use in somebody else's agent.

    ::

        async with LeaseManager("sqlite:///agent.db") as leases, leases.hold("order-17") as journal:
            await ToolLedger(journal).execute_or_replay(send_email, to="a@b.c")

    A name is a work item; whoever holds its lease has commit authority over its journal. When the
    holder's process dies, the next `acquire` gets the lease at once; when it hangs, after `lease`
    seconds. Either way its token is newer, and writes of the old holder are refused.

    Args:
        where: a store or its URL.
        worker_id: who holds; made up when None.
        lease: seconds without a renewal after which a live process loses its leases.
    """

    def __init__(
        self, where: Store | str, *, worker_id: str | None = None, lease: float = LEASE
    ) -> None:
        self._owns_store = not isinstance(where, Store)
        self._store = open_store(where)
        self._heartbeat = Heartbeat(self._store, lease=lease, name=worker_id)
        self._observer = Observer(self._store, POLL)
        self._started = False

    @property
    def worker_id(self) -> str:
        """Who holds the leases."""
        return self._heartbeat.worker_id

    async def __aenter__(self) -> LeaseManager:  # noqa: PYI034  Self gains nothing here
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop renewing. Leases still held go to whoever asks next."""
        self._heartbeat.stop()
        if self._owns_store:
            self._store.close()

    def _start(self) -> None:
        if not self._started:
            self._heartbeat.start()
            self._started = True

    async def acquire(self, name: str, *, wait: float = 0.0) -> Claimed:
        """Get the lease on a name; renewing it is done for you.

        Args:
            name: what is leased; made when it is new.
            wait: seconds to wait for the present holder.

        Raises:
            LeaseHeldError: somebody else holds it.
        """
        self._start()
        task_id = await self._task_of(name)
        deadline = self._store.clock.boottime() + wait
        while True:
            await self._observer.look()
            got = await self._store.commit(
                verbs.claim_by_name(self.worker_id, task_id, MAIN, self._store.now())
            )
            if isinstance(got, Claimed):
                return got
            if self._store.clock.boottime() >= deadline:
                message = f"{name!r} is held by {got}. Nothing was changed; try again later."
                raise errors.LeaseHeldError(message, holder=str(got))
            await asyncio.sleep(POLL)

    def renew(self) -> None:
        """Check that the leases are still ours; a thread renews them.

        Raises:
            LeaseLostError: they couldn't be renewed in time.
        """
        self._heartbeat.check()

    async def release(self, journal: Journal) -> None:
        """Give a lease back; what its journal holds stays."""
        parked = Parked(ItemStatus.READY)
        now = self._store.now()
        await journal.write(verbs.park_work_item(journal.lease, journal.extend(()), parked, now))

    @asynccontextmanager
    async def hold(self, name: str, *, wait: float = 0.0) -> AsyncGenerator[Journal]:
        """Hold the lease on a name for a block; gives its journal.

        Raises:
            LeaseHeldError: somebody else holds it.
        """
        journal = Journal(self._store, await self.acquire(name, wait=wait), self._heartbeat.confirm)
        try:
            yield journal
        finally:
            with suppress(errors.LeaseLostError):  # then there is nothing left to give back
                await self.release(journal)

    async def _task_of(self, name: str) -> str:
        now = self._store.now()
        nothing = encode_payload({})
        item = NewItem(MAIN, HANDLER, nothing, HANDLER, 0, b"", max_crashes=1_000_000)
        new = NewTask(new_id(now), HANDLER, nothing, (item,), key=name, queue=HANDLER)
        return (await self._store.commit(verbs.create_task(new, now))).task.task_id

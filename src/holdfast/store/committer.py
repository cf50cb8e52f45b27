"""Group commit: many operations, one transaction, one fsync.

Whoever holds the lock drains the queue in order, so operations of one item keep theirs. Three kinds
of caller share the queue:

- an event loop gathers what its tasks submit during one turn and commits it at the end of that
  turn, on the loop's own thread while commits are quick: a hundred agents cost one fsync, and a
  single one pays for no thread hop, nor for most turns that nobody else makes use of;
- a thread takes the lock and drains;
- everything else is left to the committer's own thread.

Where a server has to answer, those who wait for a batch are told when the next one is under way:
then the server works on that while they go on.

One operation that fails fails alone: its batch is undone and run again without it. If the *commit*
fails, nothing is acknowledged until a fresh connection tells whether the batch is there: by a
journal entry it appended, or else by the writer's row.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast import errors
from holdfast.store.engine import BusyError, Engine, NotKeptError, RemoteEngine, store_closed
from holdfast.store.rounds import Rounds
from holdfast.store.ticket import Ticket
from holdfast.store.turns import Turns
from holdfast.store.verb import Refused, Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from holdfast.clock import Clock
    from holdfast.store.verb import Question

MAX_BATCH = 1000
"""Operations in one transaction: bounds how long others wait for the write lock."""

MANY = 32
"""Additions to journals in one batch that are worth two, where a server has to answer."""

QUICK_COMMIT = 0.002
"""Seconds. While commits take less than this on average, an event loop does them itself: handing
them to a thread and back would cost about as much."""

TRIES = 5
"""How often an operation is run that other programs' transactions get in the way of."""


class _Undone(NamedTuple):
    """Why a transaction isn't there.

    Args:
        failure: what to tell.
        culprit: whose operation it was that failed, if any one's.
        alone: whether each operation may still succeed by itself.
        again: whether the same may succeed when it is run again.
    """

    failure: Exception
    culprit: Ticket[Any] | None = None
    alone: bool = False
    again: bool = False


class _Unsettled(Exception):  # noqa: N818  nobody knows yet whether anything failed
    """A commit failed on an event loop's thread, which finding out its outcome would hold up.

    Args:
        find_out: does so, and tells the tickets.
    """

    def __init__(self, find_out: Callable[[], None]) -> None:
        super().__init__()
        self.find_out = find_out


class Committer:
    """Owns the write connection of one store."""

    def __init__(
        self, engine: Engine, clock: Clock, writer_id: str, on_wake: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._remote = engine if isinstance(engine, RemoteEngine) else None
        self._rounds = Rounds(engine)
        self._clock = clock
        self._writer_id = writer_id
        self._on_wake = on_wake
        self._batch = 0
        self._queue: deque[Ticket[Any]] = deque()
        self._unsettled: tuple[list[Ticket[Any]], Callable[[], None]] | None = None
        self._lock = threading.Lock()
        self._turns = Turns()
        self._seconds = 0.0  # moving average of what a commit takes
        self._work = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._untold: list[Ticket[Any]] = []  # what has become of these is known
        self._closed = False

    # -- the three ways in -----------------------------------------------------------------------

    def submit(self, ticket: Ticket[Any], *, soon: bool = True) -> bool:
        """Queue an operation from a running event loop, or commit it where nobody else may join.

        Returns whether whoever waits for it is to `flush` when it has its next turn.

        Args:
            ticket: the operation.
            soon: commit at the end of this turn of the loop; otherwise with the next operation
                that somebody waits for, or after `WRITE_BEHIND_DELAY`.
        """
        self._refuse_when_closed()
        loop = ticket.loop = asyncio.get_running_loop()
        self._queue.append(ticket)
        if not soon or self._seconds >= QUICK_COMMIT:
            self._turns.ask_for_one(loop, self._flush, soon=soon)
            return False
        if not self._turns.needs_none(len(self._queue)):
            return True
        self._flush()
        return False

    def flush(self, ticket: Ticket[Any]) -> None:
        """Commit what is queued, if an operation still is, or have the thread do it."""
        if not ticket.done:
            self._turns.begin(len(self._queue))
            self._flush()

    def submit_and_wait(self, ticket: Ticket[Any], timeout: float) -> None:
        """Commit an operation from a thread; return when its outcome is known.

        Raises:
            StoreUnavailableError: the database didn't answer within `timeout` seconds.
        """
        self._refuse_when_closed()
        self._queue.append(ticket)
        if not self._lock.acquire(timeout=timeout):
            raise _late(ticket.verb.name, timeout)
        try:  # whoever held the lock may have done it
            self._drain(wait=True, until=ticket)
        finally:
            self._lock.release()
        self._hand_over_rest()

    def submit_within(self, ticket: Ticket[Any], seconds: float) -> None:
        """Have the committer's own thread commit an operation; return when its outcome is known.

        Raises:
            StoreUnavailableError: it isn't known after so many seconds.
        """
        ticket.future = Future()
        self.submit_behind(ticket)
        try:
            ticket.future.result(seconds)
        except TimeoutError:
            raise _late(ticket.verb.name, seconds) from None

    def submit_behind(self, ticket: Ticket[Any]) -> None:
        """Queue an operation that nobody waits for, from any thread."""
        self._refuse_when_closed()
        self._queue.append(ticket)
        self._hand_over_rest()

    def close(self) -> None:
        """Commit what is queued, then stop. Safe to call twice."""
        with self._lock:
            self._drain(wait=True)
            self._closed = True
        self._work.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._refuse_rest()

    # -- draining --------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._turns.asked_for_none()
        if not self._queue:
            return
        quick = self._seconds < QUICK_COMMIT and not self._are_many(self._queue)
        if quick and self._lock.acquire(blocking=False):
            try:
                self._drain(wait=False)
            except BusyError:
                pass
            finally:
                self._lock.release()
        self._hand_over_rest()

    def _hand_over_rest(self) -> None:
        if not self._queue and self._unsettled is None:
            return
        with self._starting:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="holdfast-committer", daemon=True
                )
                self._thread.start()
        self._work.set()
        if self._closed:  # somebody submitted at the moment of closing
            self._refuse_rest()

    def _refuse_rest(self) -> None:
        with self._lock:
            self._drain(wait=True)

    def _run(self) -> None:
        while not self._closed:
            self._work.wait()
            self._work.clear()
            with self._lock:
                self._drain(wait=True)

    def _drain(self, *, wait: bool, until: Ticket[Any] | None = None) -> None:
        """Commit what is queued, in order.

        Raises:
            BusyError: something is left that an event loop must not wait for; and `wait` is false.
        """
        if self._unsettled is not None and not wait:
            raise BusyError
        try:
            if self._unsettled is not None:
                (batch, find_out), self._unsettled = self._unsettled, None
                self._finish(batch, find_out)
            while self._queue and not (until is not None and until.done):
                batch = self._next_batch(wait=wait)
                self._finish(batch, partial(self._commit, batch, wait=wait))
        finally:
            self._tell()

    def _next_batch(self, *, wait: bool) -> list[Ticket[Any]]:
        """Take operations to commit together.

        Many additions to journals are halved once: from then on, one half is under way while those
        who wait for the other go on.
        """
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
        halves = wait and not self._untold and self._are_many(batch)
        if halves and all(ticket.verb.appending for ticket in batch):
            half = len(batch) // 2
            self._queue.extendleft(reversed(batch[half:]))
            del batch[half:]
        return batch

    def _are_many(self, tickets: Sized) -> bool:
        return self._remote is not None and len(tickets) >= MANY

    def _tell(self) -> None:
        """Acknowledge what was committed and nobody was told of yet."""
        untold, self._untold = self._untold, []
        if untold:
            self._acknowledge(untold)

    def _finish(self, batch: list[Ticket[Any]], decide: Callable[[], None]) -> None:
        try:
            if self._closed:
                _fail(batch, store_closed())
            else:
                decide()
        except BusyError:
            self._queue.extendleft(reversed(batch))
            raise
        except _Unsettled as unsettled:
            self._unsettled = (batch, unsettled.find_out)
            raise BusyError from unsettled
        except BaseException:  # such as Ctrl-C in the thread that happened to drain
            for ticket in batch:
                ticket.error = _interrupted(ticket.verb.name)
            self._acknowledge(batch)
            raise
        self._untold += batch

    def _acknowledge(self, batch: list[Ticket[Any]]) -> None:
        here = running_loop()
        elsewhere: dict[asyncio.AbstractEventLoop, list[Ticket[Any]]] | None = None
        wakes = False
        for ticket in batch:
            ticket.done = True
            if ticket.verb.wakes and ticket.error is None:
                wakes = True
            if ticket.loop is None or ticket.loop is here:
                ticket.wake()
            else:
                elsewhere = elsewhere or {}
                elsewhere.setdefault(ticket.loop, []).append(ticket)
        for loop, tickets in (elsewhere or {}).items():
            with suppress(RuntimeError):  # the loop is closed, and so nobody waits
                loop.call_soon_threadsafe(_wake_all, tickets)
        if wakes:
            self._on_wake()

    # -- one transaction -------------------------------------------------------------------------

    def _commit(self, batch: list[Ticket[Any]], *, wait: bool) -> None:
        """Commit a batch; whatever fails is undone, and the rest is tried again without it."""
        if self._remote is not None:
            batch = self._append_at_once(self._remote, batch, wait=wait)
        tries = 1
        while batch:
            undone = self._transact(batch, wait=wait)
            if undone is None:
                return
            if undone.culprit is not None:
                undone.culprit.error = undone.failure
                batch = [ticket for ticket in batch if ticket is not undone.culprit]
            elif undone.alone and len(batch) > 1:
                for ticket in batch:
                    self._commit([ticket], wait=True)
                return
            elif undone.again and tries < TRIES:
                tries += 1
            else:
                _fail(batch, undone.failure)
                return

    def _transact(self, batch: list[Ticket[Any]], *, wait: bool) -> _Undone | None:
        """Run the batch in one transaction; return what undid it, if anything did."""
        rounds = self._rounds
        rounds.culprit = None
        self._tell()  # this one takes its time
        try:
            self._engine.begin(wait=wait)
            rounds.run(batch if self._remote is None else self._set_out(self._remote, batch))
            question = self._mark(batch)
            started = self._clock.boottime()
            undone = self._commit_or_settle(batch, question, wait=wait)
            self._seconds += (self._clock.boottime() - started - self._seconds) / 8
        except (BusyError, _Unsettled):
            raise
        except NotKeptError as refused:
            self._engine.rollback()
            return _Undone(refused.failure, alone=True, again=refused.again)
        except Exception as failure:  # noqa: BLE001  whatever it is, it is one operation's answer
            self._engine.rollback()
            return _Undone(failure, rounds.culprit)
        except BaseException:
            self._engine.rollback()
            raise
        return undone

    def _append_at_once(
        self, engine: RemoteEngine, batch: list[Ticket[Any]], *, wait: bool
    ) -> list[Ticket[Any]]:
        """Commit a batch that only adds to journals in one journey; return what is left of it."""
        appends: list[tuple[Any, Any]] = []
        for ticket in batch:
            if ticket.verb.appending is None:
                return batch
            appends.append(ticket.verb.appending)
        started = self._clock.boottime()
        try:
            engine.open(wait=wait)
        except errors.StoreError as failure:
            _fail(batch, failure)
            return []
        try:
            refused = engine.append_at_once(appends, self._tell)
        except NotKeptError:
            return batch  # run in a transaction of its own, each can be told why
        except errors.StoreError as failure:
            if not wait:
                raise _Unsettled(partial(self._settle_appends, batch, failure)) from failure
            self._settle_appends(batch, failure)
            return []
        if refused is None:
            return batch
        self._seconds += (self._clock.boottime() - started - self._seconds) / 8
        return [ticket for ticket in batch if ticket.verb.leased in refused] if refused else []

    def _settle_appends(self, batch: list[Ticket[Any]], failure: errors.StoreError) -> None:
        """Find out which items' appends are there: an item's are all there, or none of them is.

        Where one can't be found out by the deadline, the rest isn't asked for.
        """
        questions: dict[tuple[str, str], Question] = {}
        for ticket in batch:
            question = ticket.verb.witness()
            if question is not None:  # a bare fence has none: it is there with its item's entries
                questions[ticket.verb.leased] = question
        answers: dict[tuple[str, str], errors.StoreError | None] = {}
        try:
            for item, question in questions.items():
                answers[item] = None if self._engine.settle(question()) else failure
        except errors.StoreError as unsettled:
            failure = _unsettled(failure, unsettled)
        for ticket in batch:
            ticket.error = answers.get(ticket.verb.leased, failure)

    @staticmethod
    def _set_out(engine: RemoteEngine, batch: list[Ticket[Any]]) -> list[Ticket[Any]]:
        """Do at once what can be done in one journey; return the rest, sorted by item.

        Two batches that lock the same rows then do so in the same order. What comes behind another
        operation of its item stays behind it.
        """
        ordered = sorted(batch, key=lambda ticket: ticket.verb.leased)
        together: list[Ticket[Any]] = []
        busy: set[tuple[str, str]] = set()
        for ticket in ordered:
            appending = ticket.verb.appending
            if appending is not None and appending[1].entries and ticket.verb.leased not in busy:
                together.append(ticket)
            else:
                busy.add(ticket.verb.leased)
        refused: set[tuple[str, str]] = set()
        if together:
            refused = engine.append([_appending(ticket) for ticket in together])
        for ticket in together:
            ticket.error, ticket.result = None, None
        if any(ticket.verb.wakes for ticket in batch):
            engine.announce()
        done = {id(ticket) for ticket in together if ticket.verb.leased not in refused}
        return [ticket for ticket in ordered if id(ticket) not in done]

    def _mark(self, batch: list[Ticket[Any]]) -> Question:
        """Return the question that settles this transaction, marking it if nothing else will.

        A mark costs a statement and a page of every commit.
        """
        for ticket in batch:
            question = ticket.verb.witness()
            if question is not None and not isinstance(ticket.result, Refused):
                return question
        self._batch += 1
        mark: dict[str, Any] = {"writer_id": self._writer_id, "batch": self._batch}
        self._engine.execute(Statement("writer.mark", mark | {"now": self._clock.now()}))
        return partial(Statement, "writer.landed", mark)

    def _commit_or_settle(
        self, batch: list[Ticket[Any]], question: Question, *, wait: bool
    ) -> _Undone | None:
        try:
            self._engine.commit()
        except errors.StoreFullError as failure:
            return _Undone(failure, alone=True)  # together they are too large; each may still fit
        except errors.StoreError as failure:
            if not wait:
                raise _Unsettled(partial(self._settle, batch, question, failure)) from failure
            self._settle(batch, question, failure)
        return None

    def _settle(
        self, batch: list[Ticket[Any]], question: Question, failure: errors.StoreError
    ) -> None:
        """Find out whether a transaction is there; where it isn't, its operations have failed."""
        try:
            if not self._engine.settle(question()):
                _fail(batch, failure)
        except errors.StoreError as unsettled:
            _fail(batch, _unsettled(failure, unsettled))

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise store_closed()


def _appending(ticket: Ticket[Any]) -> tuple[Any, Any]:
    return ticket.verb.appending or (None, None)


def _fail(batch: list[Ticket[Any]], failure: Exception) -> None:
    for ticket in batch:
        ticket.error = failure


def _late(name: str, seconds: float) -> errors.StoreUnavailableError:
    return errors.StoreUnavailableError(
        f"The database didn't answer within {seconds:g} s. Whether {name} was kept isn't known "
        f"here; it is either there whole or not at all."
    )


def _unsettled(failure: Exception, then: Exception) -> errors.StoreUnavailableError:
    unknown = errors.StoreUnavailableError(
        f"A commit failed ({failure}), and whether it was kept can't be found out now ({then}). "
        f"It is either there whole or not at all."
    )
    unknown.__cause__ = failure
    return unknown


def _interrupted(name: str) -> errors.StoreUnavailableError:
    return errors.StoreUnavailableError(
        f"Interrupted while {name} was being committed; it is either there whole or not at all."
    )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _wake_all(tickets: list[Ticket[Any]]) -> None:
    for ticket in tickets:
        ticket.wake()

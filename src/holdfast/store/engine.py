"""What an engine does for the store: statements in transactions, on one write connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from holdfast import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.models import Lease, WorkerRecord
    from holdfast.store.verb import Rows, Statement
    from holdfast.store.verbs.shared import Append


class BusyError(Exception):
    """The write lock is held by another process, and the caller didn't want to wait."""


def store_closed() -> errors.StoreUnavailableError:
    """Return the error for a call that comes after closing."""
    return errors.StoreUnavailableError("The store is closed. Nothing was recorded; open it again.")


class NotKeptError(Exception):
    """The database refused a statement, perhaps an earlier one: nothing was kept, for certain.

    Args:
        failure: what to tell whoever asked for it.
        again: whether it may well succeed when it is run again.
    """

    def __init__(self, failure: errors.HoldfastError, *, again: bool = False) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.again = again


class Engine(Protocol):
    """A database under the store. One thread at a time writes; reads have their own connection.

    Every method translates the driver's errors into `StoreError`s and answers within the
    deadline it was opened with. After a failure the next `begin` starts on a sound connection.
    """

    dialect: str

    def begin(self, *, wait: bool) -> None:
        """Start the write transaction.

        Raises:
            BusyError: another process writes, and `wait` is false.
        """
        ...

    def execute(self, statement: Statement) -> Rows:
        """Run one statement inside the write transaction."""
        ...

    def commit(self) -> None:
        """Make the transaction durable.

        Raises:
            StoreFullError: it was not kept, for certain.
            StoreError: nothing is known: see `settle`.
        """
        ...

    def rollback(self) -> None:
        """Undo the transaction, if there is one. Never raises."""
        ...

    def settle(self, question: Statement) -> bool:
        """Say for good whether a transaction whose commit failed is there.

        Args:
            question: gives a row exactly when it is. It is asked on a fresh connection that holds
                the write lock, so that what comes later can't turn a no into a yes.
        """
        ...

    def read(self, statement: Statement) -> Rows:
        """Run one statement that only reads, outside the write transaction."""
        ...

    def define(self, name: str, like: str, parts: dict[str, str]) -> None:
        """Add a query: another one with its `{parts}` filled in, such as a table's name.

        Parts are made from the catalogue, never from what anybody sent.
        """
        ...

    def set_secret_key(self, key: bytes) -> None:
        """Make this the key that secrets are digested with, from the next opening on.

        Called inside the write transaction; where the key isn't in the database, it has changed
        before that is committed.
        """
        ...

    def data_version(self) -> int:
        """Return a number that changes when another connection committed."""
        ...

    def alive(self, worker: WorkerRecord) -> bool | None:
        """Say whether a worker's process lives; None where that can't be seen from here."""
        ...

    def hold_slot(self, slot: int) -> bool:
        """Take a worker's slot for the life of this process. False when somebody holds it."""
        ...

    def release_slot(self, slot: int) -> None:
        """Give a slot back."""
        ...

    def close(self) -> None:
        """Close every connection, after whatever other threads do on them has ended.

        Calls that come later raise `StoreUnavailableError`. Nothing acknowledged is lost by not
        closing.
        """
        ...


@runtime_checkable
class RemoteEngine(Protocol):
    """What an engine does in addition to which every statement is a journey."""

    def execute_all(self, statements: Sequence[Statement]) -> list[Rows]:
        """Run statements inside the write transaction, in one journey; return the rows of each."""
        ...

    def append(self, appends: Sequence[tuple[Lease, Append]]) -> set[tuple[str, str]]:
        """Add to many items' journals in one statement, each under its lease.

        Returns the (task, item) of those where that was refused.
        """
        ...

    def open(self, *, wait: bool) -> None:
        """Have a connection to write on.

        Raises:
            BusyError: there is none, and `wait` is false.
        """
        ...

    def append_at_once(
        self, appends: Sequence[tuple[Lease, Append]], under_way: Callable[[], None]
    ) -> set[tuple[str, str]] | None:
        """As `append`, in a transaction of its own that is committed with it.

        Returns None, and has done nothing, where that can't be done. Otherwise `under_way` is
        called as soon as there is nothing to do but wait.

        Raises:
            NotKeptError: nothing was kept.
            StoreError: nothing is known: see `settle`.
        """
        ...

    def announce(self) -> None:
        """Tell idle workers of other programs, once the transaction is committed."""
        ...

"""Every error Holdfast raises, in one tree.

::

    HoldfastError
    ├── InputError (ValueError)           refused at the door; nothing was recorded
    │   ├── UrlError                      the store URL can't be read
    │   ├── UnknownHandlerError           no function is registered under that name
    │   ├── ArgumentsError                the arguments don't fit the function
    │   ├── EncodingError                 a value can't be kept as data
    │   ├── PayloadTooLargeError          a value is over the size limit
    │   ├── PlanError                     the plan is no DAG, or two items claim one subject
    │   ├── UsageError                    a call that makes no sense where it stands
    │   ├── UnknownPriceError             a call of unknown price under a budget of money
    │   ├── RequestRejectedError          a provider will never answer this request as it is
    │   └── EvidenceInputError            a claim that can't be checked safely
    │       ├── EvidencePathError         a path outside the workspace, or through a link
    │       └── EvidenceIdentifierError   a table or column the database doesn't have
    ├── DecodingError                     stored bytes don't decode to a value
    ├── StoreError                        the database
    │   ├── StoreOpenError                refused at opening; the file is as it was
    │   │   ├── NotHoldfastError          the file isn't a Holdfast database
    │   │   ├── StoreTooNewError          written by a newer Holdfast
    │   │   ├── StoreMovedError           all of it was moved to another database
    │   │   ├── UnsafeSqliteError         this SQLite library can corrupt a database
    │   │   └── ReadOnlyStoreError        the place can't be written
    │   ├── StoreUnavailableError         no answer in time, or the connection is gone
    │   ├── StoreFullError                no room left on the device
    │   └── StoreCorruptError             the database is damaged
    ├── LeaseError
    │   ├── LeaseLostError                another worker has commit authority now
    │   └── LeaseHeldError                somebody else holds the lease
    ├── JournalError
    │   ├── KeyReusedError                one key, two different calls
    │   ├── ConcurrentCallError           identical `once` calls at the same time
    │   ├── BranchesRunningError          a checkpoint while a sibling branch runs
    │   ├── RestoreOrderError             `restore` came too late, or is needed
    │   └── ChainBrokenError              the journal was altered
    ├── CallError
    │   ├── CallFailedError               a recorded failure of a type we may not rebuild
    │   ├── CallTimeoutError              a call took longer than its time limit
    │   ├── InDoubtError                  started, outcome unknown
    │   ├── ApprovalError                 a person's consent is missing
    │   │   ├── ApprovalRejectedError     a person said no
    │   │   ├── ApprovalExpiredError      nobody answered in time
    │   │   └── ApprovalNeededError       nobody has answered yet
    │   ├── RateLimitedError              the provider takes no more calls for now
    │   ├── BudgetExhaustedError          the task's budget doesn't allow the call
    │   ├── ProviderUnavailableError      the provider failed, or couldn't be reached
    │   ├── OutputRejectedError           a model's answer isn't of the type that was asked for
    │   └── GaveUpError                   a model says that it can't do what it was asked for
    ├── EvidenceError
    │   ├── EvidenceRejectedError         the evidence doesn't hold
    │   └── EvidenceUnavailableError      this machine doesn't have the workspace
    ├── CheckpointNotFoundError           no such checkpoint, or none that is verified
    └── TaskError
        ├── TaskNotFoundError             no such task
        ├── TaskFailedError               the task ended as failed
        ├── TaskCanceledError             the task was canceled
        ├── TaskBlockedError              the task waits for a person
        ├── GoalNotReachedError           an agent's rounds are over, and its gates don't pass
        └── SecretUnavailableError        this process was not given the secret

A message says what happened, what is safe, and what to do next. Facts are attributes. Every error
survives pickling, because errors cross process pools in other people's programs.

`NoEffect` is not an error of Holdfast's own: a tool raises it to say that it did nothing.
"""

from __future__ import annotations

from typing import Any


class HoldfastError(Exception):
    """The base of every error of Holdfast's own.

    Keyword arguments become attributes, so that a program can act on facts instead of parsing text.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), self.facts)


def _rebuild(cls: type[HoldfastError], message: str, facts: dict[str, Any]) -> HoldfastError:
    return cls(message, **facts)


class InputError(HoldfastError, ValueError):
    """The input was refused at the door. Nothing was recorded; correct it and call again."""


class UrlError(InputError):
    """The store URL can't be read."""


class UnknownHandlerError(InputError):
    """No function is registered under that name in this program."""

    name: str


class ArgumentsError(InputError):
    """The arguments don't fit the function's parameters."""


class EncodingError(InputError):
    """A value can't be kept as data. `path` says where in the value it stands."""

    path: str


class PayloadTooLargeError(InputError):
    """A value is larger than the store accepts. `size` and `limit` are in bytes."""

    size: int
    limit: int


class PlanError(InputError):
    """The plan can't be executed: unknown handler, cycle, or two items claiming one subject."""


class UsageError(InputError):
    """The call makes no sense where it stands, such as `run` inside a running event loop."""


class UnknownPriceError(InputError):
    """What a call will cost can't be told, and the task's budget limits money. Nothing was sent."""


class RequestRejectedError(InputError):
    """A provider won't answer this request however often it is sent: it is malformed, there is no
    such model, or the key isn't accepted.

    `status` is the HTTP status; None where it wasn't sent at all.
    """  # noqa: D205  one thought

    status: int | None = None


class EvidenceInputError(InputError):
    """A claim that can't be checked safely. Nothing was checked."""


class EvidencePathError(EvidenceInputError):
    """The path leaves the workspace, goes through a symbolic link, or is no regular file."""

    path: str


class EvidenceIdentifierError(EvidenceInputError):
    """The table or column isn't in the database's catalogue."""

    identifier: str


class DecodingError(HoldfastError):
    """Stored bytes don't decode to a value of this program's types."""


class StoreError(HoldfastError):
    """The database refused or failed."""


class StoreOpenError(StoreError):
    """The database was not opened. The file is exactly as it was."""


class NotHoldfastError(StoreOpenError):
    """The file isn't a Holdfast database."""


class StoreTooNewError(StoreOpenError):
    """The database needs a newer Holdfast than this one."""

    needs: int
    reads: int


class StoreMovedError(StoreOpenError):
    """Everything in the database was moved to another one; two at work would repeat effects."""


class UnsafeSqliteError(StoreOpenError):
    """This SQLite library has a bug that can corrupt a database with several connections."""


class ReadOnlyStoreError(StoreOpenError):
    """The database or its directory can't be written."""


class StoreUnavailableError(StoreError):
    """The database didn't answer in time. What was acknowledged is safe; this call was not."""


class StoreFullError(StoreError):
    """No room is left on the device. What was acknowledged is safe; this call was not."""


class StoreCorruptError(StoreError):
    """The database is damaged. Stop the workers and restore it, or run `holdfast doctor`."""


class LeaseError(HoldfastError):
    """Something about commit authority."""


class LeaseLostError(LeaseError):
    """Another worker has commit authority now. Nothing of this write was kept."""

    task_id: str
    item_id: str
    token: int


class LeaseHeldError(LeaseError):
    """Somebody else holds the lease; wait for it, or stop its holder."""

    holder: str


class JournalError(HoldfastError):
    """The journal of a work item refused a call."""


class KeyReusedError(JournalError):
    """One key was used for two different calls."""


class ConcurrentCallError(JournalError):
    """Identical `once` calls ran at the same time without a key to tell them apart."""


class BranchesRunningError(JournalError):
    """A checkpoint was asked for while a sibling branch of the same item is running."""


class RestoreOrderError(JournalError):
    """`restore` was not the first call, or is needed and was not called."""


class ChainBrokenError(JournalError):
    """The hash chain of a journal doesn't match its entries: it was altered outside Holdfast."""


class CallError(HoldfastError):
    """A call made through the context failed."""


class CallFailedError(CallError):
    """A call failed with an exception of a type that a replay can't rebuild.

    It is raised the first time too, from the original, so that both times look alike. Name the
    type in `@tool(raises=…)` to have the original type both times. `error_type` is its name.
    """

    error_type: str


class CallTimeoutError(CallError):
    """A call took longer than its time limit. `seconds` is the limit."""

    seconds: float


class InDoubtError(CallError):
    """A `once` call was started and its outcome isn't known. `entry` names it for `resolve`."""

    entry: str


class ApprovalError(CallError):
    """A person's consent is missing. Nothing was called; trying again by itself can't help."""


class ApprovalRejectedError(ApprovalError):
    """A person said no. `by` is who, `reason` what they said about it."""

    by: str
    reason: str | None


class ApprovalExpiredError(ApprovalError):
    """Nobody answered in time."""


class ApprovalNeededError(ApprovalError):
    """Nobody has answered yet, and nobody could wait. `entry` names it for `approve`."""

    entry: str


class RateLimitedError(CallError):
    """A provider takes no more calls for now. Raised by a function that is called through `ctx.llm`
    it makes the item wait and the call be made anew; see `Context.llm`.

    `retry_at` is the wall time, in seconds, from which it takes calls again, and `retry_after` says
    the same in seconds from now; None where it didn't say.
    """  # noqa: D205  one thought

    retry_at: float | None = None
    retry_after: float | None = None


class BudgetExhaustedError(CallError):
    """The task's budget doesn't allow a call, and nobody could wait for more. Nothing was sent."""


class ProviderUnavailableError(CallError):
    """A provider failed, or its answer broke off. Trying again may help.

    `status` is the HTTP status; None where there was no answer. `begun` says that part of a stream
    had arrived.
    """

    status: int | None = None
    begun: bool = False


class OutputRejectedError(CallError):
    """A model's answer isn't of the type that was asked for. Another answer may be."""


class GaveUpError(CallError):
    """The model of a mode says that what it was asked for can't be done. It isn't asked again.

    `mode` is the mode's name, and `reason` what the model said.
    """

    mode: str
    reason: str


class EvidenceError(HoldfastError):
    """Something about evidence."""


class EvidenceRejectedError(EvidenceError):
    """The evidence doesn't hold. `verdicts` says, claim by claim, what checking it gave."""

    verdicts: list[Any]


class EvidenceUnavailableError(EvidenceError):
    """This machine doesn't have the workspace that the evidence names."""

    workspace: str


class CheckpointNotFoundError(HoldfastError):
    """No such checkpoint, or none whose evidence holds."""


class TaskError(HoldfastError):
    """Something about a task. `task_id` names it."""

    task_id: str


class TaskNotFoundError(TaskError):
    """No task has that id or key."""


class TaskFailedError(TaskError):
    """The task ended as failed. `holdfast retry` runs what failed again.

    `item_id` is its first failed item, and `error_type` the name of what that raised in its last
    attempt; None where neither is known.
    """

    item_id: str | None
    error_type: str | None


class TaskCanceledError(TaskError):
    """The task was canceled."""


class TaskBlockedError(TaskError):
    """Nothing of the task can run until a person acts.

    `needs` lists what is needed, a line each; `entries` names the calls in doubt among it, as
    `resolve` takes them, and the approvals asked for, as `approve` does.
    """

    needs: list[str]
    entries: list[str]


class GoalNotReachedError(TaskError):
    """An agent's rounds are over, and its gates don't pass. `rounds` is how many there were."""

    rounds: int


class SecretUnavailableError(TaskError):
    """A secret was asked for that this process was never given; only its digest is stored."""


class NoEffect(Exception):  # noqa: N818  it says what did not happen; it is no failure of ours
    """Raised by a tool to say that it failed before it had any effect, so that it may run again."""

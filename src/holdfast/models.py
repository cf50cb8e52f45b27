"""What the store keeps and the layers pass to one another: frozen values, no I/O.

Records mirror a table's row: their fields stand in the order of its columns (a column that a later
migration appends is passed over by an older program). A field of type `bytes` that holds a payload
is in stored form (see `holdfast.store.payload`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from holdfast import errors
from holdfast.evidence import Evidence, EvidencePack
from holdfast.states import (
    ApprovalPolicy,
    CheckpointType,
    Effect,
    EntryKind,
    EntryStatus,
    ItemStatus,
    TaskStatus,
)

GENESIS = bytes(32)
"""The chain head of an empty journal."""

MAIN = "main"
"""The item that runs the task's own function; the last of every plan."""

PLAN = "plan"
"""The item that runs the planner, where there is one."""

SECONDS_PER_PRIORITY = 60.0
"""One point of priority is worth this much waiting: an old item of low priority is overtaken only
by items that became ready less than that later for each point they are ahead."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often a failed attempt is tried again, and when.

    The pause before attempt n+1 is drawn evenly from [pause/2, pause], where pause is
    `initial * factor**(n-1)`, at most `maximum` seconds ("equal jitter", AWS Architecture Blog,
    "Exponential Backoff And Jitter").
    """

    max_attempts: int = 3
    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 300.0

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures (1 or more)."""
        full = min(self.maximum, self.initial * self.factor ** min(failures - 1, 64))
        return full * random.uniform(0.5, 1.0)  # noqa: S311  spreads load; nothing secret


class ItemPolicy(msgspec.Struct, frozen=True):
    """How one work item is executed. `timeout` is in seconds for one attempt."""

    retry: RetryPolicy = RetryPolicy()
    timeout: float | None = None
    max_crashes: int = 3


class WorkItem(msgspec.Struct, frozen=True):
    """One item of a plan, as a planner returns it.

    Args:
        item_id: unique in its plan; letters, digits and `-_.:/` (no whitespace).
        handler: the function to run, or the name it is registered under.
        input: its arguments, by name.
        after: the items that must have succeeded before this one may run.
        evidence: what the item owes: it succeeds only when all of this verifies.
        priority: higher is claimed earlier; one point is worth a minute of waiting.
        queue: which workers may claim it; the task's own queue when None.
        policy: attempts, backoff and time limit; the handler's own when None.
    """

    item_id: str
    handler: str | Callable[..., Any]
    input: Mapping[str, Any] = {}
    after: Sequence[str] = ()
    evidence: Sequence[Evidence] | EvidencePack = ()
    priority: int = 0
    queue: str | None = None
    policy: ItemPolicy | None = None


NANOS = 1_000_000_000
"""Money is counted in billionths of a US dollar: whole numbers add up without loss."""


MOST_TOKENS = 2**53
MOST_COST = 1e9
"""What a budget limits at most, in tokens and US dollars: a database can count all of it."""


class Budget(msgspec.Struct, frozen=True):
    """What a task may spend on model calls, with everything below it: retries, children, resumes.

    Args:
        tokens: sent and received.
        cost: US dollars.
    """

    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        given = [each for each in (self.tokens, self.cost) if each is not None]
        if not given or not all(0 <= each < math.inf for each in given):
            message = f"{self} limits nothing. Give tokens, cost (US dollars) or both, 0 or more."
            raise errors.UsageError(message)
        if (self.tokens or 0) > MOST_TOKENS or (self.cost or 0) > MOST_COST:
            message = (
                f"{self} is too large to count: {MOST_TOKENS:,} tokens and {MOST_COST:,.0f} US "
                f"dollars are the most."
            )
            raise errors.UsageError(message)


def nanos_of(cost: float) -> int:
    """Return US dollars as billionths, rounded up: what is counted is never less than was paid."""
    return math.ceil(round(cost * NANOS, 3))


class BudgetRecord(msgspec.Struct, frozen=True, array_like=True):
    """A budget as it is recorded. What is reserved is part of what is spent."""

    task_id: str
    token_limit: int | None
    nano_limit: int | None
    tokens: int
    nanos: int
    reserved_tokens: int
    reserved_nanos: int

    def has(self, tokens: int, nanos: int) -> bool:
        """Say whether that much is left."""
        return (self.token_limit is None or self.tokens + tokens <= self.token_limit) and (
            self.nano_limit is None or self.nanos + nanos <= self.nano_limit
        )


class ApprovalRecord(msgspec.Struct, frozen=True, array_like=True):
    """What a person is asked, and what they said. Times are wall time in seconds."""

    task_id: str
    item_id: str
    seq: int
    name: str
    scope: str
    digest: bytes
    """Of the exact arguments, which stand in the journal entry."""
    text: str
    status: str
    """`waiting`, `approved`, `rejected`, `expired` or `used`."""
    requested_at: float
    expires_at: float | None
    decided_at: float | None
    decided_by: str | None
    reason: str | None

    @property
    def entry(self) -> str:
        """The name people and the command line use."""
        return f"{self.task_id}:{self.item_id}:{self.seq}"


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A task as it is recorded. `budget` is there below a root task that has one, too."""

    task_id: str
    root_id: str
    parent_id: str | None
    parent_item: str | None
    name: str
    key: str | None
    input: bytes
    status: TaskStatus
    queue: str
    priority: int
    workspace: str | None
    workspace_id: str | None
    require_evidence: bool
    budget: bytes | None
    result: bytes | None
    error: str | None
    forked_from: str | None
    verifying: str | None
    created_at: float
    updated_at: float
    finished_at: float | None
    approvals: ApprovalPolicy = ApprovalPolicy.AUTONOMOUS
    """Which calls need an approval without asking for one."""


class ItemRecord(msgspec.Struct, frozen=True, array_like=True):
    """A work item as it is recorded."""

    task_id: str
    item_id: str
    root_id: str
    position: int
    handler: str
    input: bytes
    status: ItemStatus
    queue: str
    priority: int
    claim_order: float
    remaining: int
    policy: bytes
    max_crashes: int
    owes: bytes | None
    attempts: int
    failures: int
    crashes: int
    alone: bool
    generation: int
    must_run: bool
    lease_owner: str | None
    lease_token: int
    claimed_seq: int
    wait: str | None
    wake_at: float | None
    cancel: bool
    seq: int
    chain_head: bytes
    pruned_seq: int
    restores: bool
    result: bytes | None
    result_hash: bytes | None
    proven: bool
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was ever recorded of it: no entry, and so no checkpoint and no claim."""
        return not self.seq and self.result_hash is None


class Lease(msgspec.Struct, frozen=True):
    """Commit authority over one work item: revocable, and proven by its token at every write."""

    task_id: str
    item_id: str
    token: int
    owner: str


class Claimed(msgspec.Struct, frozen=True):
    """What a worker gets with a lease.

    Args:
        lease: the commit authority.
        item: the item as it was claimed.
        task: its task.
        after_claims: whether an item directly before it claims anything of the world.
    """

    lease: Lease
    item: ItemRecord
    task: Task
    after_claims: bool = True


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One row of the journal."""

    seq: int
    kind: EntryKind
    name: str
    scope: str
    identity: bytes
    status: EntryStatus
    effect: Effect | None
    ref: int | None
    keyed: bool
    attempt: int
    at: float
    micros: int
    request: bytes | None
    outcome: bytes | None
    usage: bytes | None
    chain: bytes


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """A state snapshot with its evidence, as it is recorded."""

    task_id: str
    item_id: str
    number: int
    type: CheckpointType
    state: bytes
    pack: bytes
    verdicts: bytes
    status: str
    journal_seq: int
    anchor: bytes
    generation: int
    created_at: float
    verified_at: float | None
    seconds: float

    @property
    def checkpoint_id(self) -> str:
        """The name people and the command line use."""
        return f"{self.task_id}:{self.item_id}:{self.number}"


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """The newest claim about one subject of a task."""

    subject: str
    item_id: str
    number: int
    evidence: bytes
    verdict: bytes
    checked_at: float


class WorkerRecord(msgspec.Struct, frozen=True, array_like=True):
    """A worker process as it is recorded. Times are wall time, for people."""

    worker_id: str
    slot: int
    host: str
    pid: int
    version: str
    lease: float
    renewals: int
    status: str
    started_at: float
    seen_at: float
    process: str = ""
    """Which process of its machine it is, where others can see that."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One line of a task's timeline. `data` is JSON, redacted before it was stored."""

    event_id: str
    item_id: str | None
    type: str
    at: float
    data: str

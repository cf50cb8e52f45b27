"""One suite for every store: `world` is an open store of each engine in turn, with helpers.

`HOLDFAST_TEST_PG_URL` names a further server to run it on.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from support.schemas import drop_schema, empty_schema, new_schema

from holdfast.ids import new_id
from holdfast.models import (
    MAIN,
    PLAN,
    Checkpoint,
    Claim,
    Claimed,
    Entry,
    ItemRecord,
    Lease,
    WorkerRecord,
)
from holdfast.states import (
    ITEM_TRANSITIONS,
    TASK_TRANSITIONS,
    CheckpointType,
    Effect,
    EntryKind,
    EntryStatus,
    ItemStatus,
)
from holdfast.store import Store, open_store, verbs
from holdfast.store.payload import Payload, encode_payload
from holdfast.store.verbs import Append, ClaimFilter, Finish, NewItem, NewTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.store.verb import Verb

VARIABLE = "HOLDFAST_TEST_PG_URL"
GIVEN = "postgres-given"
ENGINES = ("sqlite", "postgres-18", "postgres-16", *([GIVEN] if os.environ.get(VARIABLE) else []))
EMPTY = encode_payload({})
START = 1_800_000_000.0


class World:
    """A store, its own time, and a check that every status change is one the tables allow."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = open_store(url)
        self.now = START
        self._opened = [self.store]

    # -- running verbs ---------------------------------------------------------------------------

    def do(self, verb: Verb[Any], store: Store | None = None) -> Any:
        before = self.statuses()
        try:
            return (store or self.store).commit(verb).wait()
        finally:
            check_transitions(verb.name, before, self.statuses())

    def read(self, verb: Verb[Any]) -> Any:
        return self.store.read(verb)

    def other(self) -> Store:
        """Open the same database a second time."""
        self._opened.append(open_store(self.url))
        return self._opened[-1]

    def close(self) -> None:
        for store in self._opened:
            store.close()

    def statuses(self) -> tuple[dict[Any, Any], dict[Any, Any]]:
        tasks = self.read(verbs.list_tasks(None, 1000))
        items = {
            (item.task_id, item.item_id): item.status
            for task in tasks
            for item in self.read(verbs.list_items(task.task_id))
        }
        return items, {task.task_id: task.status for task in tasks}

    def contents(self) -> dict[str, list[Any]]:
        """Return everything of the tasks but their timeline."""
        found: dict[str, list[Any]] = {}
        for task in self.read(verbs.list_tasks(None, 1000)):
            name = task.task_id
            items = self.read(verbs.list_items(name))
            found[name] = [
                task,
                items,
                self.read(verbs.list_checkpoints(name)),
                self.read(verbs.list_claims(name)),
                [self.read(verbs.read_journal(name, item.item_id)) for item in items],
                self.read(verbs.peek_signal(name, "go")),
                self.read(verbs.get_budget(name)),
                [self.read(verbs.get_approval(name, MAIN, seq)) for seq in range(6)],
            ]
        return found

    # -- workers ---------------------------------------------------------------------------------

    def worker(self, store: Store | None = None) -> str:
        slot = self.read(verbs.next_slot())
        name = new_id(self.now)
        at = self.now
        record = WorkerRecord(name, slot, "host", os.getpid(), "0", 30.0, 0, "alive", at, at)
        assert self.do(verbs.register_worker(record), store)
        return name

    def let_lease_run_out(self, worker: str) -> None:
        """Make the server's clock, where it is the one to judge, find a lease overdue."""
        if self.url.startswith("postgres"):
            self.sql("UPDATE {}.workers SET expires_at = now() WHERE worker_id = %s", worker)

    def sql(self, statement: str, *params: Any) -> None:
        """Run a statement of the test's own on PostgreSQL; `{}` stands for the schema."""
        server, _, schema = self.url.partition("?schema=")
        with psycopg.connect(server) as connection:
            connection.execute(statement.format(schema), params)

    def claim(self, worker: str, limit: int = 10, store: Store | None = None, **wanted: Any) -> Any:
        found = {"handlers": ("work",), "queues": ("default",)} | wanted
        filter_ = ClaimFilter(**found)
        return self.do(verbs.claim_work_items(worker, filter_, limit, self.now), store)

    def claim_one(self, worker: str | None = None, **wanted: Any) -> Claimed:
        (claimed,) = self.claim(worker or self.worker(), 1, **wanted)
        return claimed

    # -- tasks -----------------------------------------------------------------------------------

    def task(self, plan: dict[str, Sequence[str]] | None = None, **fields: Any) -> str:
        """Submit a task whose plan is given as item → the items it comes after."""
        items = tuple(
            self.item(name, after=tuple(after)) for name, after in (plan or {MAIN: ()}).items()
        )
        name = new_id(self.now)
        self.do(verbs.create_task(NewTask(name, "work", EMPTY, items, **fields), self.now))
        return name

    def planned_task(self) -> str:
        return self.task({PLAN: (), MAIN: (PLAN,)})

    def item(self, name: str, **fields: Any) -> NewItem:
        defaults: dict[str, Any] = {"queue": "default", "priority": 0, "max_crashes": 3}
        defaults |= {"handler": "work", "input": EMPTY, "policy": b""}
        return NewItem(name, **(defaults | fields))

    def get(self, task_id: str, item_id: str = MAIN) -> ItemRecord:
        return self.read(verbs.get_item(task_id, item_id))

    def status(self, task_id: str, item_id: str = MAIN) -> ItemStatus:
        return self.get(task_id, item_id).status

    def task_status(self, task_id: str) -> str:
        return self.read(verbs.get_task(task_id)).status

    def events(self, task_id: str) -> list[str]:
        return [event.type for event in self.read(verbs.list_events(task_id))]

    # -- under a lease ---------------------------------------------------------------------------

    def append(self, lease: Lease, *entries: dict[str, Any]) -> Append:
        """Return entries placed behind the item's journal; none of them: a bare fence."""
        return self.append_to(self.get(lease.task_id, lease.item_id), *entries)

    def append_to(self, item: ItemRecord, *entries: dict[str, Any]) -> Append:
        """Return entries placed behind what an item's record says is its journal's end."""
        return _append_to(item, *entries)

    def record(self, lease: Lease, *entries: dict[str, Any]) -> None:
        append = self.append(lease, *(entries or ({},)))
        self.do(verbs.append_entries(lease, append, self.now))

    def finish(self, lease: Lease, result: object = "r", *, changed: bool = True) -> None:
        self.do(self.finishing(lease, result, changed=changed))

    def finishing(self, lease: Lease, result: object = "r", *, changed: bool = True) -> Verb[Any]:
        payload = encode_payload(result)
        digest = hashlib.sha256(payload.column).digest()
        finish = Finish(payload, digest, changed, proven=False)
        return verbs.finish_work_item(lease, self.append(lease), finish, self.now)

    def run_one(self, worker: str, **finish: Any) -> str:
        """Claim the next item, finish it, and return its id."""
        claimed = self.claim_one(worker)
        self.finish(claimed.lease, **finish)
        return claimed.lease.item_id

    def fail(self, lease: Lease, retry_at: float | None = None) -> None:
        append = self.append(lease)
        self.do(verbs.fail_attempt(lease, append, "it broke", retry_at, self.now))

    def checkpoint(self, lease: Lease, number: int, **fields: Any) -> Checkpoint:
        item = self.get(lease.task_id, lease.item_id)
        values: dict[str, Any] = {
            "type": CheckpointType.MANUAL,
            "state": EMPTY.column,
            "pack": b"",
            "verdicts": b"",
            "status": "verified",
            "journal_seq": item.seq,
            "anchor": item.chain_head,
            "generation": 0,
            "created_at": self.now,
            "verified_at": self.now,
            "seconds": 0.0,
        }
        return Checkpoint(lease.task_id, lease.item_id, number, **(values | fields))

    def commit_checkpoint(
        self, lease: Lease, number: int, *subjects: str, state: Payload = EMPTY, **fields: Any
    ) -> None:
        append = self.append(lease, {"kind": EntryKind.CHECKPOINT})
        checkpoint = self.checkpoint(
            lease,
            number,
            journal_seq=append.after,
            anchor=append.head,
            state=state.column,
            **fields,
        )
        claims = [self.claim_about(lease, number, subject) for subject in subjects]
        self.do(verbs.commit_checkpoint(lease, append, checkpoint, claims, state, self.now))

    def claim_about(self, lease: Lease, number: int, subject: str) -> Claim:
        evidence = f"{lease.item_id}:{number}".encode()
        return Claim(subject, lease.item_id, number, evidence, b"verified", self.now)


def _append_to(item: ItemRecord, *entries: dict[str, Any]) -> Append:
    placed: list[Entry] = []
    head = item.chain_head
    for number, fields in enumerate(entries, item.seq + 1):
        head = hashlib.sha256(head + str((number, sorted(fields))).encode()).digest()
        values: dict[str, Any] = {
            "kind": EntryKind.STEP,
            "name": "step",
            "scope": "",
            "identity": b"identity",
            "status": EntryStatus.DONE,
            "effect": Effect.IDEMPOTENT,
            "ref": None,
            "keyed": False,
            "attempt": item.attempts,
            "at": START,
            "micros": 1,
            "request": None,
            "outcome": None,
            "usage": None,
        }
        placed.append(Entry(seq=number, chain=head, **(values | fields)))
    return Append(item.seq, tuple(placed), (), head)


_TWO_STEPS = {
    # A claim first wakes what is due.
    "claim_work_items": {(ItemStatus.WAITING, ItemStatus.RUNNING)},
    "claim_by_name": {(ItemStatus.WAITING, ItemStatus.RUNNING)},
}


def check_transitions(name: str, before: Any, after: Any) -> None:
    """Fail unless every status change is in the tables of `holdfast.states`."""
    for key, now in after[0].items():
        was = before[0].get(key, now)
        allowed = now in ITEM_TRANSITIONS[was] or (was, now) in _TWO_STEPS.get(name, set())
        assert now == was or allowed, f"{name} took item {key} from {was} to {now}"
    for key, now in after[1].items():
        was = before[1].get(key, now)
        assert now == was or now in TASK_TRANSITIONS[was], f"{name} took {key} from {was} to {now}"


@pytest.fixture(scope="session")
def postgres_schemas(postgres_servers) -> Iterator[Callable[[str], str]]:
    """Return a function that gives this test process's schema on an engine."""
    urls: dict[str, str] = {}

    def schema(engine: str) -> str:
        if engine not in urls:
            given = os.environ[VARIABLE] if engine == GIVEN else None
            urls[engine] = new_schema(given or postgres_servers(engine.partition("-")[2]).url)
        return urls[engine]

    yield schema
    for url in urls.values():
        drop_schema(url)


@pytest.fixture(params=ENGINES)
def url(request, tmp_path) -> Iterator[str]:
    """Return where an empty database of each engine is."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/holdfast.db"
        return
    schema = request.getfixturevalue("postgres_schemas")(request.param)
    yield schema
    empty_schema(schema)


@pytest.fixture
def world(url) -> Iterator[World]:
    opened = World(url)
    yield opened
    opened.close()

"""Claiming: what it costs, however many items are ready and whoever they are for."""

from __future__ import annotations

import time
from contextlib import ExitStack

import msgspec

from holdfast.bench.figures import Bench, Figure, figure, percentile
from holdfast.bench.restart import child, expect
from holdfast.bench.sites import Place, SqliteSite
from holdfast.liveness import Heartbeat
from holdfast.store import open_store, verbs
from holdfast.store.verbs import ClaimFilter

FEW = 1_000
MANY = 1_000_000
CLAIMS = 100
"""A round; the percentiles are of these."""

AIM = 3.0
"""Times that the 99th percentile with many may take of that with few."""

WORKERS = 4
CLAIMS_OF_WORKER = 500
"""Enough that the time they don't start at once doesn't matter."""


class Ready(msgspec.Struct, frozen=True):
    """Items to make ready, each of a task of its own.

    Args:
        name: with which their ids begin.
        count: how many.
        handler: SQL that gives the handler of the `i`-th.
        queue: SQL that gives its queue.
        order: where in the order of claims the first stands.
    """

    name: str
    count: int
    handler: str = "'work'"
    queue: str = "'default'"
    order: int = 0


def fill(bench: Bench, place: Place, ready: Ready) -> None:
    """Put items into a database, in a few statements."""
    bench.tell(f"making {ready.count:,} items ready")
    open_store(place.url).close()
    lite = isinstance(bench.site, SqliteSite)
    parts = {
        "schema": "" if lite else "holdfast.",
        "digest": "zeroblob(32)" if lite else "decode(repeat('00', 32), 'hex')",
        "task": f"'{ready.name}' || CAST(i AS TEXT)",
        **msgspec.structs.asdict(ready),
    }
    for statement in (_TASKS, _ITEMS):
        bench.site.run(statement.format(**parts), place)
    if not lite:
        bench.site.run("ANALYZE", place)


_NUMBERS = """
WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {count})
"""

_TASKS = f"""
INSERT INTO {{schema}}tasks (
    task_id, root_id, name, input, status, queue, priority, require_evidence, created_at, updated_at
)
{_NUMBERS}
SELECT {{task}}, {{task}}, 'work', {{digest}}, 'running', 'default', 0, 0, 1, 1 FROM numbers
"""  # noqa: S608  the parts are our own

_ITEMS = f"""
INSERT INTO {{schema}}work_items (
    task_id, item_id, root_id, position, handler, input, status, queue, priority, claim_order,
    remaining, policy, max_crashes, chain_head, created_at
)
{_NUMBERS}
SELECT {{task}}, 'main', {{task}}, 0, {{handler}}, {{digest}}, 'ready', {{queue}}, 0, {{order}} + i,
    0, {{digest}}, 3, {{digest}}, 1
FROM numbers
"""  # noqa: S608


def claim(url: str, wanted: ClaimFilter, count: int) -> list[float]:
    """Claim items one by one; return the milliseconds of each."""
    found: list[float] = []
    with open_store(url) as store:
        heartbeat = Heartbeat(store)
        heartbeat.start()
        # The first looks up what the others find in memory.
        store.commit(verbs.claim_work_items(heartbeat.worker_id, wanted, 1, store.now())).wait()
        for _ in range(count):
            verb = verbs.claim_work_items(heartbeat.worker_id, wanted, 1, store.now())
            started = time.perf_counter()
            claimed = store.commit(verb).wait()
            found.append((time.perf_counter() - started) * 1000)
            assert isinstance(claimed, list) and len(claimed) == 1  # noqa: PT018, S101
        heartbeat.stop()
    return found


def claim_together(place: Place, each: int) -> list[float]:
    """Let several processes claim at a time; return the milliseconds of each claim of them all."""
    found: list[float] = []
    with ExitStack() as workers:
        started = [workers.enter_context(child("claim", place, each)) for _ in range(WORKERS)]
        for lines in started:
            expect(lines, "imported")
        for lines in started:
            found += map(float, expect(lines, "claimed")[1:])
    return found


WANTED = ClaimFilter(("work", "other"), ("default",))
SPREAD = ClaimFilter(tuple(f"work{n}" for n in range(10)), tuple(f"queue{n}" for n in range(10)))


SPREAD_HANDLER = "'work' || (i % 10)"
SPREAD_QUEUE = "'queue' || (i / 10 % 10)"


def claims(bench: Bench) -> list[Figure]:
    """Measure claims with few and with many items ready, before and behind others."""
    few, many = FEW, bench.size(MANY)
    scenes = {
        "few": (f"a claim with {few:,} items ready", [Ready("a", few)]),
        "many": (f"… with {many:,}", [Ready("a", many)]),
        "behind": (
            f"… behind {many:,} whose handler isn't here",
            [Ready("a", many, handler="'elsewhere'"), Ready("b", few, order=many)],
        ),
        "spread few": (
            f"… with {few:,} in 10 queues of 10 handlers",
            [Ready("a", few, SPREAD_HANDLER, SPREAD_QUEUE)],
        ),
        "spread": (f"… with {many:,} there", [Ready("a", many, SPREAD_HANDLER, SPREAD_QUEUE)]),
        "together": (f"… with {many:,}, {WORKERS} processes at a time", [Ready("a", many)]),
    }
    places: dict[str, Place] = {}
    for name, (_, items) in scenes.items():
        places[name] = bench.place()
        for ready in items:
            fill(bench, places[name], ready)
    rounds: dict[str, list[list[float]]] = {name: [] for name in scenes}
    for _ in range(bench.rounds):
        for name, place in places.items():
            rounds[name].append(
                claim_together(place, bench.size(CLAIMS_OF_WORKER))
                if name == "together"
                else claim(place.url, SPREAD if name.startswith("spread") else WANTED, CLAIMS)
            )
    return [
        *(
            figure("claims", f"{text}, {name}", "ms", [percentile(r, part) for r in rounds[scene]])
            for scene, (text, _) in scenes.items()
            for name, part in (("p50", 0.5), ("p99", 0.99))
        ),
        *(
            figure("claims", f"p99 {what}", "x", _times(rounds[ours], rounds[base]), at_most=AIM)
            for what, ours, base in (
                (f"with {many:,} by that with {few:,}", "many", "few"),
                (f"behind {many:,} by that with {few:,}", "behind", "few"),
                ("in queues and handlers, many by few", "spread", "spread few"),
            )
        ),
    ]


def _times(ours: list[list[float]], base: list[list[float]]) -> list[float]:
    pairs = zip(ours, base, strict=True)
    return [percentile(mine, 0.99) / percentile(theirs, 0.99) for mine, theirs in pairs]

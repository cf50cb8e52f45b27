"""`sweep`, `prune` and `stats`."""

from __future__ import annotations

import math

import click
import msgspec

from holdfast import errors
from holdfast.cli.output import size, table
from holdfast.cli.plain import clean
from holdfast.cli.session import Session, command, database_path
from holdfast.store import Store, verbs
from holdfast.sweep import DAY, Pruned, RecoverySweep, Retention, prune


@command("sweep")
def sweep_command(session: Session) -> None:
    """Look once for dead workers and take back what they held.

    Every worker does this all the time; it is for when none runs. A worker that hangs, but whose
    process lives, is only taken for dead by a worker that has watched it for a whole lease.
    """
    with session.store() as store:
        taken = session.run(RecoverySweep(store).scan_and_recover())
    lines = [
        clean(f"{each.task_id}  {each.item_id}  is {each.status} again")
        + (f" ({each.crashes} crashes without progress)" if each.crashes else "")
        for each in taken
    ]
    document = {"taken_back": [msgspec.structs.asdict(each) for each in taken]}
    session.output.answer(document, lines or ["Nobody died holding anything."])


@command("prune")
@click.option(
    "--older-than",
    type=float,
    default=30.0,
    show_default=True,
    metavar="DAYS",
    help="How long ended tasks are kept.",
)
def prune_command(session: Session, older_than: float) -> None:  # fmt: skip
    """Remove ended tasks and what else nobody needs any more.

    An ended task goes with everything below it, once all of it has ended that long ago. Of
    unfinished tasks only the journal before old checkpoints is removed.
    """
    if not (math.isfinite(older_than) and older_than >= 0):
        message = f"--older-than takes days, 0 or more, not {older_than}."
        raise errors.UsageError(message)
    retention = Retention(tasks=older_than * DAY)
    with session.store() as store:
        total = session.run(_prune_all(session, store, retention))
    document = msgspec.structs.asdict(total)
    text = (
        f"Removed {total.tasks} tasks, {total.entries} journal entries, {total.cached} cached "
        f"outputs and {total.workers} records of workers."
    )
    session.output.answer(document, [text])


async def _prune_all(session: Session, store: Store, retention: Retention) -> Pruned:
    """Prune round by round until nothing more is to be removed."""
    total = Pruned()
    while True:
        done = await prune(store, retention)
        total = Pruned(
            total.tasks + done.tasks, total.entries + done.entries,
            total.cached + done.cached, total.workers + done.workers,
        )  # fmt: skip
        if done.tasks < retention.batch and not done.entries:
            return total
        session.output.note(f"{total.tasks} tasks removed so far")


_COUNTERS = (
    ("llm_replay.hits", "outputs replayed within tasks"),
    ("llm_replay.input_tokens_saved", "input tokens saved by replay"),
    ("llm_replay.output_tokens_saved", "output tokens saved by replay"),
    ("llm_replay.cost_saved", "US dollars saved by replay"),
    ("llm_cache.hits", "cache hits across tasks"),
    ("llm_cache.misses", "cache misses"),
    ("llm_cache.input_tokens_saved", "input tokens saved by the cache"),
    ("llm_cache.output_tokens_saved", "output tokens saved by the cache"),
    ("llm_cache.cost_saved", "US dollars saved by the cache"),
)


@command("stats")
def stats_command(session: Session) -> None:
    """Count what is there, and what replay and cache saved."""
    with session.store() as store:
        rows = store.read(verbs.count_rows())
        counters = store.read(verbs.read_counters())
    path = database_path(session.url)
    size_now = path.stat().st_size if path is not None and path.exists() else None
    counts = {name: counters.get(name, 0.0) for name, _ in _COUNTERS} | counters
    document = {"database": session.url, "bytes": size_now, "rows": rows, "counters": counts}
    meanings = dict(_COUNTERS)
    lines = table(("what", "rows"), [(name, f"{count:,}") for name, count in rows.items()])
    lines += ["", *table(("counter", "value", "meaning"), [
        (name, _number(name, value), meanings.get(name, "")) for name, value in counts.items()
    ])]  # fmt: skip
    if size_now is not None:
        lines.append(f"\nThe file has {size(size_now)}.")
    session.output.answer(document, lines)


def _number(name: str, value: float) -> str:
    return f"{value:,.4f}" if "cost" in name else f"{value:,.0f}"

"""Appends to many journals as one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.store.binary import array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.models import Lease
    from holdfast.store.verb import Rows
    from holdfast.store.verbs.shared import Append
    from holdfast.store.wire import Query

Appends = list[tuple["Lease", "Append"]]


def join(appends: Sequence[tuple[Lease, Append]]) -> Appends:
    """Join appends to one item, and sort by item so that no two batches wait for each other."""
    if len(appends) == 1:
        return [*appends]
    found: dict[tuple[str, str], tuple[Lease, Append]] = {}
    for lease, append in appends:
        key = (lease.task_id, lease.item_id)
        if key in found:
            first = found[key][1]
            append = msgspec.structs.replace(  # noqa: PLW2901  the two are one from here on
                append,
                before=first.before,
                entries=first.entries + append.entries,
                blobs=first.blobs + append.blobs,
            )
        found[key] = (lease, append)
    return [found[key] for key in sorted(found)]


def to_statement(queries: dict[str, Query], appends: Appends) -> tuple[Query, dict[str, Any]]:
    """Return the query that fences all these items and appends to them, and its parameters."""
    if len(appends) == 1 and len(appends[0][1].entries) == 1:
        ((lease, append),) = appends
        params = msgspec.structs.asdict(append.entries[0])
        params |= {"task_id": lease.task_id, "item_id": lease.item_id}
        params |= {"token": lease.token, "before": append.before}
        return queries["engine.append_one"], params
    heads = [
        (lease.task_id, lease.item_id, lease.token, append.before, append.after, append.head)
        for lease, append in appends
    ]
    entries = [
        (lease.task_id, lease.item_id, *msgspec.structs.astuple(entry))
        for lease, append in appends
        for entry in append.entries
    ]
    query = queries["engine.append"]
    values = [*zip(*heads, strict=True), *zip(*entries, strict=True)]
    columns = zip(query.columns, values, strict=True)
    return query, {name: array(column, kind) for (name, kind), column in columns}


def refused_of(appends: Appends, rows: Rows) -> set[tuple[str, str]]:
    """Return the items for which nothing was done; the statement gives a row for each other one."""
    if len(rows) == len(appends):
        return set()
    items = {(lease.task_id, lease.item_id) for lease, _ in appends}
    return items.difference((row[0], row[1]) for row in rows)

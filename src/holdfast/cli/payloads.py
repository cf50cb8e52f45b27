"""Stored values as people see them. A type that is unknown here is shown as such, no error."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from holdfast import codec, error_codec, errors
from holdfast.cli.output import short, size
from holdfast.cli.plain import one_line
from holdfast.models import Entry
from holdfast.states import EntryStatus
from holdfast.store import Store
from holdfast.store.payload import load_payload


class Opaque(NamedTuple):
    """A stored value that can't be shown, and why."""

    bytes: int
    reason: str


def load_value(store: Store, task_id: str, column: bytes | None) -> object:
    """Return a stored value, or `Opaque` where this program can't read it."""
    if column is None:
        return None
    try:
        data = load_payload(store, task_id, column)
    except (errors.DecodingError, errors.StoreError) as error:
        return Opaque(len(column), one_line(str(error)))
    try:
        return _decode(data)
    except errors.DecodingError as error:
        return Opaque(len(data), one_line(str(error)))


def _decode(data: bytes) -> object:
    try:
        return codec.decode(data)
    except errors.DecodingError:
        importlib.import_module("holdfast.agents.results")  # what agents record is known then
        return codec.decode(data)


def outcome_of(store: Store, task_id: str, entry: Entry) -> object:
    """Return what a journal entry recorded; a failure as its type and message."""
    value = load_value(store, task_id, entry.outcome)
    failed = entry.status in {EntryStatus.FAILED, EntryStatus.RELEASED}
    if not failed or not isinstance(value, bytes):
        return value
    try:
        error = error_codec.decode_error(value)
    except errors.DecodingError as damaged:
        return Opaque(len(value), one_line(str(damaged)))
    return f"{type(error).__name__}: {error}"


def preview(value: object, limit: int = 120) -> str:
    """Return a value on one short line."""
    if isinstance(value, Opaque):
        return f"<{size(value.bytes)} that can't be shown here>"
    return short(value, limit)

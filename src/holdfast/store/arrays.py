"""Arrays of values in the form that PostgreSQL reads without parsing."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HEAD = struct.Struct(">iiIii")
"""Dimensions, whether there are nulls, the type of an element, how many, and the first one's number
(`array_recv` in PostgreSQL's src/backend/utils/adt/arrayfuncs.c)."""

_SIZE = struct.Struct(">i")
_NULL = _SIZE.pack(-1)


class UnfitValue(Exception):  # noqa: N818  nothing was sent
    """A value that the server can't hold."""


def refuse_zero(value: str) -> None:
    """Refuse a text that the server can't hold.

    Raises:
        UnfitValue: there is a zero character in it.
    """
    if "\0" in value:
        raise UnfitValue(f"PostgreSQL's text can't hold the zero character: {value[:80]!r}")


def text(value: str) -> bytes:
    """Return a text as the server reads it.

    Raises:
        UnfitValue: there is a zero character in it.
    """
    refuse_zero(value)
    return value.encode("utf-8", "replace")


class _Kind(NamedTuple):
    """A type of elements: its object id in every PostgreSQL, and how one is written."""

    oid: int
    dump: Callable[[Any], bytes]


_KINDS = {
    "bytea": _Kind(17, bytes),
    "float8": _Kind(701, struct.Struct(">d").pack),
    "int8": _Kind(20, struct.Struct(">q").pack),
    "text": _Kind(25, text),
}


def array(values: Sequence[Any], kind: str) -> bytes:
    """Return an array of one type.

    Args:
        values: texts, numbers, bytes or None; at least one.
        kind: `text`, `int8`, `float8` or `bytea`.

    Raises:
        UnfitValue: one of them doesn't fit.
    """
    oid, dump = _KINDS[kind]
    many = len(values)
    if values.count(values[0]) == many:  # as in many columns
        elements = _elements(values[:1], dump) * many
    else:
        elements = _elements(values, dump)
    return _HEAD.pack(1, None in values, oid, many, 1) + elements


def _elements(values: Sequence[Any], dump: Callable[[Any], bytes]) -> bytes:
    parts: list[bytes] = []
    try:
        for value in values:
            if value is None:
                parts.append(_NULL)
            else:
                data = dump(value)
                parts += (_SIZE.pack(len(data)), data)
    except struct.error as error:
        raise UnfitValue(f"PostgreSQL has no room for a number: {error}") from error
    return b"".join(parts)

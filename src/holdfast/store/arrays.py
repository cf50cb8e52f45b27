"""Arrays of values in the form that PostgreSQL reads without parsing."""

from __future__ import annotations

import struct
from itertools import chain
from operator import methodcaller
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


class _Kind(NamedTuple):
    """A type of elements: its object id in every PostgreSQL, and how one is written."""

    oid: int
    dump: Callable[[Any], bytes]


_KINDS = {
    "bytea": _Kind(17, bytes),
    "float8": _Kind(701, struct.Struct(">d").pack),
    "int8": _Kind(20, struct.Struct(">q").pack),
    "text": _Kind(25, methodcaller("encode", "utf-8", "replace")),
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
    many, first = len(values), values[0]
    if values.count(first) == many:  # as in many columns
        elements = (_NULL if first is None else _element(_dumped(dump, [first])[0])) * many
        return _HEAD.pack(1, first is None, oid, many, 1) + elements
    if None in values:
        dumped = iter(_dumped(dump, [value for value in values if value is not None]))
        elements = b"".join(_NULL if each is None else _element(next(dumped)) for each in values)
        return _HEAD.pack(1, True, oid, many, 1) + elements  # noqa: FBT003  a flag of the format
    parts = _dumped(dump, values)
    sizes = map(_SIZE.pack, map(len, parts))
    elements = b"".join(chain.from_iterable(zip(sizes, parts, strict=True)))
    return _HEAD.pack(1, False, oid, many, 1) + elements  # noqa: FBT003  a flag of the format


def refuse_zero(value: str) -> None:
    """Refuse a text that the server can't hold.

    Raises:
        UnfitValue: there is a zero character in it.
    """
    if "\0" in value:
        raise UnfitValue(f"PostgreSQL's text can't hold the zero character: {value[:80]!r}")


def _dumped(dump: Callable[[Any], bytes], values: Sequence[Any]) -> list[bytes]:
    if isinstance(values[0], str):
        refuse_zero("".join(values))
    try:
        return list(map(dump, values))
    except struct.error as error:
        raise UnfitValue(f"PostgreSQL has no room for a number: {error}") from error


def _element(data: bytes) -> bytes:
    return _SIZE.pack(len(data)) + data

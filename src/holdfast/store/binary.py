"""Values in PostgreSQL's binary form, which neither side has to parse."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from psycopg import pq

    from holdfast.store.verb import Rows

_HEAD = struct.Struct(">iiIii")
"""Dimensions, whether there are nulls, the type of an element, how many, and the first one's number
(`array_recv` in PostgreSQL's src/backend/utils/adt/arrayfuncs.c)."""

_SIZE = struct.Struct(">i")
_NULL = _SIZE.pack(-1)


class UnfitValue(Exception):  # noqa: N818  nothing was sent
    """A value that the server can't hold."""


class Kind(NamedTuple):
    """A type of values: its object id in every PostgreSQL, and how one is written."""

    oid: int
    dump: Callable[[Any], bytes]


# -- to the server --------------------------------------------------------------------------------


def refuse_zero(value: str) -> None:
    """Refuse a text that the server can't hold.

    Raises:
        UnfitValue: there is a zero character in it.
    """
    if "\0" in value:
        raise UnfitValue(f"PostgreSQL's text can't hold the zero character: {value[:80]!r}")


def _text(value: str) -> bytes:
    refuse_zero(value)
    return value.encode("utf-8", "replace")


KINDS = {
    "bytea": Kind(17, bytes),
    "float8": Kind(701, struct.Struct(">d").pack),
    "int8": Kind(20, struct.Struct(">q").pack),
    "json": Kind(114, _text),
    "text": Kind(25, _text),
}
"""The kinds of parameters, by the name that a cast in SQL has."""


def dump(columns: Sequence[tuple[str, Kind]], params: Mapping[str, Any]) -> list[Any]:
    """Return the values of parameters in the order of the columns; bytes and None as they are.

    Raises:
        UnfitValue: one of them doesn't fit.
    """
    values: list[Any] = []
    try:
        for name, (_, write) in columns:
            value = params[name]
            values.append(value if value is None or isinstance(value, bytes) else write(value))
    except struct.error as error:
        raise _no_room(error) from error
    return values


def array(values: Sequence[Any], kind: Kind) -> bytes:
    """Return an array of one type.

    Args:
        values: texts, numbers, bytes or None; at least one.
        kind: of each.

    Raises:
        UnfitValue: one of them doesn't fit.
    """
    many = len(values)
    if values.count(values[0]) == many:  # as in many columns
        elements = _elements(values[:1], kind) * many
    else:
        elements = _elements(values, kind)
    return _HEAD.pack(1, None in values, kind.oid, many, 1) + elements


def _elements(values: Sequence[Any], kind: Kind) -> bytes:
    parts: list[bytes] = []
    try:
        for value in values:
            if value is None:
                parts.append(_NULL)
            else:
                data = kind.dump(value)
                parts += (_SIZE.pack(len(data)), data)
    except struct.error as error:
        raise _no_room(error) from error
    return b"".join(parts)


def _no_room(error: struct.error) -> UnfitValue:
    return UnfitValue(f"PostgreSQL has no room for a number: {error}")


# -- from the server ------------------------------------------------------------------------------


def load(result: pq.abc.PGresult) -> Rows:
    """Return the rows of an answer; without columns, an empty one for each that was touched."""
    if not result.nfields:
        return [()] * (result.command_tuples or 0)
    rows: Rows = []
    columns = range(result.nfields)
    loads = [_LOADS.get(result.ftype(column), bytes.decode) for column in columns]
    get = result.get_value
    for row in range(result.ntuples):
        cells: list[Any] = []
        for column in columns:
            cell = get(row, column)
            cells.append(cell if cell is None else loads[column](cell))
        rows.append(tuple(cells))
    return rows


def _to_int(data: bytes) -> int:
    return int.from_bytes(data, signed=True)


def _to_float(data: bytes) -> float:
    return struct.unpack("!d", data)[0]


_LOADS: dict[int, Callable[[bytes], Any]] = {
    16: lambda data: data == b"\1",  # boolean
    17: bytes,  # bytea
    20: _to_int,
    21: _to_int,
    23: _to_int,
    701: _to_float,  # double precision
}
"""How a value of each type, by its object id in every PostgreSQL, is read."""

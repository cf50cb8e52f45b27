"""Values and texts as they are printed: plain data, no credentials, no control characters."""

from __future__ import annotations

import base64
import dataclasses
import enum
import math
from typing import Any, cast

from holdfast.redaction import redact

_MOST_LEVELS = 120
_LARGEST_INT = 4000
"""Bits. Python refuses to write larger integers than about 14,000 in decimal."""


def clean(text: str, *, lines: bool = False) -> str:
    """Return text that is safe to print: redacted, and without what a terminal would obey.

    Args:
        text: anything.
        lines: keep line breaks and tabs.
    """
    kept = "\n\t" if lines else ""
    return "".join(
        char if char.isprintable() or char in kept else _escaped(char) for char in redact(text)
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def one_line(text: str) -> str:
    """Return the text on one line."""
    return "; ".join(part for line in text.splitlines() if (part := line.strip()))


def plain(value: object, levels: int = _MOST_LEVELS) -> Any:  # noqa: ANN401  any JSON value
    """Return the value as JSON can hold it, for people: types are lost, nothing fails."""
    if isinstance(value, enum.Enum):
        value = value.value
    match value:
        case None | bool():
            shown: object = value
        case int():
            shown = int(value) if value.bit_length() < _LARGEST_INT else hex(value)
        case float():
            shown = float(value) if math.isfinite(value) else str(value)
        case str():
            shown = str(value)
        case bytes() | bytearray():
            shown = base64.b64encode(value).decode()
        case _:
            shown = _plain_container(value, levels - 1) if levels else "…"
    return shown


def _plain_container(value: Any, levels: int) -> Any:  # noqa: ANN401
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value).items()
        return {_key(key, levels): plain(item, levels) for key, item in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, levels) for item in cast("list[object]", value)]
    fields = _fields(value)
    if fields is not None:
        return {name: plain(getattr(value, name, None), levels) for name in fields}
    isoformat = getattr(value, "isoformat", None)
    return str(isoformat() if callable(isoformat) else value)


def _key(key: object, levels: int) -> str:
    shown = plain(key, levels)
    return shown if isinstance(shown, str) else str(shown)


def _fields(value: object) -> list[str] | None:
    """Return the names of an object's fields: dataclass, msgspec structure or pydantic model."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value)]
    kind = type(value)
    for name in ("__struct_fields__", "model_fields"):
        found: Any = getattr(kind, name, None)
        if found is not None:
            return list(found)
    return None

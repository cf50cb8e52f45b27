"""One codec for everything that is stored: data only, typed, the same value back.

What `decode` returns equals what `encode` was given, type for type: a tuple comes back as a tuple,
an aware datetime with its zone, a dataclass as that dataclass. Decoding never imports anything and
never runs a constructor: a stored type name is looked up among the registered types (`registry`).

The format is MessagePack. Plain data (None, bool, int up to 64 bits, float, str, bytes, list, dict
with str keys) is ordinary MessagePack; every other type is an extension whose content is again
MessagePack. Codes and contents of extensions are never changed, only added to.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import hashlib
import math
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, TypeGuard, cast

import msgspec
from msgspec.msgpack import Decoder, Encoder, Ext

from holdfast.errors import (
    DecodingError,
    EncodingError,
)
from holdfast.registry import (
    can_register,
    describe,
    entry_for,
    entry_of,
    register_annotations,
    register_type,
)
from holdfast.secret import Secret

__all__ = [
    "MALFORMED",
    "MOST_LEVELS",
    "canonical",
    "damaged",
    "decode",
    "digest",
    "encode",
    "encode_with_digest",
    "register_annotations",
    "register_type",
]

MOST_LEVELS: Final = 100
"""How deep a value may be nested. It bounds the stack that reading it back takes."""

_CANONICAL_FORMAT: Final = b"holdfast:1:"

_Data = Any  # what MessagePack decodes to; whoever takes it apart finds out whether it fits


# --- values -------------------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """Return the value as bytes from which `decode` makes an equal value of the same types.

    Dicts keep their order. Objects are of the classes that were registered, exactly: an
    instance of a subclass, also of a built-in type, is refused rather than stored as its base.
    A `Secret` is stored as its keyed digest.

    Args:
        value: data, nested at most 100 levels.

    Raises:
        EncodingError: something in the value can't be kept; `path` says where it stands.
        UsageError: there is a `Secret` in it, and no key for its digest.
    """
    if _is_plain(value, MOST_LEVELS):
        try:
            return _encoder.encode(value)
        except (OverflowError, UnicodeEncodeError):
            pass  # an integer beyond 64 bits or a lone surrogate, which need an extension
    return _encoder.encode(_Writer(canonical=False).lower(value))


def decode(data: bytes) -> _Data:
    """Return the value that `encode` was given. Nothing is imported and no constructor runs.

    A field that a class has gained since gets its default; one that it has lost is passed over.

    Args:
        data: what `encode` returned.

    Raises:
        DecodingError: the bytes are damaged, were written by a newer Holdfast, or hold a type
            that this program hasn't registered.
    """
    try:
        return _decoder.decode(data)
    except MALFORMED as error:
        raise damaged(error) from error


def canonical(value: object) -> bytes:
    """Return bytes that are equal exactly if the values are equal in value and type.

    They are the same in every process and every release, so keys may be made of them. The order
    of dicts and sets doesn't count; everything else does: 1, 1.0, True and "1" all differ, as do
    a list and a tuple, NaN and None, naive and aware datetimes.

    Args:
        value: what `encode` accepts.

    Raises:
        EncodingError: as `encode`.
        UsageError: as `encode`.
    """
    if _is_flat(value):
        try:
            return _CANONICAL_FORMAT + _encoder.encode({key: value[key] for key in sorted(value)})
        except (OverflowError, UnicodeEncodeError):
            pass  # as in `encode`
    return _CANONICAL_FORMAT + _encoder.encode(_Writer(canonical=True).lower(value))


def digest(value: object) -> bytes:
    """Return the SHA-256 of a value's canonical bytes: 32 bytes that stand for the value.

    Args:
        value: what `encode` accepts.

    Raises:
        EncodingError: as `encode`.
        UsageError: as `encode`.
    """
    return hashlib.sha256(canonical(value)).digest()


def encode_with_digest(value: object) -> tuple[bytes, bytes]:
    """Return what `encode` and `digest` return, together; quicker for most arguments of calls.

    Args:
        value: what `encode` accepts.

    Raises:
        EncodingError: as `encode`.
        UsageError: as `encode`.
    """
    if _is_flat(value) and list(value) == sorted(value):
        try:
            data = _encoder.encode(value)
        except (OverflowError, UnicodeEncodeError):
            pass  # as in `encode`
        else:  # its keys are in order, so this is the canonical form, too
            return data, hashlib.sha256(_CANONICAL_FORMAT + data).digest()
    return encode(value), digest(value)


# --- taking values apart ------------------------------------------------------------------------

# The codes of the extensions. Stored data depends on them: never change one, never reuse one.
_BIG_INT: Final = 1
_TEXT: Final = 2
_TUPLE: Final = 3
_DICT: Final = 4
_SET: Final = 5
_FROZENSET: Final = 6
_BYTEARRAY: Final = 7
_COMPLEX: Final = 8
_RANGE: Final = 9
_DECIMAL: Final = 10
_UUID: Final = 11
_DATETIME: Final = 12
_DATE: Final = 13
_TIME: Final = 14
_TIMEDELTA: Final = 15
_PATH: Final = 16
_ENUM: Final = 17
_OBJECT: Final = 18
_SECRET: Final = 19

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_EXACT: Final = _SCALARS - {float}  # equal exactly if their encodings are; there are many NaNs
_MOST_STEPS: Final = 20  # of a place in a message; who nests deeper knows where
_INT_64: Final = range(-(2**63), 2**64)  # what MessagePack calls int64 and uint64
_PATHS: Final[dict[str, type[pathlib.PurePath]]] = {
    "path": type(pathlib.Path()),
    "posix": pathlib.PurePosixPath,
    "windows": pathlib.PureWindowsPath,
}
_PATH_KINDS: Final = {cls: kind for kind, cls in _PATHS.items()}


def _is_plain(value: object, levels: int) -> bool:
    """Say whether MessagePack has all the types in the value itself; quick, for most values."""
    kind = type(value)
    if kind is dict:
        members = cast("dict[object, object]", value)
        for key in members:
            if type(key) is not str:
                return False
        return levels > 0 and _are_plain(members.values(), levels - 1)
    if kind is list:
        return levels > 0 and _are_plain(cast("list[object]", value), levels - 1)
    return kind in _SCALARS


def _is_flat(value: object) -> TypeGuard[dict[str, object]]:
    """Say whether equal values encode alike but for the order of a dict; quick, for arguments."""
    if type(value) is not dict:
        return False
    for key, member in cast("dict[object, object]", value).items():
        if type(key) is not str or type(member) not in _EXACT:
            return False
    return True


def _are_plain(values: Iterable[object], levels: int) -> bool:
    for value in values:
        if type(value) not in _SCALARS and not _is_plain(value, levels):
            return False
    return True


class _Writer:
    """Turns one value into what MessagePack has types for, and knows where in it it is."""

    def __init__(self, *, canonical: bool) -> None:
        self.canonical = canonical
        self.path: list[object] = []

    def lower(self, value: object) -> _Data:
        """Return the value with every type that MessagePack lacks turned into an extension."""
        lower = _LOWER.get(type(value), _Writer.lower_object)
        return lower(self, value)

    def members(self, places: Iterable[object], values: Iterable[object]) -> list[_Data]:
        """Lower what a container holds; `places` say what stands where, for messages."""
        if len(self.path) >= MOST_LEVELS:
            raise EncodingError(
                f"The value is nested deeper than {MOST_LEVELS} levels at {self.where()}, or "
                "contains itself, so it can't be stored. Flatten it.",
                path=self.where(),
            )
        lowered: list[_Data] = []
        self.path.append(None)
        for place, value in zip(places, values, strict=True):
            self.path[-1] = place
            lowered.append(self.lower(value))
        self.path.pop()
        return lowered

    def where(self) -> str:
        """Return the present place, such as `$.items[3].when`."""
        steps = [_step(place) for place in self.path[:_MOST_STEPS]]
        return "".join(["$", *steps, "…" if len(self.path) > _MOST_STEPS else ""])

    def refuse(self, cls: type, remedy: str) -> NoReturn:
        """Raise the error for a value of a type that can't be kept."""
        raise EncodingError(
            f"A value of type {describe(cls)} at {self.where()} can't be stored: {remedy}.",
            path=self.where(),
        )

    def as_is(self, value: object) -> object:
        return value

    def lower_int(self, value: int) -> object:
        if value in _INT_64:
            return value
        return _ext(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))

    def lower_float(self, value: float) -> float:
        # There are many NaNs; as a key, each is the same.
        return math.nan if self.canonical and math.isnan(value) else value

    def lower_str(self, value: str) -> object:
        if _is_unicode(value):
            return value
        return _ext(_TEXT, value.encode("utf-8", "surrogatepass"))

    def lower_list(self, value: list[object]) -> list[_Data]:
        return self.members(range(len(value)), value)

    def lower_tuple(self, value: tuple[object, ...]) -> Ext:
        return _ext(_TUPLE, self.members(range(len(value)), value))

    def lower_dict(self, value: dict[_Data, object]) -> object:
        if not all(type(key) is str and _is_unicode(key) for key in value):
            return self.lower_odd_dict(value)
        lowered = dict(zip(value, self.members(value, value.values()), strict=True))
        return dict(sorted(lowered.items(), key=_first)) if self.canonical else lowered

    def lower_odd_dict(self, value: dict[object, object]) -> Ext:
        keys = self.members(value, value)
        pairs = list(zip(keys, self.members(value, value.values()), strict=True))
        if self.canonical:
            pairs.sort(key=lambda pair: _encoder.encode(pair[0]))
        return _ext(_DICT, [part for pair in pairs for part in pair])

    def lower_set(self, value: set[object] | frozenset[object]) -> Ext:
        # Sorted always: one set has one encoding, whatever the hash seed of the process.
        members = sorted(self.members(value, value), key=_encoder.encode)
        return _ext(_SET if type(value) is set else _FROZENSET, members)

    def lower_datetime(self, value: dt.datetime) -> Ext:
        fields = [value.year, value.month, value.day, value.hour, value.minute, value.second]
        return _ext(_DATETIME, [*fields, value.microsecond, value.fold, self.zone(value.tzinfo)])

    def lower_time(self, value: dt.time) -> Ext:
        fields = [value.hour, value.minute, value.second, value.microsecond, value.fold]
        return _ext(_TIME, [*fields, self.zone(value.tzinfo)])

    def zone(self, zone: dt.tzinfo | None) -> list[object] | None:
        """Return a time zone by its key or its offset; code of other zone classes isn't data."""
        if zone is None:
            return None
        cls = type(zone)
        if cls is dt.timezone:
            offset, *name = cast("_Data", zone).__getinitargs__()
            return ["fixed", offset // dt.timedelta(microseconds=1), *name]
        if cls is _loaded("pydantic_core", "TzInfo"):
            return ["pydantic", cast("_Data", zone).utcoffset(None) // dt.timedelta(seconds=1)]
        key: str | None = getattr(zone, "key", None)
        if cls is not _loaded("zoneinfo", "ZoneInfo") or key is None:
            self.refuse(cls, "use datetime.timezone, or zoneinfo.ZoneInfo with a key")
        return ["key", key]

    def lower_path(self, value: pathlib.PurePath) -> Ext:
        return _ext(_PATH, [_PATH_KINDS[type(value)], self.lower_str(str(value))])

    def lower_enum(self, value: enum.Enum) -> Ext:
        cls = type(value)
        tag = self.tag(cls)
        if value.name in cls.__members__:
            return _ext(_ENUM, [tag, value.name])
        names = [str(member.name) for member in cast("Iterable[enum.Flag]", value)]
        if _flags(cls, names) is not value:
            self.refuse(cls, "it has bits that no member of the flag names")
        return _ext(_ENUM, [tag, names])

    def lower_object(self, value: object) -> Ext:
        """Lower an instance of a class of the program's, or refuse it."""
        if isinstance(value, enum.Enum):
            return self.lower_enum(value)
        cls = type(value)
        tag = self.tag(cls)
        shape = cast("_Data", entry_of(cls)).shape
        if shape is None:
            self.refuse(cls, "an exception is no value; store its message")
        try:
            fields, more = shape.take(value)
        except AttributeError as error:
            self.refuse(cls, f"a field of it was never set ({error})")
        content: list[object] = [tag, self.lower_dict(fields)]
        if more:
            content.append(self.lower_dict(more))
        return _ext(_OBJECT, content)

    def tag(self, cls: type) -> str:
        """Return the tag of a registered class, or refuse its value."""
        entry = entry_of(cls)
        if entry is not None:
            return entry.tag
        if can_register(cls):
            self.refuse(
                cls,
                "Holdfast doesn't know the type. Annotate the function that takes or returns it, "
                f"or call holdfast.register_type({cls.__name__})",
            )
        base = next((base for base in cls.__mro__[1:] if base in _LOWER), None)
        if base is not None:
            self.refuse(cls, f"it would come back as a {base.__name__}. Convert it to one first")
        remedy = (
            "it can't be rebuilt from data alone. Use plain data, a dataclass, a NamedTuple, "
            "an Enum, a msgspec.Struct or a pydantic model"
        )
        return self.refuse(cls, remedy)


def _ext(code: int, content: object) -> Ext:
    return Ext(code, _encoder.encode(content))


def _first(pair: tuple[str, object]) -> str:
    return pair[0]


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _step(place: object) -> str:
    if type(place) is str:
        return f".{place}" if place.isidentifier() else f"[{place!r}]"
    # The repr of anything else is the program's code, and may be long.
    return f"[{place}]" if type(place) is int else f"[{type(place).__name__}]"


def _loaded(module: str, name: str) -> _Data:
    """Return something of a module that the program may have imported; else a class of no value."""
    return getattr(sys.modules.get(module), name, NoReturn)


_LOWER: Final[dict[type, Callable[[_Writer, Any], object]]] = {
    type(None): _Writer.as_is,
    bool: _Writer.as_is,
    bytes: _Writer.as_is,
    int: _Writer.lower_int,
    float: _Writer.lower_float,
    str: _Writer.lower_str,
    list: _Writer.lower_list,
    tuple: _Writer.lower_tuple,
    dict: _Writer.lower_dict,
    set: _Writer.lower_set,
    frozenset: _Writer.lower_set,
    dt.datetime: _Writer.lower_datetime,
    dt.time: _Writer.lower_time,
    dt.date: lambda _, day: _ext(_DATE, [day.year, day.month, day.day]),
    dt.timedelta: lambda _, span: _ext(_TIMEDELTA, [span.days, span.seconds, span.microseconds]),
    bytearray: lambda _, array: _ext(_BYTEARRAY, bytes(array)),
    complex: lambda writer, number: _ext(
        _COMPLEX, [writer.lower_float(number.real), writer.lower_float(number.imag)]
    ),
    range: lambda writer, span: _ext(
        _RANGE, [writer.lower_int(part) for part in (span.start, span.stop, span.step)]
    ),
    decimal.Decimal: lambda _, number: _ext(_DECIMAL, str(number)),
    uuid.UUID: lambda _, number: _ext(_UUID, number.bytes),
    **dict.fromkeys(_PATH_KINDS, _Writer.lower_path),
    Secret: lambda _, secret: _ext(_SECRET, secret.digest),
}


# --- putting values together --------------------------------------------------------------------


def _rebuild(code: int, data: memoryview) -> object:
    rebuild = _REBUILD.get(code)
    if rebuild is None:
        raise DecodingError(
            f"The stored value has a part of the unknown kind {code}: it was written by a newer "
            "Holdfast, or is damaged. Upgrade Holdfast."
        )
    return rebuild(_decoder.decode(data))


def _rebuild_datetime(content: _Data) -> dt.datetime:
    *fields, fold, zone = content
    return dt.datetime(*fields, fold=fold, tzinfo=_zone(zone))


def _rebuild_time(content: _Data) -> dt.time:
    *fields, fold, zone = content
    return dt.time(*fields, fold=fold, tzinfo=_zone(zone))


def _zone(content: _Data) -> dt.tzinfo | None:
    match content:
        case None:
            return None
        case ["fixed", offset, *name]:
            return dt.timezone(dt.timedelta(microseconds=offset), *name)
        case ["pydantic", offset]:
            pydantic_zone = _loaded("pydantic_core", "TzInfo")
            if pydantic_zone is not NoReturn:
                return pydantic_zone(offset)
            return dt.timezone(dt.timedelta(seconds=offset))
        case ["key", key]:
            return _zone_by_key(key)
        case _:
            raise ValueError(f"{content!r} is no time zone")


def _zone_by_key(key: str) -> dt.tzinfo:
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(key)
    except zoneinfo.ZoneInfoNotFoundError as error:
        raise DecodingError(
            f"This machine doesn't know the time zone {key!r} of a stored value. Install the "
            "tzdata package."
        ) from error


def _rebuild_enum(content: _Data) -> object:
    tag, name = content
    cls: _Data = _registered(tag)
    if not issubclass(cls, enum.Enum):
        raise TypeError(f"{tag} is no enum")
    is_combined = type(name) is list
    names = cast("list[str]", name if is_combined else [name])
    for each in names:
        if each not in cls.__members__:
            raise DecodingError(
                f"{describe(cls)} has no member {each!r}, which a stored value is. Give the "
                "member its name back, or add an alias of that name."
            )
    return _flags(cls, names) if is_combined else cls.__members__[names[0]]


def _flags(cls: _Data, names: list[str]) -> object:
    bits = 0
    for name in names:
        bits |= cls.__members__[name].value
    return cls(bits)


def _rebuild_object(content: _Data) -> object:
    tag, fields, *more = content
    cls = _registered(tag)
    shape = cast("_Data", entry_for(tag)).shape
    if shape is None:
        raise TypeError(f"{tag} has no fields")
    return shape.build(cls, fields, *(more or [{}]))


def _registered(tag: _Data) -> type:
    entry = entry_for(tag)
    if entry is None:
        raise DecodingError(
            f"The stored value has the type {tag!r}, which this program hasn't registered. "
            "Annotate a function that takes or returns it, or call holdfast.register_type on the "
            "class; if it was moved or renamed, with name= and this name."
        )
    return entry.cls


_REBUILD: Final[dict[int, Callable[[Any], object]]] = {
    _BIG_INT: lambda content: int.from_bytes(content, "big", signed=True),
    _TEXT: lambda content: content.decode("utf-8", "surrogatepass"),
    _TUPLE: tuple,
    _DICT: lambda content: dict(zip(content[::2], content[1::2], strict=True)),
    _SET: set,
    _FROZENSET: frozenset,
    _BYTEARRAY: lambda content: bytearray(memoryview(content)),
    _COMPLEX: lambda content: complex(*content),
    _RANGE: lambda content: range(*content),
    _DECIMAL: decimal.Decimal,
    _UUID: lambda content: uuid.UUID(bytes=content),
    _DATETIME: _rebuild_datetime,
    _DATE: lambda content: dt.date(*content),
    _TIME: _rebuild_time,
    _TIMEDELTA: lambda content: dt.timedelta(*content),
    _PATH: lambda content: _PATHS[content[0]](content[1]),
    _ENUM: _rebuild_enum,
    _OBJECT: _rebuild_object,
    _SECRET: Secret.from_digest,
}

_encoder: Final = Encoder()
_decoder: Final = Decoder(ext_hook=_rebuild)

# What damaged bytes make the decoder and the functions above raise.
MALFORMED: Final = (
    msgspec.MsgspecError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


def damaged(error: Exception) -> DecodingError:
    """Return the error for stored bytes that make no sense."""
    return DecodingError(
        f"The stored value can't be read: {type(error).__name__}: {error}. It is damaged, or was "
        "altered outside Holdfast; `holdfast doctor` says how far that goes."
    )

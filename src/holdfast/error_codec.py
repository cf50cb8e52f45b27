"""Exceptions as data: a recorded failure is raised again as it was the first time.

What comes back is an exception of the same type only where that is safe: built-in ones, Holdfast's
own, and registered ones. No constructor of the program's runs.
"""

from __future__ import annotations

import builtins
from typing import Any, TypeGuard, cast

from holdfast.codec import MALFORMED, damaged, decode, encode
from holdfast.errors import CallFailedError, EncodingError, HoldfastError, NoEffect
from holdfast.registry import default_tag, entry_for, entry_of, register_type

_Data = Any  # what a record holds; whoever takes it apart finds out whether it fits


def encode_error(exc: BaseException) -> bytes:
    """Return a failure as bytes from which `decode_error` makes the failure `as_recorded` shows.

    The type, the message, the arguments and the notes are kept, and those attributes that are
    data. Causes and tracebacks are not. This never fails because of what the exception holds.

    Args:
        exc: any exception, exception groups included.
    """
    return encode(_record_of(exc))


def decode_error(data: bytes) -> BaseException:
    """Return the recorded failure, to be raised again.

    Its type is the original one if that is a built-in exception, one of Holdfast's own or a
    registered one, and a `CallFailedError` otherwise. No constructor of the program's runs.

    Args:
        data: what `encode_error` returned.

    Raises:
        DecodingError: the bytes hold no recorded failure.
    """
    record = decode(data)
    try:
        return _failure(record)
    except MALFORMED as error:
        raise damaged(error) from error


def is_rebuildable(exc_type: type[BaseException]) -> bool:
    """Say whether a replay may raise this type: built in, Holdfast's own, or registered.

    Args:
        exc_type: the exception type.
    """
    return _error_class(_error_tag(exc_type)) is exc_type


def as_recorded(exc: BaseException) -> BaseException:
    """Return what a replay of this failure will raise, so that the first time looks alike.

    Args:
        exc: the exception that was caught.

    Returns:
        The exception itself if a replay can rebuild it. Otherwise a `CallFailedError` with the
        same message, and the exception as its cause; in an exception group, member by member.
    """
    shown = _group_as_recorded(exc) if _is_group(exc) else exc
    if "args" in _record_of(shown):
        return shown
    failed = _call_failed(_message(exc), _error_tag(type(exc)))
    failed.__cause__ = exc
    return failed


def _record_of(exc: BaseException) -> dict[str, _Data]:
    """Return a failure as data; without `args` if a replay couldn't raise the same one."""
    record: dict[str, _Data] = {"type": _error_tag(type(exc)), "message": _message(exc)}
    if not is_rebuildable(type(exc)):
        return record
    whole = record | {"attributes": _attributes(exc)}
    if _is_group(exc):
        whole |= {"args": (exc.message,), "members": [encode_error(e) for e in exc.exceptions]}
    else:
        whole["args"] = _arguments(exc)
    try:
        encode(whole)
        built = _failure(whole)
    except (EncodingError, *MALFORMED):
        return record
    return whole if _look_alike(built, exc) else record


def _failure(record: _Data) -> BaseException:
    """Rebuild a failure from its record without running a constructor of the program's."""
    tag, message = record["type"], record["message"]
    cls = _error_class(tag)
    if cls is None or "args" not in record:
        return _call_failed(message, tag)
    args = record["args"]
    if "members" in record:
        args = (*args, [decode_error(member) for member in record["members"]])
    # Which built-in class lays the object out: its constructor is safe, and enough.
    base: _Data = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    built = base.__new__(cls, *args)
    base.__init__(built, *args)
    attributes = record["attributes"]
    if isinstance(built, HoldfastError):
        vars(built).update(attributes["facts"])
    vars(built).update(attributes)
    return built


def _call_failed(message: str, tag: str) -> CallFailedError:
    return CallFailedError(message, error_type=tag.replace(":", "."))


def _error_tag(cls: type) -> str:
    entry = entry_of(cls)
    return entry.tag if entry is not None else default_tag(cls)


def _error_class(tag: str) -> type[BaseException] | None:
    """Return the exception type of a tag, if it is one that may be rebuilt."""
    entry = entry_for(tag)
    module, _, name = tag.partition(":")
    if entry is not None:
        cls = entry.cls
    elif module == "builtins":
        cls = getattr(builtins, name, None)
    else:
        cls = _holdfast_error(tag)
    return cls if isinstance(cls, type) and issubclass(cls, BaseException) else None


def _holdfast_error(tag: str) -> type[HoldfastError] | None:
    waiting: list[type[HoldfastError]] = [HoldfastError]
    while waiting:
        cls = waiting.pop()
        if default_tag(cls) == tag:
            return cls
        waiting += cls.__subclasses__()
    return None


def _arguments(exc: BaseException) -> tuple[object, ...]:
    # The file name of an OSError isn't among its `args`, but among what it is pickled with.
    return cast("_Data", OSError.__reduce__(exc))[1] if isinstance(exc, OSError) else exc.args


def _attributes(exc: BaseException) -> dict[str, object]:
    """Return the attributes of an exception that are data; those of a HoldfastError only once."""
    attributes: dict[str, _Data] = dict(vars(exc))
    if isinstance(exc, HoldfastError):
        facts: dict[str, object] = attributes.get("facts", {})
        attributes = {name: item for name, item in attributes.items() if name not in facts}
        attributes["facts"] = {name: fact for name, fact in facts.items() if _is_data(fact)}
    return {name: item for name, item in attributes.items() if _is_data(item)}


def _is_data(value: object) -> bool:
    try:
        encode(value)
    except HoldfastError:
        return False
    return True


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001  a broken __str__ must not hide the failure itself
        return type(exc).__name__


def _look_alike(built: BaseException, exc: BaseException) -> bool:
    return type(built) is type(exc) and _message(built) == _message(exc)


def _is_group(exc: BaseException) -> TypeGuard[BaseExceptionGroup[BaseException]]:
    return isinstance(exc, BaseExceptionGroup)


def _group_as_recorded(
    group: BaseExceptionGroup[BaseException],
) -> BaseExceptionGroup[BaseException]:
    members = [as_recorded(member) for member in group.exceptions]
    if all(new is old for new, old in zip(members, group.exceptions, strict=True)):
        return group
    shown = group.derive(members)
    shown.__cause__ = group
    return shown


register_type(NoEffect)

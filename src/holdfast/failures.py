"""Failures of calls: how they are recorded, raised again, and called anew by a retry.

A failure is raised the first time as its replay will raise it: of the same type, with the same
message, and without secrets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn, cast

from holdfast import codec, error_codec
from holdfast.redaction import redact, redact_data
from holdfast.secret import known_secrets
from holdfast.store.payload import Payload, make_payload

_ENTRY = "__holdfast_entry__"


def as_recorded(error: BaseException) -> BaseException:
    """Return a failure as it is recorded and as every replay raises it.

    It is the exception itself where that can be rebuilt from data and tells no secret.
    """
    shown = error_codec.as_recorded(error)
    vars(shown).pop(_ENTRY, None)  # of an inner call: the outer one is what is called anew
    data = error_codec.encode_error(shown)
    if redact(str(shown)) == str(shown) and not _tells_a_secret(data):
        return shown
    redacted = error_codec.decode_error(codec.encode(redact_data(codec.decode(data))))
    redacted.__cause__ = error
    return redacted


def _tells_a_secret(data: bytes) -> bool:
    return any(secret.encode("utf-8", "surrogatepass") in data for secret in known_secrets())


def encode_failure(shown: BaseException) -> Payload:
    """Encode what `as_recorded` returned."""
    return make_payload(codec.encode(error_codec.encode_error(shown)))


def decode_failure(value: object) -> BaseException:
    """Return the failure that `encode_failure` was given, from the decoded payload."""
    return error_codec.decode_error(cast("bytes", value))


def tag(error: BaseException, *entries: int) -> BaseException:
    """Name the calls that failed so, by their first entries: a retry makes them anew."""
    setattr(error, _ENTRY, entries)
    return error


def raise_from(shown: BaseException, error: BaseException) -> NoReturn:
    """Raise a failure as it is recorded; what it was made from is its cause."""
    if shown is error:
        raise shown
    raise shown from error


def failed_entries(error: BaseException | None) -> Iterator[int]:
    """Yield the calls whose failures an exception consists of, or came from.

    What a handler caught before it made the call that failed isn't among them.
    """
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        entries: tuple[int, ...] | None = getattr(each, _ENTRY, None)
        if entries is not None:
            yield from entries
        elif isinstance(each, BaseExceptionGroup):
            left += cast("BaseExceptionGroup[BaseException]", each).exceptions
        else:
            left.append(each.__cause__ or each.__context__)

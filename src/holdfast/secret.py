"""Values that are used but never stored: an API key, a password, a token.

A `Secret` is given to a handler or a tool like any other argument. What the database keeps of it
is a keyed digest: HMAC-SHA256 under a key that isn't in the database. Equal secrets have equal
digests wherever the same key is in use, so a recorded call is found again after a restart; without
the key, the digest can't be used to guess the secret.

The key is `HOLDFAST_SECRET_KEY` where that is set. Otherwise every open store brings its own
(`use_key`, `release_key`). A default key in this file would be known to everybody, so there is
none: without a key a secret can be used, but not encoded.
"""

from __future__ import annotations

import hmac
import os
import threading
from collections.abc import Iterator
from typing import Any, Final, Generic, Never, Self, TypeVar, cast

from holdfast.errors import InputError, SecretUnavailableError, UsageError

KEY_VARIABLE: Final = "HOLDFAST_SECRET_KEY"
"""The environment variable that holds the digest key: at least 32 random characters."""

DIGEST_SIZE: Final = 32
"""The size of a digest, in bytes."""

_SMALLEST_KEY: Final = 32

_Value = str | bytes
_T_co = TypeVar("_T_co", str, bytes, covariant=True)


class Secret(Generic[_T_co]):
    """A text or bytes that Holdfast never writes down.

    `reveal` is the only way to the value. `repr`, `str`, `format` and every error show
    `Secret(…)`; pickling is refused; stored data holds a keyed digest. A secret that comes back
    from stored data knows its value if this process made an equal one, before or after, under
    the same key. The value stays in memory until the process ends.

    Args:
        value: the text or the bytes to protect.

    Raises:
        InputError: the value is neither `str` nor `bytes`.
    """

    __slots__ = ("_stored_digest", "_value")

    _value: _Value | None
    _stored_digest: bytes | None

    def __init__(self, value: _T_co) -> None:
        given: object = value
        if type(given) not in {str, bytes}:
            raise InputError(
                f"A Secret holds str or bytes, not {type(given).__name__}. "
                "Wrap each confidential text by itself."
            )
        self._value = value
        self._stored_digest = None
        _vault.add(value)

    @classmethod
    def from_digest(cls, digest: bytes) -> Self:
        """Return the secret that stored data names, without knowing its value yet.

        Args:
            digest: what `digest` was when the data was stored; 32 bytes.

        Raises:
            ValueError: the digest isn't 32 bytes long.
        """
        if len(digest) != DIGEST_SIZE:
            raise ValueError(f"a secret's digest has {DIGEST_SIZE} bytes, not {len(digest)}")
        secret = cls.__new__(cls)
        secret._value, secret._stored_digest = None, digest  # noqa: SLF001  its own class
        return secret

    def reveal(self) -> _T_co:
        """Return the value itself; keep it out of results, messages and files.

        Raises:
            SecretUnavailableError: the secret comes from stored data, and this process was never
                given its value.
        """
        value = self._known_value()
        if value is None:
            raise SecretUnavailableError(
                "Only the digest of this secret is stored, and this process was not given the "
                "secret itself. Create it here before it is needed, for example with "
                'Secret(os.environ["API_KEY"]) at the top of the handler. If it was created, '
                f"then {KEY_VARIABLE} or the key file beside the database has changed."
            )
        # Only `__init__` and the vault set the value, both with what the caller's type says.
        return cast("_T_co", value)

    @property
    def digest(self) -> bytes:
        """What stands for this secret in stored data: HMAC-SHA256, 32 bytes.

        Raises:
            UsageError: no key is known yet, or the keys of several open stores are.
        """
        if self._stored_digest is not None:
            return self._stored_digest
        return _digest(_vault.key(), cast("_Value", self._value))

    def _known_value(self) -> _Value | None:
        if self._value is None and self._stored_digest is not None:
            self._value = _vault.find(self._stored_digest)
        return self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        secret = cast("Secret[Any]", other)
        mine, theirs = self._known_value(), secret._known_value()
        if mine is None or theirs is None:
            # A value that is known here would have been found for the other one, too.
            return mine is theirs and self._stored_digest == secret._stored_digest
        return type(mine) is type(theirs) and hmac.compare_digest(_bytes(mine), _bytes(theirs))

    def __hash__(self) -> int:
        # One hash for all: a stored secret may learn its value later, and must stay findable.
        return hash(Secret)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __format__(self, format_spec: str) -> str:
        return format(repr(self), format_spec)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> Never:
        raise UsageError(
            "A Secret can't be pickled, because the pickle would hold its value in the clear. "
            "Pass the name of the secret and create it in the other process."
        )


def use_key(key: bytes) -> None:
    """Make the digests of secrets depend on this key until `release_key` is called with it.

    Stores call it when they open, once each. `HOLDFAST_SECRET_KEY` takes precedence for digests
    that are made; secrets stored under this key are found nonetheless.

    Args:
        key: random, at least 32 bytes, kept apart from the database.

    Raises:
        InputError: the key is shorter than 32 bytes.
    """
    if len(key) < _SMALLEST_KEY:
        raise InputError(f"A secret key needs at least {_SMALLEST_KEY} bytes, not {len(key)}.")
    _vault.use(key)


def release_key(key: bytes) -> None:
    """Undo one `use_key` with the same key; a key that isn't in use is ignored.

    Secrets that were stored under the key stay revealable in this process.

    Args:
        key: the key that was given to `use_key`.
    """
    _vault.release(key)


def known_secrets() -> Iterator[str]:
    """Yield the text of every secret made in this process, for redaction.

    Bytes that are no UTF-8 text have none and are left out.
    """
    for value in _vault.values():
        text = _text(value)
        if text is not None:
            yield text


def known_secret_count() -> int:
    """Return how many secrets this process knows, which only ever grows."""
    return len(_vault)


class _Vault:
    """The secrets of this process, and the keys their digests are made with."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[_Value, None] = {}
        self._by_digest: dict[bytes, _Value] = {}
        self._seen_keys: set[bytes] = set()
        self._uses: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._values)

    def values(self) -> list[_Value]:
        with self._lock:
            return list(self._values)

    def add(self, value: _Value) -> None:
        with self._lock:
            self._values[value] = None
            for key in self._seen_keys:
                self._by_digest[_digest(key, value)] = value

    def use(self, key: bytes) -> None:
        with self._lock:
            self._uses[key] = self._uses.get(key, 0) + 1
            self._see(key)

    def release(self, key: bytes) -> None:
        with self._lock:
            left = self._uses.pop(key, 0) - 1
            if left > 0:
                self._uses[key] = left

    def find(self, digest: bytes) -> _Value | None:
        with self._lock:
            configured = _configured_key()
            if configured is not None:
                self._see(configured)
            return self._by_digest.get(digest)

    def key(self) -> bytes:
        configured = _configured_key()
        if configured is not None:
            return configured
        with self._lock:
            keys = list(self._uses)
        if len(keys) == 1:
            return keys[0]
        # Picking one of several would make the same call look new in the other database.
        happened = (
            "this process has stores with different secret keys open"
            if keys
            else "no store is open, so there is no key to make the digest with"
        )
        raise UsageError(
            f"A Secret can't be stored now: {happened}. Open the store first, and with several "
            f"of them set {KEY_VARIABLE} to one key for all (at least {_SMALLEST_KEY} random "
            "characters)."
        )

    def _see(self, key: bytes) -> None:
        if key not in self._seen_keys:
            self._seen_keys.add(key)
            self._by_digest.update((_digest(key, value), value) for value in self._values)


def _configured_key() -> bytes | None:
    text = os.environ.get(KEY_VARIABLE)
    if not text:
        return None
    if len(text) < _SMALLEST_KEY:
        raise UsageError(
            f"{KEY_VARIABLE} has {len(text)} characters; it needs at least {_SMALLEST_KEY} random "
            "ones, such as those of: python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return os.fsencode(text)


def _digest(key: bytes, value: _Value) -> bytes:
    kind = b"text:" if isinstance(value, str) else b"bytes:"
    return hmac.digest(key, b"holdfast secret 1\0" + kind + _bytes(value), "sha256")


def _bytes(value: _Value) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _text(value: _Value) -> str | None:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


_vault: Final = _Vault()

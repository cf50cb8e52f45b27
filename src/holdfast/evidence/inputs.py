"""What a claim may be made of. Everything else is refused before anything is recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from holdfast.errors import EvidenceInputError, EvidencePathError

_DATABASE_NAMING_OPTIONS = frozenset({"host", "hostaddr", "port", "dbname", "service"})
_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


def relative_path(path: str | os.PathLike[str], *, allow_root: bool = False) -> str:
    """Return a path below the workspace in its one canonical spelling.

    Args:
        path: as the caller wrote it.
        allow_root: whether `.` is allowed, which names the workspace itself.

    Raises:
        EvidencePathError: it is absolute, empty, contains `..`, or isn't text.
    """
    text = os.fspath(path)
    reason = _why_not_relative(text, allow_root=allow_root)
    if reason:
        raise EvidencePathError(
            f"The path {text!r} {reason}. "
            "Nothing was checked; give a path relative to the workspace.",
            path=text,
        )
    return PurePosixPath(text).as_posix()


def _why_not_relative(text: str, *, allow_root: bool) -> str:
    path = PurePosixPath(text)
    if not text or (not path.parts and not allow_root):
        return "names no file"
    if path.is_absolute():
        return "is absolute"
    if ".." in path.parts:
        return "contains '..'"
    if "\0" in text or not _encodable(text):
        return "isn't valid text"
    return ""


def http_address(url: str) -> str:
    """Return an HTTP address in its canonical spelling, without fragment.

    Raises:
        EvidenceInputError: another scheme, no host, credentials, or characters that need
            percent-encoding.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise EvidenceInputError(f"The URL {url!r} has characters that need percent-encoding.")
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in {"http", "https"} or not host or _port(parts.netloc, url) == 0:
        raise EvidenceInputError(
            f"An address like http://host/ or https://host/ is needed, not {url!r}."
        )
    if "@" in parts.netloc:
        raise EvidenceInputError(
            f"The URL for {host} carries credentials, which would be stored. Leave them out."
        )
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path or "/", parts.query, ""))


def _port(netloc: str, url: str) -> int | None:
    try:
        return urlsplit(f"//{netloc}").port
    except ValueError as error:
        raise EvidenceInputError(
            f"The port in {url!r} is no number between 1 and 65535."
        ) from error


def database_subject(url: str) -> str:
    """Name the database without user, password or options: two logins see the same row."""
    if url.startswith(_SQLITE):
        path = url.removeprefix(_SQLITE)
        if not path.startswith("/"):
            return _SQLITE + relative_path(path)
        if path.strip("/"):
            return _SQLITE + PurePosixPath("/" + path.lstrip("/")).as_posix()
    if url.startswith(_POSTGRES):
        parts = urlsplit(url)
        options = [(k, v) for k, v in parse_qsl(parts.query) if k in _DATABASE_NAMING_OPTIONS]
        host = parts.netloc.rpartition("@")[2].lower()
        query = f"?{urlencode(sorted(options))}" if options else ""
        return f"postgresql://{host}{parts.path}{query}"
    scheme = url.partition(":")[0]
    raise EvidenceInputError(
        f"A row can be checked at sqlite:///… or postgresql://…, not at {scheme}:…"
    )


def command_words(argv: Sequence[str]) -> list[str]:
    """Return a command as a list of strings. A string is refused: no shell reads it."""
    if isinstance(argv, str | bytes) or not argv:
        raise EvidenceInputError(
            "argv is a non-empty list such as ['pytest', '-q']; no shell reads a string."
        )
    words = [plain_text(word, "argv") for word in argv]
    if not words[0] or any("\0" in word for word in words):
        raise EvidenceInputError(
            "argv starts with the program's name, and no argument contains a NUL character."
        )
    return words


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables, or refuse what can't be set."""
    checked = {plain_text(name, "env"): plain_text(value, "env") for name, value in env.items()}
    for name, value in checked.items():
        if not name or "=" in name or "\0" in name + value:
            raise EvidenceInputError(f"{name!r} can't be set as an environment variable.")
    return checked


def seconds(value: float) -> float:
    """Return a positive, finite number of seconds, or refuse it."""
    if not 0 < value < float("inf"):
        raise EvidenceInputError(f"A timeout is a positive number of seconds, not {value!r}.")
    return float(value)


def whole_number(value: object, name: str, *, least: int) -> int:
    """Return a whole number that is at least `least`, or refuse it."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise EvidenceInputError(f"{name} is a whole number from {least}, not {value!r}.")
    return value


def plain_text(value: object, name: str) -> str:
    """Return text that can be stored, or refuse it."""
    if not isinstance(value, str) or not _encodable(value):
        raise EvidenceInputError(f"{name} is made of text; {value!r} is not.")
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def scalars(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return columns and values that a database can compare, or refuse them."""
    checked = {plain_text(column, name): plain(value, column) for column, value in row.items()}
    for column, value in checked.items():
        if isinstance(value, list | dict):
            raise EvidenceInputError(
                f"Column {column!r} is compared with one value, not with a collection."
            )
    return checked


def key_text(value: object) -> str:
    """Return a value's one spelling in a subject."""
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return quote(json.dumps(value, ensure_ascii=False), safe="")


def plain(value: object, name: str) -> Any:  # noqa: ANN401  plain data has no narrower type
    """Return the value as it will read back from the store, or refuse it."""
    if isinstance(value, str):
        return plain_text(value, name)
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, list | tuple):
        return [plain(item, name) for item in cast("Sequence[object]", value)]
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value).items()
        return {plain_text(key, name): plain(item, name) for key, item in pairs}
    raise EvidenceInputError(
        f"{name!r} holds a {type(value).__name__}; a claim is made of plain data."
    )

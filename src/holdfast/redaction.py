"""Keeps credentials out of events, errors and logs.

Two things are replaced by ``[redacted]``: the value of every `Secret` of this process, and text
that has the shape of a well-known credential. It is a safety net for text that people read: it
can't know a password that looks like a word. Results and recorded outputs never pass through here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Final, NamedTuple, cast

from holdfast.errors import InputError
from holdfast.secret import known_secret_count, known_secrets

REDACTED: Final = "[redacted]"
"""What stands in place of a credential."""

_SHORTEST_SECRET: Final = 4
"""Shorter secrets, in characters, would blot out ordinary text and hide very little."""

_MOST_LEVELS: Final = 100
"""How deep `redact_data` looks into nested data."""

# Those of the last line are words of their own, the others also end longer ones: PGPASSWORD.
_LABELS: Final = (
    r"(?:password|passwd|passphrase|api[_-]?key|client[_-]?secret|(?:access|auth|refresh)[_-]?token"
    r"|(?:secret[_-]?access|access|private|signing)[_-]?key"
    r"|(?<![a-z0-9])(?:pass|pwd|secret(?:[_-]?key)?|token))"
)

_LABELED_VALUE: Final = (
    rf"(?P<label>{_LABELS}\\?[\"']?\s{{0,4}}(?:=>|[:=](?!>))\s{{0,4}})"
    r"(?!\[redacted\])"
    r"(?:\\[\"'](?:(?!\\[\"'])[^\n])*\\[\"']"  # quoted inside another quoted text
    r"|\"(?:\\.|[^\"\\\n])*\"?"
    r"|'(?:\\.|[^'\\\n])*'?"
    r"|[^\s,;&\"'\\)\]}]+)"
)

# The small letters that a match can't do without, and the pattern: looking for the letters first
# makes text without credentials cheap. A group called `label` is kept, the rest is replaced.
_WELL_KNOWN: Final = (
    (
        "private key",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}KEY-----|\Z)",
    ),
    ("sk-", r"\bsk-(?:ant-)?[A-Za-z0-9_-]{16,}"),
    ("k_", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("gh", r"\bgh[pousr]_[A-Za-z0-9]{20,}"),
    ("github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{20,}"),
    ("glpat-", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("hf_", r"\bhf_[A-Za-z0-9]{20,}"),
    ("akia", r"\bAKIA[A-Z0-9]{16}\b"),
    ("asia", r"\bASIA[A-Z0-9]{16}\b"),
    ("aiza", r"\bAIza[A-Za-z0-9_-]{30,}"),
    ("xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("xapp-", r"\bxapp-[A-Za-z0-9-]{10,}"),
    ("eyj", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    ("://", r"(?P<label>://[^\s/:@?#]{0,256}:)[^\s/\"'<>]{1,1024}(?=@)"),
    (
        "authorization",
        (
            r"(?i:(?P<label>authorization\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?"
            r"(?:(?:bearer|basic|token)\s{1,4})?))[^\s\"'\\,;]{4,}"
        ),
    ),
    ("bearer", r"(?i:(?P<label>\bbearer\s{1,4}))[A-Za-z0-9._~+/-]{12,}=*"),
    *((hint, f"(?i:{_LABELED_VALUE})") for hint in ("pass", "pwd", "secret", "key", "token")),
)


class _Pattern(NamedTuple):
    """One shape of a credential."""

    hint: str
    regex: re.Pattern[str]


class _Known(NamedTuple):
    """The secrets of this process, as they were when there were that many."""

    secrets: int
    spellings: tuple[str, ...]
    regex: re.Pattern[str] | None


class _Rules:
    """What is looked for: replaced as a whole, never changed, so that readers need no lock."""

    def __init__(self) -> None:
        self.patterns: tuple[_Pattern, ...] | None = None
        self.added: tuple[_Pattern, ...] = ()
        self.known = _Known(0, (), None)

    def well_known(self) -> tuple[_Pattern, ...]:
        # Compiling takes a few milliseconds, which a program that logs nothing needn't spend.
        if self.patterns is None:
            compiled = {text: re.compile(text, re.DOTALL) for _, text in _WELL_KNOWN}
            self.patterns = tuple(_Pattern(hint, compiled[text]) for hint, text in _WELL_KNOWN)
        return self.patterns

    def secrets(self) -> _Known:
        count = known_secret_count()
        if self.known.secrets != count:
            self.known = _know(count)
        return self.known


_rules: Final = _Rules()


def redact(text: str) -> str:
    """Return the text with every credential that can be recognised replaced by ``[redacted]``.

    The values of this process's secrets (from 4 characters on) go first, the longest before the
    others, also where they are escaped or percent-encoded. A label such as ``password=`` stays.
    Redacting twice changes nothing more.

    Args:
        text: any text that a person may read.
    """
    text = _without_secrets(text)
    lowered = text.lower()
    for hint, regex in _rules.well_known():
        if hint in lowered:
            text = regex.sub(_keep_label, text)
    for _, regex in _rules.added:
        text = regex.sub(_keep_label, text)
    return text


def redact_data(value: object) -> object:
    """Return a copy of plain data in which every text is redacted, keys included.

    A text under a telling key, such as ``{"password": "…"}``, is replaced as a whole. Values that
    are no dict, list, tuple or str are returned as they are.

    Args:
        value: what JSON could hold, nested up to 100 levels; what lies deeper is replaced.
    """
    return _redact_data(value, _MOST_LEVELS)


def add_pattern(regex: str | re.Pattern[str]) -> None:
    r"""Have `redact` replace what this pattern matches, in this process, from now on.

    Args:
        regex: a pattern such as ``r"\bcorp-[0-9a-f]{32}\b"``. What a group called ``label``
            matches is kept.

    Raises:
        InputError: it is no regular expression, or it matches the empty text.
    """
    try:
        compiled = re.compile(regex)
    except re.error as error:
        raise InputError(f"{regex!r} is no regular expression: {error}.") from error
    if compiled.search(""):
        raise InputError(f"{compiled.pattern!r} matches the empty text, so it can't be redacted.")
    _rules.added = (*_rules.added, _Pattern("", compiled))


class RedactingFilter(logging.Filter):
    """Redacts the message, the traceback and the stack of every record that passes.

    Add it to a handler, not to a logger: a logger's filters don't see the records of its
    children. Values given as `extra` are left alone. A record is never dropped.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record in place and let it pass.

        Args:
            record: the record; `msg` and `args` stay apart if there was nothing to redact.
        """
        message = _message(record)
        redacted = redact(message)
        if redacted != message or not record.args:
            record.msg, record.args = redacted, None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  anybody's __str__ may run; a log line must not end a task
        # Logging would print such a record's arguments as they are.
        message = f"{record.msg!s} (arguments that don't fit: {record.args!r})"
        record.args = None
        return message


def _without_secrets(text: str) -> str:
    known = _rules.secrets()
    if known.regex is not None and any(spelling in text for spelling in known.spellings):
        return known.regex.sub(REDACTED, text)
    return text


def _keep_label(match: re.Match[str]) -> str:
    return (match.groupdict().get("label") or "") + REDACTED


def _know(count: int) -> _Known:
    spellings = {
        spelling
        for secret in known_secrets()
        if len(secret) >= _SHORTEST_SECRET
        for spelling in _spellings(secret)
    }
    longest_first = tuple(sorted(spellings, key=len, reverse=True))
    regex = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
    return _Known(count, longest_first, regex)


def _spellings(secret: str) -> Iterator[str]:
    """Yield the secret as it stands in prose, in a repr, in JSON and in a URL."""
    import json  # only a program with secrets needs these
    from urllib.parse import quote, quote_plus

    yield secret
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield quote(secret, safe="", errors="replace")
    yield quote_plus(secret, errors="replace")


def _redact_data(value: object, levels: int) -> object:
    if isinstance(value, str):
        return redact(value)
    if not isinstance(value, (dict, list, tuple)):
        return value
    if levels == 0:
        return REDACTED
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value).items()
        return {
            _redact_data(key, levels - 1): _redact_under(key, item, levels - 1)
            for key, item in pairs
        }
    items = [_redact_data(item, levels - 1) for item in cast("list[object]", value)]
    return items if isinstance(value, list) else tuple(items)


def _redact_under(key: object, value: object, levels: int) -> object:
    if isinstance(key, str) and isinstance(value, str) and _is_label(key):
        return REDACTED
    return _redact_data(value, levels)


def _is_label(key: str) -> bool:
    return re.search(rf"(?i)(?:{_LABELS}|authorization)\Z", key) is not None

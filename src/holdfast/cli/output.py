"""What commands print: text for people, or JSON documents for programs."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Iterable, Sequence

import click

from holdfast.cli.plain import clean, plain
from holdfast.redaction import redact_data

_COLORS = {
    "succeeded": "green", "verified": "green", "alive": "green", "ok": "green",
    "failed": "red", "refuted": "red", "quarantined": "red", "problem": "red", "dead": "red",
    "error": "red", "blocked": "yellow", "in_doubt": "yellow", "doubt": "yellow",
    "unavailable": "yellow", "running": "cyan", "waiting": "cyan",
}  # fmt: skip


class Output:
    """Where a command's answer goes.

    With `json` nothing but JSON reaches stdout, and notes are left out.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._stdout = sys.stdout  # an application's own prints may be sent elsewhere later

    def answer(self, document: object, lines: Iterable[str]) -> None:
        """Print the command's answer: the document with `--json`, otherwise the lines."""
        if self.json:
            self.document(document)
            return
        for line in lines:
            click.echo(line, file=self._stdout)

    def document(self, document: object) -> None:
        """Print one JSON document on a line of its own."""
        click.echo(json.dumps(redact_data(plain(document))), file=self._stdout)

    def note(self, text: str) -> None:
        """Tell a person something that is no part of the answer."""
        if not self.json:
            click.echo(clean(text), err=True)


def text_of(value: object) -> str:
    """Return a value as a person reads it: text as it is, everything else as JSON."""
    shown = redact_data(plain(value))
    if isinstance(shown, str):
        return clean(shown, lines=True)
    return clean(json.dumps(shown, ensure_ascii=False, indent=2), lines=True)


def short(value: object, limit: int = 160) -> str:
    """Return a value on one line of at most so many characters."""
    shown = redact_data(plain(value))
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
    text = clean(text[: 4 * limit])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return aligned lines, headers first. Cells are cleaned; known statuses are coloured."""
    cleaned = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cleaned, strict=True)]
    lines = [_line([header.upper() for header in headers], widths, coloured=False)]
    return lines + [_line(row, widths, coloured=True) for row in cleaned]


def _line(cells: Sequence[str], widths: Sequence[int], *, coloured: bool) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    padded[-1] = cells[-1]
    if coloured:
        padded = [status(cell) for cell in padded]
    return "  ".join(padded).rstrip()


def status(text: str) -> str:
    """Return a status in its colour; other text as it is."""
    color = None if os.environ.get("NO_COLOR") else _COLORS.get(text.strip().split(",")[0])
    return click.style(text, fg=color) if color else text


def moment(at: float | None) -> str:
    """Return a wall time, in seconds, as UTC date and time."""
    return "" if at is None else _utc(at).strftime("%Y-%m-%d %H:%M:%S")


def clock_time(at: float) -> str:
    """Return the time of day of a wall time, in seconds, to the millisecond (UTC)."""
    return _utc(at).strftime("%H:%M:%S.%f")[:-3]


def _utc(at: float) -> dt.datetime:
    try:
        return dt.datetime.fromtimestamp(at, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return dt.datetime.max.replace(tzinfo=dt.UTC)


def duration(seconds: float) -> str:
    """Return a duration, in seconds, for people."""
    if seconds < 0.001:  # noqa: PLR2004  a millisecond
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120:  # noqa: PLR2004  two minutes
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"

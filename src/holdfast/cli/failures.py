"""Exit codes, and how an error is shown: one line, never a traceback."""

from __future__ import annotations

import json
import os
import sys
import traceback

import click

from holdfast import errors
from holdfast.cli.plain import clean, one_line, plain
from holdfast.redaction import redact, redact_data

OTHER = 1
USAGE = 2
NOT_FOUND = 3
STORE = 4
FAILED = 5
BLOCKED = 6
CANCELED = 7
INTERRUPTED = 130
PIPE_CLOSED = 141

EXIT_CODES = (
    (0, "done, and everything checked holds"),
    (OTHER, "something doesn't hold (verify, doctor), or another error"),
    (USAGE, "the command or its input makes no sense; nothing was done"),
    (NOT_FOUND, "no such task or checkpoint"),
    (STORE, "the database can't be opened, read or written"),
    (FAILED, "the task failed"),
    (BLOCKED, "the task waits for a person"),
    (CANCELED, "the task was canceled"),
    (INTERRUPTED, "interrupted; what ran was handed back"),
)
"""What every command's exit code means."""

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (click.ClickException, USAGE),
    (errors.InputError, USAGE),
    (errors.TaskNotFoundError, NOT_FOUND),
    (errors.CheckpointNotFoundError, NOT_FOUND),
    (errors.StoreError, STORE),
    (errors.TaskFailedError, FAILED),
    (errors.TaskBlockedError, BLOCKED),
    (errors.TaskCanceledError, CANCELED),
)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code that stands for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), OTHER)


def report(error: Exception, *, as_json: bool) -> int:
    """Print an error to stderr and return its exit code."""
    if os.environ.get("HOLDFAST_DEBUG") == "1":
        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    code = exit_code_of(error)
    if as_json:
        shown = {"type": type(error).__name__, "message": _message(error), "exit_code": code}
        facts = error.facts if isinstance(error, errors.HoldfastError) else {}
        document = redact_data({"error": {**_facts(facts), **shown}})
        click.echo(json.dumps(document), err=True)
        return code
    if isinstance(error, errors.TaskBlockedError) and error.facts.get("needs"):
        first = str(error).partition("\n")[0]
        click.echo(clean(f"holdfast: {first}"), err=True)
        for need in error.needs:
            click.echo(clean(f"  {one_line(need)}"), err=True)
        return code
    click.echo(clean(f"holdfast: {_message(error)}"), err=True)
    return code


def _facts(facts: dict[str, object]) -> dict[str, object]:
    return {name: plain(value) for name, value in facts.items()}


def _message(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        where = f" See `{error.ctx.command_path} --help`." if error.ctx else ""
        return one_line(error.format_message()) + where
    if isinstance(error, click.ClickException):
        return one_line(error.format_message())
    if isinstance(error, errors.HoldfastError):
        return one_line(str(error))
    text = one_line(f"{type(error).__name__}: {error}".removesuffix(": "))
    return f"{text} (HOLDFAST_DEBUG=1 shows where)"

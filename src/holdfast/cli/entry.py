"""The entry point: one place that turns whatever happens into one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from holdfast.cli.failures import INTERRUPTED, OTHER, PIPE_CLOSED, report
from holdfast.cli.group import holdfast


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; see `holdfast --help` for what they mean.

    No input makes it raise. With `HOLDFAST_DEBUG=1` errors come with their traceback.

    Args:
        args: the words after the program's name; those of this process when None.
    """
    given = list(sys.argv[1:] if args is None else args) or ["--help"]
    streams = sys.stdout, sys.stderr
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals that lack a letter
    as_json = "--json" in (given[: given.index("--")] if "--" in given else given)
    try:
        _refuse_garbage(given)
        code = holdfast.main(given, prog_name="holdfast", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_pipe()
        return PIPE_CLOSED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  whatever it is, a person gets one line
        return report(error, as_json=as_json)
    except SystemExit as left:
        if sys.stdout is not streams[0]:  # click's way of saying that the pipe is closed
            sys.stdout, sys.stderr = streams
            _leave_pipe()
            return PIPE_CLOSED
        return left.code if isinstance(left.code, int) else OTHER
    return code if isinstance(code, int) else 0


def _refuse_garbage(given: list[str]) -> None:
    for word in given:
        try:
            word.encode()
        except UnicodeEncodeError:
            message = f"{word!r} is not UTF-8 text. Nothing was done."
            raise click.UsageError(message) from None


def _leave_pipe() -> None:
    """Let the interpreter's last flush go nowhere: whoever read the output has left."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return

"""Running a command in a workspace for a model."""

from __future__ import annotations

import asyncio
import functools
import re
import threading
from collections.abc import Sequence

from holdfast import processes
from holdfast.agents.permissions import Permissions
from holdfast.agents.refusals import Miss, Refusal
from holdfast.agents.sandbox import INSIDE, Sandbox, is_used, sandboxed
from holdfast.clock import SystemClock
from holdfast.errors import EvidenceInputError, HoldfastError
from holdfast.evidence.inputs import command_words
from holdfast.threads import start_thread
from holdfast.tool import LINGER
from holdfast.workspace import Workspace

LONGEST = 600.0
"""Seconds that a command may take at most, whatever the model asks for."""

OUTPUT = 32 * 1024
"""Bytes of output that are kept, from its end."""

WORDS = 64 * 1024
"""Bytes of all arguments together."""

_ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "GIT_TERMINAL_PROMPT": "0", "TERM": "dumb"}
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if code not in {9, 10}}


class Commands:
    """What runs the commands of one agent in one workspace.

    Args:
        root: the workspace, absolute.
        permissions: which commands may run.
        sandbox: whether they run in a sandbox.
        mode: what it is called in a refusal.

    Raises:
        UsageError: a sandbox is required, and there is none.
    """

    def __init__(self, root: str, permissions: Permissions, sandbox: Sandbox, mode: str) -> None:
        self._root = root
        self._permissions = permissions
        self._inside = permissions.run_commands and is_used(sandbox)
        self._mode = mode

    async def run(self, argv: Sequence[str], timeout: float) -> str:  # noqa: ASYNC109  the model's
        """Run a command and return how it ended and the end of its output.

        Its process group is killed when its time is up, and when the attempt ends.

        Args:
            argv: the program and its arguments.
            timeout: seconds; `LONGEST` at most.

        Raises:
            Refusal: it may not run. Nothing did.
            Miss: it can't be started.
        """
        words = self.permitted(argv)
        if not 0 < timeout < float("inf"):
            raise Miss(f"a time limit is a positive number of seconds, not {timeout!r}.")
        limits = processes.Limits(min(timeout, LONGEST), OUTPUT)
        try:
            if self._inside:
                words = self._sandboxed(words)
            ended = await self._run(words, limits)
        except (OSError, HoldfastError) as error:
            raise Miss(f"{argv[0]!a} can't be started: {error}.") from error
        return _told(ended, limits)

    def permitted(self, argv: Sequence[str]) -> list[str]:
        """Return a command that may run as a list of texts.

        Raises:
            Refusal: it may not, or is none.
        """
        words = checked(argv)
        self._permissions.require_command(words, self._mode, sandboxed=self._inside)
        return words

    def _sandboxed(self, words: list[str]) -> list[str]:
        writable, network = self._permissions.change_files, self._permissions.network
        if writable:
            Workspace.at(self._root)  # what isn't there can't be kept read-only
        return sandboxed(words, self._root, writable=writable, network=network)

    async def _run(self, words: list[str], limits: processes.Limits) -> processes.Finished:
        stop = threading.Event()
        more = {**_ENVIRONMENT, **(INSIDE if self._inside else {})}
        call = functools.partial(
            processes.run,
            words,
            cwd=self._root,
            env=processes.scrubbed_environment(more),
            limits=limits,
            clock=SystemClock(),
            stopped=stop.is_set,
        )
        running = start_thread(call)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait((running,), timeout=LINGER)
            raise


def checked(argv: Sequence[str]) -> list[str]:
    """Return a command as a list of texts that a program can be started with.

    Raises:
        Refusal: it is none.
    """
    try:
        words = command_words(argv)
    except EvidenceInputError as error:
        raise Refusal(str(error)) from None
    if sum(len(word.encode()) for word in words) > WORDS:
        raise Refusal(f"the arguments are longer than {WORDS} bytes together.")
    return words


def readable(output: bytes) -> str:
    """Return output as text: without escape sequences and control characters."""
    text = output.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return _ESCAPES.sub("", text).translate(_CONTROLS)


def _told(ended: processes.Finished, limits: processes.Limits) -> str:
    if ended.exit_code is None:
        how = f"killed after {limits.timeout:g} s"
    elif ended.exit_code < 0:
        how = f"ended by signal {-ended.exit_code}"
    else:
        how = f"exit code {ended.exit_code}"
    left_out = ended.output_bytes - len(ended.output)
    note = f"[the first {left_out} bytes of output are left out]\n" if left_out else ""
    return f"{how}\n{note}{readable(ended.output)}"

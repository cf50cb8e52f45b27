"""Running one command with limits: time, memory for its output, and no survivors."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.clock import Clock

_CHUNK = 64 * 1024
_TICK = 0.02
_DRAIN = 64
_REAP = 5.0
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a command may use.

    Args:
        timeout: seconds until its process group is killed.
        output_cap: bytes of output that are kept, from the end; the rest is read and dropped.
    """

    timeout: float
    output_cap: int


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended.

    Args:
        exit_code: its exit code, negative for a signal; None when it was killed by its limits.
        output: the last bytes of standard output and standard error together.
        output_bytes: how many bytes it wrote in all.
        seconds: how long it ran.
    """

    exit_code: int | None
    output: bytes
    output_bytes: int
    seconds: float

    @property
    def text(self) -> str:
        """The output as text; what isn't UTF-8 is replaced."""
        return self.output.decode("utf-8", errors="replace")


def scrubbed_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the few variables a program needs, plus `extra`; no secret is inherited."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**kept, **(extra or {})}


def run(
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    limits: Limits,
    clock: Clock,
    stopped: Callable[[], bool] = lambda: False,
    stdin: int = subprocess.DEVNULL,
) -> Finished:
    """Run a command without a shell and wait for it.

    It gets its own process group, which is killed when its time is up and also after it ended,
    so that what it left in the background ends with it. A process that moved itself to another
    session is the one thing that gets away.

    Args:
        argv: program and arguments.
        cwd: working directory, absolute.
        env: its whole environment.
        limits: time in seconds and output in bytes.
        clock: measures the time limit.
        stopped: asked about fifty times a second; True kills the command.
        stdin: descriptor of what it reads; nothing by default.

    Raises:
        OSError: the program can't be started; nothing ran.
    """
    started = clock.boottime()
    process = subprocess.Popen(  # noqa: S603  an argv list, checked by the caller; never a shell
        list(argv),
        cwd=cwd,
        env=dict(env),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        close_fds=True,
    )
    output = _Tail(process, limits.output_cap)
    exit_code: int | None = None
    try:
        while (exit_code := _exit_code(process)) is None:
            if clock.boottime() - started >= limits.timeout or stopped():
                break
            output.wait(_TICK)
    finally:
        _kill_group(process)
        output.close()
    return Finished(
        exit_code=exit_code,
        output=bytes(output.kept),
        output_bytes=output.total,
        seconds=clock.boottime() - started,
    )


class _Tail:
    """The end of a process's output, read in constant memory."""

    def __init__(self, process: subprocess.Popen[bytes], cap: int) -> None:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        self._pipe = process.stdout
        self._cap = cap
        self._at_end = False
        self.kept = bytearray()
        self.total = 0
        os.set_blocking(self._pipe.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe, selectors.EVENT_READ)
        self._pidfd = _watch(process.pid)
        if self._pidfd >= 0:
            self._selector.register(self._pidfd, selectors.EVENT_READ)

    def wait(self, seconds: float) -> None:
        """Wait at most so long for output or for the end, and take the output that is there."""
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._pipe:
                self._read_once()

    def close(self) -> None:
        """Take what is left in the pipe, at most a few MiB, and close it."""
        for _ in range(_DRAIN):
            if self._at_end or not self._read_once():
                break
        self._selector.close()
        self._pipe.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def _read_once(self) -> bool:
        try:
            data = os.read(self._pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._at_end = True
            self._selector.unregister(self._pipe)
        self.total += len(data)
        self.kept += data
        del self.kept[: max(0, len(self.kept) - self._cap)]
        return bool(data)


def _watch(pid: int) -> int:
    """Return a descriptor that becomes readable when the process ends, or -1: then it is polled."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code, negative for a signal, or None while it runs.

    The process is not reaped: as long as it is a zombie nobody else can get its group's number,
    so that killing the group afterwards hits no stranger. Popen isn't asked, because it reports
    0 when the status was lost, as in a program that ignores SIGCHLD.
    """
    try:
        if not hasattr(os, "waitid"):
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            process.returncode = os.waitstatus_to_exitcode(status) if pid else None
            return process.returncode
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError as error:
        raise RuntimeError(
            "The command's exit status was lost: something in this program reaps child "
            "processes or ignores SIGCHLD. Its outcome is unknown."
        ) from error
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process stuck in the kernel dies later; waiting for it would hang us too.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP)

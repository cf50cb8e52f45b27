"""Child processes that die and stop by real signals, and the parent that watches them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import msgspec

from holdfast import errors
from holdfast.clock import SystemClock

Tell = Callable[[object], None]
"""Sends one message (plain data) to the parent; it arrives even if the process is killed next."""

POLL = 0.003
"""Seconds between looks at a child."""

LIFETIME = 120
"""Seconds a child may live unless told otherwise."""

_PR_SET_PDEATHSIG = 1
_CLOCK = SystemClock()


class Ended(msgspec.Struct, frozen=True):
    """What became of a process: its exit code, or the signal that killed or stopped it."""

    how: Literal["exited", "killed", "stopped"]
    number: int


class Process:
    """A forked child of this process. It begins with everything this one has imported.

    Use it as a context manager: leaving the block kills the child if it is still there.
    """

    def __init__(self, pid: int, channel: int) -> None:
        self.pid = pid
        self.ended: Ended | None = None
        self._channel = channel
        self._decoder = bytearray()
        self.messages: list[Any] = []
        os.set_blocking(channel, False)

    @classmethod
    def fork(
        cls,
        function: Callable[[Tell], object],
        log: Path | None = None,
        lifetime: int = LIFETIME,
    ) -> Self:
        """Run `function(tell)` in a child; what it returns is its last message.

        Args:
            function: what to run. An exception ends the child with code 1; its traceback is the
                last message then.
            log: where its standard output and error go; ours when None.
            lifetime: seconds after which it ends itself, so that none outlives its test.

        Raises:
            UsageError: this process has other threads, which a fork would cut off.
        """
        if threading.active_count() > 1:
            raise errors.UsageError(
                "A process with threads can't be forked safely; nothing was started. Fork from a "
                "program with a single thread, before it opens any store."
            )
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _be_child(function, writing, log, parent, lifetime)
        os.close(writing)
        return cls(pid, reading)

    def wait(self, timeout: float = 60.0) -> Ended:
        """Wait until the child has exited, was killed, or was stopped.

        Raises:
            TimeoutError: none of it happened within `timeout` seconds.
        """
        deadline = _CLOCK.boottime() + timeout
        while (ended := self.pause()) is None:
            if _CLOCK.boottime() > deadline:
                raise TimeoutError(f"process {self.pid} is still running after {timeout:g} s")
        return ended

    def pause(self) -> Ended | None:
        """Do what `poll` does, after a pause while it runs."""
        ended = self.poll()
        if ended is None:
            time.sleep(POLL)
        return ended

    def poll(self) -> Ended | None:
        """Return what became of the child, or None while it runs."""
        if self.ended is not None and self.ended.how != "stopped":
            return self.ended
        self._receive()
        if self.ended is not None:
            return self.ended  # stopped
        pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return self.ended
        if os.WIFSTOPPED(status):
            self.ended = Ended("stopped", os.WSTOPSIG(status))
        elif os.WIFSIGNALED(status):
            self.ended = Ended("killed", os.WTERMSIG(status))
        else:
            self.ended = Ended("exited", os.WEXITSTATUS(status))
        self._receive()
        return self.ended

    def stop(self) -> None:
        """Stop the child (SIGSTOP) and wait until it has."""
        os.kill(self.pid, signal.SIGSTOP)
        self.wait()

    def resume(self) -> None:
        """Let a stopped child go on (SIGCONT)."""
        self.ended = None
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the child (SIGKILL) if it is still there, and wait until it is gone."""
        if self.ended is None or self.ended.how == "stopped":
            os.kill(self.pid, signal.SIGKILL)
            self.ended = None
            while self.pause() in {None, Ended("stopped", signal.SIGSTOP)}:
                self.ended = None
        if self._channel >= 0:
            os.close(self._channel)
            self._channel = -1

    def result(self, timeout: float = 60.0) -> Any:  # noqa: ANN401  whatever the function returned
        """Wait for the child to exit in good order and return its last message.

        Raises:
            RuntimeError: it ended otherwise; the message holds its traceback, if it sent one.
        """
        ended = self.wait(timeout)
        last = self.messages[-1] if self.messages else None
        if ended != Ended("exited", 0):
            raise RuntimeError(f"process {self.pid} {ended.how} ({ended.number}): {last}")
        return last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _receive(self) -> None:
        while True:
            try:
                data = os.read(self._channel, 65536)
            except BlockingIOError:
                return
            if not data:
                return
            self._decoder += data
            while len(self._decoder) >= _HEADER:
                size = int.from_bytes(self._decoder[:_HEADER])
                if len(self._decoder) < _HEADER + size:
                    break
                self.messages.append(
                    msgspec.msgpack.decode(bytes(self._decoder[_HEADER : _HEADER + size]))
                )
                del self._decoder[: _HEADER + size]


_HEADER = 4


def _be_child(
    function: Callable[[Tell], object], channel: int, log: Path | None, parent: int, lifetime: int
) -> NoReturn:
    """Run the function and leave without anything of the parent's being run a second time."""
    code = 1

    def tell(message: object) -> None:
        data = msgspec.msgpack.encode(message)
        os.write(channel, len(data).to_bytes(_HEADER) + data)

    try:
        _die_with(parent)
        signal.alarm(lifetime)
        if log is not None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        tell(function(tell))
        code = 0
    except BaseException:  # noqa: BLE001  nothing may unwind into the parent's code
        tell(traceback.format_exc())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, where it can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

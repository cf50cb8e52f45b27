"""Runs async code so that Ctrl-C and SIGTERM end it in good order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal ended the work; what ran was handed back. `code` is the exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def run_until_signal(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `call()`; a signal cancels it, which hands back what it runs. A second ends the process.

    Raises:
        Stopped: a signal came, and the code has ended.
    """
    return asyncio.run(_cancelable(call))


async def _cancelable(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    running = asyncio.ensure_future(call())
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        running.cancel()

    catch_signals(stop)
    try:
        return await running
    except asyncio.CancelledError:
        if received:
            raise Stopped(received[0]) from None
        raise


def catch_signals(first: Callable[[int], None]) -> None:
    """Call `first` at the first signal. At the second the process ends at once: that loses nothing
    that was recorded, like any crash.
    """  # noqa: D205  one thought
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def receive(number: int) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(number)
        first(number)

    for each in _SIGNALS:
        loop.add_signal_handler(each, receive, int(each))

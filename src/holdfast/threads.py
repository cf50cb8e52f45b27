"""Blocking calls from async code, one daemon thread each.

A pool would let a few calls that hang keep everyone else waiting, and would be waited for at exit.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def start_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Run `call` in a thread of its own; the future has its outcome."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = call()
        except StopIteration as stop:  # can't be raised into a future
            error = RuntimeError(f"StopIteration({stop.value!r}) left a function")
        except BaseException as raised:  # noqa: BLE001  whatever it was, the caller is told
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    threading.Thread(target=run, name="holdfast-call", daemon=True).start()
    return future

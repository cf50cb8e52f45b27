"""Runs that are broken off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest


async def interrupt(run: Coroutine[Any, Any, Any], when: Callable[[], object]) -> None:
    """Run something until a condition holds, and cancel it there."""
    running = asyncio.ensure_future(run)
    async with asyncio.timeout(10):
        while not when():
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

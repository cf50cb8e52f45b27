"""A worker process of the demo: `python -m holdfast.demo.worker DIRECTORY WORKER_ID`.

It ends when its standard input does: when the supervisor says so by closing it, and also when the
supervisor is killed, because then the kernel closes it. So no worker outlives its supervisor.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable

from holdfast.demo.job import DATABASE, new_runner

STOPPING = 10.0
"""Seconds to hand back what runs before the process ends anyway."""


async def serve(worker_id: str) -> None:
    """Execute work items until standard input ends."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    _when_input_ends(lambda: loop.call_soon_threadsafe(stop.set))
    runner = new_runner(f"sqlite:///{DATABASE}", worker_id)
    worker = runner.new_worker()
    await worker.start()
    await stop.wait()
    await worker.stop()
    runner.close()


def _when_input_ends(stop: Callable[[], object]) -> None:
    def watch() -> None:
        # Not through sys.stdin: its lock would be held when the interpreter ends.
        while os.read(0, 1):
            pass
        stop()
        threading.Event().wait(STOPPING)
        os._exit(1)

    threading.Thread(target=watch, name="demo-input", daemon=True).start()


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    asyncio.run(serve(sys.argv[2]))

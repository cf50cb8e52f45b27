"""Identifiers that sort by the time they were made.

The layout is that of a ULID (https://github.com/ulid/spec): 48 bits of milliseconds and 80 random
bits in Crockford's base 32, 26 lower-case characters. Within one process they also count upwards.
"""

from __future__ import annotations

import os
import threading

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_RANDOM_BITS = 80

_lock = threading.Lock()
_last = 0


def new_id(now: float) -> str:
    """Return a new identifier of 26 characters.

    Args:
        now: wall time in seconds; only its order matters.
    """
    global _last  # noqa: PLW0603  the process-wide "never go back" mark
    fresh = (int(now * 1000) << _RANDOM_BITS) | int.from_bytes(os.urandom(10))
    with _lock:
        _last = fresh = max(fresh, _last + 1)
    return "".join(_PAIRS[(fresh >> shift) & 1023] for shift in range(120, -1, -10))

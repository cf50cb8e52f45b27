"""What a model call used, read off the answers of the usual clients."""

from __future__ import annotations

from typing import Any, Self

import msgspec


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one model call used.

    Args:
        input_tokens: tokens sent, cached ones included once.
        output_tokens: tokens received.
        cost: US dollars; None when unknown, which is not zero.
        reused: another run paid for it.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    reused: bool = False

    def encode(self) -> bytes | None:
        """Return the bytes kept in the journal; None when nothing is known."""
        return None if self == Usage() else msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes | None) -> Self:
        """Return what the journal kept."""
        return cls() if data is None else msgspec.json.decode(data, type=cls)


def usage_of(answer: Any) -> Usage | None:  # noqa: ANN401  any client's answer
    """Read the usage off an answer: its `usage` attribute, method or key, where it has one.

    Understands `input_tokens`/`output_tokens` (Anthropic, OpenAI responses, Pydantic AI) and
    `prompt_tokens`/`completion_tokens` (OpenAI chat).
    """
    usage = _part(answer, "usage")
    if usage is None:
        return None
    if callable(usage):
        usage = usage()
    sent = _count(usage, "input_tokens", "prompt_tokens", "request_tokens")
    received = _count(usage, "output_tokens", "completion_tokens", "response_tokens")
    if sent is None and received is None:
        return None
    # Anthropic counts cached tokens apart from `input_tokens`; the others count them among it.
    cached = sum(_count(usage, name) or 0 for name in _CACHED_APART)
    cost = _part(usage, "cost")
    known = float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None
    return Usage((sent or 0) + cached, received or 0, known)


_CACHED_APART = ("cache_creation_input_tokens", "cache_read_input_tokens")
"""https://docs.claude.com/en/docs/build-with-claude/prompt-caching ("cache performance")."""


def _part(value: Any, name: str) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return value.get(name)  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    return getattr(value, name, None)


def _count(usage: Any, *names: str) -> int | None:  # noqa: ANN401
    for name in names:
        count = _part(usage, name)
        if isinstance(count, int) and not isinstance(count, bool):
            return count
    return None

"""Verbs about the cross-run LLM cache and the counters."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast.store.verb import Steps, run, verb


class CacheHit(msgspec.Struct, frozen=True, array_like=True):
    """A cached output. Tokens and cost (US dollars) are what generating it took."""

    payload: bytes
    model: str
    input_tokens: int
    output_tokens: int
    cost: float | None
    created_at: float


class CacheMiss(msgspec.Struct, frozen=True):
    """Nothing usable is cached.

    `mine` says whether the caller is the one to generate it; otherwise `holder` does.
    """

    mine: bool
    holder: str | None = None


class Reservation(msgspec.Struct, frozen=True, array_like=True):
    """Who generates an output, and since when (wall time)."""

    holder: str
    since: float


@verb()
def look_up(
    namespace: str, key: bytes, model: str, holder: str, now: float
) -> Steps[CacheHit | CacheMiss]:
    """Return a cached output and count the hit, or reserve its generation for the caller."""
    rows = yield from run("cache.hit", namespace=namespace, key=key, now=now)
    if rows:
        hit = msgspec.convert(rows[0], CacheHit, strict=False)
        yield from count(
            holder,
            {
                "llm_cache.hits": 1,
                "llm_cache.input_tokens_saved": hit.input_tokens,
                "llm_cache.output_tokens_saved": hit.output_tokens,
                "llm_cache.cost_saved": hit.cost or 0.0,
            },
        )
        return hit
    rows = yield from run(
        "cache.reserve", namespace=namespace, key=key, model=model, holder=holder, now=now
    )
    if rows:
        yield from count(holder, {"llm_cache.misses": 1})
        return CacheMiss(mine=True)
    rows = yield from run("cache.holder", namespace=namespace, key=key)
    return CacheMiss(mine=False, holder=rows[0][0] if rows else None)


class CacheEntry(msgspec.Struct, frozen=True):
    """An output to keep for other runs. `ttl` is in seconds; None keeps it until invalidated."""

    payload: bytes
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    ttl: float | None = None


@verb()
def fill(namespace: str, key: bytes, holder: str, entry: CacheEntry, now: float) -> Steps[bool]:
    """Store what the holder of the reservation generated."""
    rows = yield from run(
        "cache.fill",
        namespace=namespace,
        key=key,
        holder=holder,
        payload=entry.payload,
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        cost=entry.cost,
        created_at=now,
        expires_at=None if entry.ttl is None else now + entry.ttl,
    )
    return bool(rows)


@verb()
def give_up(namespace: str, key: bytes, holder: str) -> Steps[None]:
    """Drop a reservation whose generation failed, or whose holder died."""
    yield from run("cache.give_up", namespace=namespace, key=key, holder=holder)


@verb()
def reservation(namespace: str, key: bytes) -> Steps[Reservation | None]:
    """Return who generates an output right now; None when nobody does."""
    rows = yield from run("cache.reservation", namespace=namespace, key=key)
    return msgspec.convert(rows[0], Reservation, strict=False) if rows else None


@verb()
def invalidate(namespace: str, key: bytes | None, model: str | None) -> Steps[int]:
    """Forget cached outputs of a namespace: one key, one model's, or all. Returns how many.

    What is being generated meanwhile isn't kept either.
    """
    rows = yield from run("cache.invalidate", namespace=namespace, key=key, model=model)
    return sum(row[0] for row in rows)


@verb()
def add_counts(writer: str, amounts: Mapping[str, float]) -> Steps[None]:
    """Add to counters."""
    yield from count(writer, amounts)


def count(writer: str, amounts: Mapping[str, float]) -> Steps[None]:
    """Add to counters inside a verb; zeros are left out."""
    for name, value in amounts.items():
        if value:
            yield from run("counter.add", name=name, writer=writer, value=value)


@verb()
def read_counters() -> Steps[dict[str, float]]:
    """Return the sum of every counter over all writers."""
    rows = yield from run("counter.sums")
    return {row[0]: row[1] for row in rows}

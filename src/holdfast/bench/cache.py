"""Model outputs that cost nothing: replayed within a run, shared between runs."""

from __future__ import annotations

import asyncio
import time

from holdfast.bench.figures import Bench, Figure, figure
from holdfast.bench.sites import Place
from holdfast.context import Context
from holdfast.llm_cache import LLMOutputCache
from holdfast.models import RetryPolicy
from holdfast.runner import TaskRunner
from holdfast.store import open_store

_OUTPUT = "An answer of some length. " * 40
TOGETHER = 100


async def ask(prompt: str) -> str:
    """Answer like a model would, for nothing."""
    del prompt
    return _OUTPUT


def replay(place: Place, count: int) -> float:
    """Record outputs in a first attempt; return how many a second replays in a second."""
    runner = TaskRunner(place.url, workspace=str(place.directory))

    @runner.task(retry=RetryPolicy(max_attempts=2, initial=0.0))
    async def job(ctx: Context) -> float:
        started = time.perf_counter()
        for number in range(count):
            await ctx.llm(ask, f"question {number}")
        if ctx.attempt == 1:
            message = "the first attempt only records"
            raise RuntimeError(message)
        return time.perf_counter() - started

    try:
        return count / runner.run(job)
    finally:
        runner.close()


async def share(place: Place, count: int) -> tuple[float, float]:
    """Fill a cache; return hits a second one after another, and so many at a time."""
    store = open_store(place.url)
    prompts = [f"question {number}" for number in range(count)]
    try:
        await _in_turns(LLMOutputCache(store), prompts, TOGETHER)
        alone = await _in_turns(LLMOutputCache(store), prompts, 1)
        return alone, await _in_turns(LLMOutputCache(store), prompts, TOGETHER)
    finally:
        store.close()


async def _in_turns(cache: LLMOutputCache, prompts: list[str], together: int) -> float:
    started = time.perf_counter()
    for first in range(0, len(prompts), together):
        turn = prompts[first : first + together]
        await asyncio.gather(*(cache.get_or_generate(ask, prompt) for prompt in turn))
    return len(prompts) / (time.perf_counter() - started)


def cache(bench: Bench) -> list[Figure]:
    """Measure hits of the LLM cache."""
    count = bench.size(1000)
    replayed: list[float] = []
    alone: list[float] = []
    together: list[float] = []
    for _ in range(bench.rounds):
        replayed.append(replay(bench.place(), count))
        one, many = asyncio.run(share(bench.place(), count))
        alone.append(one)
        together.append(many)
    return [
        figure("cache", "model outputs replayed within a run", "/s", replayed),
        figure(
            "cache", "hits shared between runs, one by one (each counted, durably)", "/s", alone
        ),
        figure("cache", f"hits shared between runs, {TOGETHER} at a time", "/s", together),
    ]

"""A model output is paid for once: within a run always, across runs where that was asked for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import types

import pytest

from holdfast import LeaseManager, LLMOutputCache, Reuse, Usage, errors
from holdfast.store import open_store
from holdfast.usage import usage_of


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/h.db"


@pytest.fixture
def attempt(url):
    def run(body, name="job"):
        async def attempt():
            async with LeaseManager(url) as leases, leases.hold(name) as journal:
                return await body(LLMOutputCache(journal))

        return asyncio.run(attempt())

    return run


class Model:
    """A paid model."""

    def __init__(self, *answers):
        self.asked = []
        self.answers = list(answers)

    async def ask(self, prompt, *, model="big", temperature=0.0, tools=()):
        self.asked.append((prompt, model, temperature, tools))
        await asyncio.sleep(0.02)
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
        return {
            "text": f"{prompt}!",
            "usage": {"input_tokens": 10, "output_tokens": 5, "cost": 0.5},
        }


def test_a_run_replays_its_outputs_and_counts_what_that_saved(attempt):
    model = Model()

    async def body(cache):
        return [await cache.get_or_generate(model.ask, "hi") for _ in range(2)]

    assert attempt(body) == attempt(body)
    assert len(model.asked) == 2  # each call is its own


def test_without_reuse_another_run_pays_again(attempt):
    model = Model()
    attempt(lambda cache: cache.get_or_generate(model.ask, "hi"), "one")
    attempt(lambda cache: cache.get_or_generate(model.ask, "hi"), "two")
    assert len(model.asked) == 2


def test_with_reuse_the_key_covers_the_whole_request(attempt):
    model = Model()
    requests = [
        (("hi",), {}),
        (("ho",), {}),
        (("hi",), {"model": "small"}),
        (("hi",), {"temperature": 1.0}),
        (("hi",), {"tools": ("search",)}),
    ]

    async def body(cache):
        for args, kwargs in requests:
            await cache.call(model.ask, args, kwargs, reuse=Reuse())
        await cache.call(model.ask, ("hi",), {}, reuse=Reuse(namespace="other"))
        await cache.call(model.ask, ("hi",), {}, reuse=Reuse(), model="named")

    attempt(body, "one")
    assert len(model.asked) == 7
    attempt(body, "two")
    assert len(model.asked) == 7


def test_reuse_ends_with_its_time_and_by_invalidation(attempt, url):
    model = Model()

    def ask(name, ttl=None):
        reuse = Reuse(ttl=ttl)
        attempt(lambda cache: cache.call(model.ask, ("hi",), {}, reuse=reuse), name)
        return len(model.asked)

    assert ask("a", ttl=0.0) == 1
    assert ask("b") == 2
    assert ask("c") == 2
    with LLMOutputCache(url) as cache:
        assert asyncio.run(cache.invalidate("elsewhere")) == 0
        assert asyncio.run(cache.invalidate(model="other")) == 0
        assert asyncio.run(cache.invalidate(model="big")) == 1
    assert ask("d") == 3


def test_two_identical_concurrent_calls_with_reuse_cost_one(attempt):
    model = Model()

    async def body(cache):
        calls = [cache.call(model.ask, ("hi",), {}, reuse=Reuse()) for _ in range(5)]
        return await asyncio.gather(*calls)

    first, *rest = attempt(body)
    assert rest == [first] * 4
    assert len(model.asked) == 1


def test_failures_replay_but_are_never_shared(attempt, url):
    model = Model(ConnectionError("down"))

    async def fails(cache):
        with pytest.raises(ConnectionError, match="down"):
            await cache.call(model.ask, ("hi",), {}, reuse=Reuse())

    attempt(fails, "one")
    attempt(fails, "one")
    assert len(model.asked) == 1
    attempt(lambda cache: cache.call(model.ask, ("hi",), {}, reuse=Reuse()), "two")
    assert len(model.asked) == 2


def test_a_canceled_call_lets_others_generate_at_once(attempt):
    model = Model()

    async def slow(prompt):
        await asyncio.sleep(10)

    slow.__qualname__ = Model.ask.__qualname__

    async def body(cache):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await cache.call(slow, ("hi",), {}, reuse=Reuse(), name="m", model="x")
        async with asyncio.timeout(2):
            await cache.call(model_like, ("hi",), {}, reuse=Reuse(), name="m", model="x")

    async def model_like(prompt):
        return await model.ask(prompt)

    attempt(body)
    assert len(model.asked) == 1


def test_an_answer_that_cannot_be_kept_is_an_error_and_frees_the_reservation(attempt):
    async def odd(prompt: str) -> object:
        return object()

    async def body(cache):
        for _ in range(2):
            with pytest.raises(errors.EncodingError):
                async with asyncio.timeout(2):
                    await cache.call(odd, ("hi",), {}, reuse=Reuse())

    attempt(body)


def test_a_paid_answer_is_kept_though_its_usage_cannot_be_read(attempt):
    model = Model()

    def broken(_answer):
        raise KeyError("tokens")

    def body(cache):
        return cache.call(model.ask, ("hi",), {}, measure=broken)

    assert attempt(body) == attempt(body)
    assert len(model.asked) == 1


def test_counters_are_durable(attempt, url):
    model = Model()
    for name in ("one", "two", "three"):
        attempt(lambda cache: cache.call(model.ask, ("hi",), {}, reuse=Reuse()), name)
    with LLMOutputCache(url) as cache:
        stats = cache.stats()
    assert stats["llm_cache.hits"] == 2
    assert stats["llm_cache.misses"] == 1
    assert stats["llm_cache.input_tokens_saved"] == 20
    assert stats["llm_cache.output_tokens_saved"] == 10
    assert stats["llm_cache.cost_saved"] == 1.0


def test_alone_on_a_url_it_shares_between_processes_in_three_lines(url):
    model = Model()

    async def main():
        with LLMOutputCache(url) as cache:
            return await cache.get_or_generate(model.ask, "hi")

    assert asyncio.run(main()) == asyncio.run(main())
    assert len(model.asked) == 1


HOLDER = """
import asyncio, os, signal, sys
from holdfast import LLMOutputCache

async def ask(prompt: str) -> str:
    print("asked", flush=True)
    await asyncio.sleep(float(sys.argv[2]))
    return prompt + "!"

async def main():
    with LLMOutputCache(sys.argv[1]) as cache:
        print(await cache.get_or_generate(ask, "hi"), flush=True)

asyncio.run(main())
"""


def start(url, seconds):
    return subprocess.Popen(  # noqa: S603  this interpreter, a script of ours
        [sys.executable, "-c", HOLDER, url, str(seconds)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_that_ask_at_once_pay_once(url):
    open_store(url).close()
    first = start(url, 0.6)
    assert first.stdout.readline() == "asked\n"
    second = start(url, 0.6)
    outputs = first.communicate(timeout=20)[0], second.communicate(timeout=20)[0]
    assert outputs == ("hi!\n", "hi!\n")


def test_a_holder_that_dies_is_taken_over(url):
    first = start(url, 60)
    assert first.stdout.readline() == "asked\n"
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    second = start(url, 0)
    assert second.communicate(timeout=10)[0] == "asked\nhi!\n"


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}, Usage(3, 4)),
        ({"usage": {"input_tokens": 3, "output_tokens": 4, "cost": 0.1}}, Usage(3, 4, 0.1)),
        (
            types.SimpleNamespace(
                usage=types.SimpleNamespace(
                    input_tokens=3,
                    output_tokens=4,
                    cache_read_input_tokens=10,
                    cache_creation_input_tokens=None,
                )
            ),
            Usage(13, 4),
        ),
        (
            types.SimpleNamespace(
                usage=lambda: types.SimpleNamespace(input_tokens=3, output_tokens=4)
            ),
            Usage(3, 4),
        ),
        ("text", None),
        ({"usage": {"seconds": 3}}, None),
        (None, None),
    ],
)
def test_usage_is_read_off_the_usual_answers(answer, usage):
    assert usage_of(answer) == usage

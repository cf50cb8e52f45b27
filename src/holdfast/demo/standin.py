"""An offline stand-in for a model: no model is called, no network is used, nothing is paid.

It takes as long as a quick call would, answers the same to the same prompt, and keeps a log of its
own of every call, as a provider's bill would: what was paid for is counted there, not by Holdfast.
Its prices are made up.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from holdfast.clock import SystemClock
from holdfast.demo.appending import append_line, read_lines

MODEL = "offline-stand-in"
LABEL = "offline stand-in, no model was called; tokens and prices are made up"
PROVIDER_LOG = "provider.jsonl"

PRICE_IN = 3.0 / 1_000_000
PRICE_OUT = 15.0 / 1_000_000
"""US dollars a token: made up."""

QUICKEST, SLOWEST = 0.08, 0.25
"""Seconds an answer takes."""


class ProviderCall(msgspec.Struct, frozen=True):
    """One line of the provider's log: a call is paid for from the moment it arrives.

    Args:
        prompt: SHA-256 of the prompt.
        pid: of the process that called.
        at: wall time in seconds.
    """

    prompt: str
    pid: int
    at: float


def offline_model(prompt: str, model: str = MODEL) -> dict[str, Any]:
    """Answer a prompt with its own words. Logged first: it is paid for even if its caller dies."""
    digest = prompt_digest(prompt)
    call = ProviderCall(digest, os.getpid(), SystemClock().now())
    append_line(Path(PROVIDER_LOG), msgspec.json.encode(call))
    time.sleep(QUICKEST + (SLOWEST - QUICKEST) * int(digest[:4], 16) / 0xFFFF)
    text = _answer(prompt)
    sent, received = len(prompt) // 4 + 1, len(text) // 4 + 1
    cost = sent * PRICE_IN + received * PRICE_OUT
    return {
        "model": model,
        "label": LABEL,
        "text": text,
        "usage": {"input_tokens": sent, "output_tokens": received, "cost": cost},
    }


def _answer(prompt: str) -> str:
    """Return the first sentence of each quoted line, which is all the intelligence there is."""
    quoted = [line[2:] for line in prompt.splitlines() if line.startswith("> ")]
    sentences = [line.partition(". ")[0].rstrip(".") for line in quoted if line.strip()]
    return ". ".join(sentences) + "." if sentences else "Nothing is said about it."


def prompt_digest(prompt: str) -> str:
    """Return what a prompt is called in the provider's log."""
    return hashlib.sha256(prompt.encode()).hexdigest()


def provider_calls(directory: Path) -> list[ProviderCall]:
    """Return every call the stand-in answered or began to answer, in order."""
    lines = read_lines(directory / PROVIDER_LOG)
    return [msgspec.json.decode(line, type=ProviderCall) for line in lines]

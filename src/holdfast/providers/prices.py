"""What an answer used and what it cost, and what a request may cost at most."""

from __future__ import annotations

import logging
from typing import Any

from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.usage import RequestUsage
from pydantic_core import to_json

from holdfast.usage import Usage

BYTES_PER_TOKEN = 3
"""Fewer than the four that English text has, so that an estimate is seldom too low."""

OUTPUT_TOKENS = 4096
"""Tokens reserved for an answer where `max_tokens` doesn't say how many it may have."""

log = logging.getLogger("holdfast")


def used(response: ModelResponse) -> Usage:
    """Return the tokens and the cost of an answer; a cost nobody knows is None, not zero.

    Tokens read from or written to a provider's cache are part of `input_tokens`, once.
    """
    usage = response.usage
    if usage.unmeasured_requests:
        return Usage()
    return Usage(usage.input_tokens, usage.output_tokens, _cost(response))


def at_most(model: Model, request: dict[str, Any], max_tokens: object) -> Usage:
    """Return what a request may use, for a budget to reserve: an estimate, on the high side.

    Args:
        model: what will be asked.
        request: its canonical form.
        max_tokens: how many tokens the answer may have, where that is known.
    """
    sent = -(-len(to_json(request)) // BYTES_PER_TOKEN)
    received = max_tokens if isinstance(max_tokens, int) else OUTPUT_TOKENS
    try:
        answer = ModelResponse(
            parts=[],
            usage=RequestUsage(input_tokens=sent, output_tokens=received),
            model_name=model.model_name,
            provider_name=model.system,
            provider_url=model.base_url,
        )
    except Exception as error:  # noqa: BLE001  a model of the program's, which may have no name
        log.debug("What %r may cost isn't known: %s", model, error)
        return Usage(sent, received)
    return Usage(sent, received, _cost(answer))


def _cost(response: ModelResponse) -> float | None:
    """Return US dollars; None when the model's price isn't known."""
    if not response.model_name:
        return None
    try:
        return float(response.cost().total_price)
    except (LookupError, ValueError, AssertionError):
        return None

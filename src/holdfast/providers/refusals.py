"""What a provider's failures mean: come again later, try again, or never."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx2
from pydantic_ai.exceptions import (
    ContentFilterError,
    ModelAPIError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
    UserError,
)

from holdfast import errors

_RESETS = re.compile(r"(?:x-ratelimit-reset-(.+)|anthropic-ratelimit-(.+)-reset)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([\d.]+)(ms|s|m|h|d)")


@contextmanager
def translated(name: str) -> Generator[None]:
    """Raise what a provider or its client raises as an error of ours, with it as the cause.

    Args:
        name: of the model.

    Raises:
        RateLimitedError: too many requests, or no quota left; says when to come again.
        ProviderUnavailableError: the provider failed or couldn't be reached; try again.
        RequestRejectedError: the request can't succeed as it is.
    """
    try:
        yield
    except ModelAPIError as error:
        raise _meaning(name, error) from error
    except (httpx2.TransportError, httpx2.StreamError, ConnectionError) as error:
        text = f"The answer of {name} broke off: {error or type(error).__name__}."
        raise errors.ProviderUnavailableError(text) from error
    except (UserError, ContentFilterError) as error:
        raise errors.RequestRejectedError(f"{name} was not asked: {error}") from error
    except UnexpectedModelBehavior as error:
        raise errors.ProviderUnavailableError(f"{name} answered nonsense: {error}") from error


def _meaning(name: str, error: ModelAPIError) -> errors.HoldfastError:
    status = error.status_code if isinstance(error, ModelHTTPError) else None
    headers = (error.headers if isinstance(error, ModelHTTPError) else None) or {}
    why = _explain(error)
    overloaded = isinstance(error, ModelUnavailableError) and error.retry_after is not None
    if isinstance(error, ModelRateLimitError | ModelQuotaExceededError) or overloaded:
        wait = seconds_until_reset(headers)
        seconds = error.retry_after if wait is None else wait
        text = f"{name} takes no more requests for now: {why}"
        return errors.RateLimitedError(text, retry_after=seconds)
    if isinstance(error, ModelRequestRejectedError) or _is_final(status):
        text = f"{name} rejected the request ({status or 'no status'}): {why}"
        return errors.RequestRejectedError(text, status=status)
    text = f"{name} could not answer ({status or 'no connection'}): {why}"
    return errors.ProviderUnavailableError(text, status=status)


def _is_final(status: int | None) -> bool:
    """Say whether an HTTP status says that the same request will never succeed."""
    return status in range(400, 500) and status not in {408, 409, 425, 429}


def _explain(error: ModelAPIError) -> str:
    body: Any = error.body
    while isinstance(body, Mapping):
        told = cast("Mapping[str, Any]", body)
        body = told.get("error", told.get("message"))
    return body if isinstance(body, str) and body else error.message


# -- when to come again ---------------------------------------------------------------------------


def seconds_until_reset(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a provider asks to wait, by the headers of its answer.

    `retry-after` counts before all others. Of several limits, those count of which nothing remains.
    Points in time are compared with the provider's own clock, the `date` of the answer, so that
    this machine's may be wrong.

    Args:
        headers: names in lower case.
    """
    now = _moment(headers.get("date"))
    asked = _seconds(headers.get("retry-after-ms"), 0.001)
    if asked is None:
        asked = _seconds(headers.get("retry-after"))
    if asked is None:
        asked = _until(_moment(headers.get("retry-after")), now)
    if asked is not None:
        return asked
    waits: dict[bool, list[float]] = {True: [], False: []}
    for header, value in headers.items():
        match = _RESETS.fullmatch(header)
        wait = None if match is None else _wait(value, now)
        if match is not None and wait is not None:
            waits[_is_used_up(headers, match[1], match[2])].append(wait)
    return max(waits[True] or waits[False], default=None)


def _is_used_up(headers: Mapping[str, str], openai: str | None, anthropic: str | None) -> bool:
    remaining = (
        f"x-ratelimit-remaining-{openai}"
        if openai is not None
        else f"anthropic-ratelimit-{anthropic}-remaining"
    )
    return headers.get(remaining) == "0"


def _wait(value: str, now: datetime | None) -> float | None:
    """Return the seconds that a reset header means: a duration, a point in time, or a number."""
    parts = _DURATION.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    seconds = _seconds(value)
    return _until(_moment(value), now) if seconds is None else seconds


def _seconds(value: str | None, unit: float = 1.0) -> float | None:
    try:
        return None if value is None else max(0.0, float(value) * unit)
    except ValueError:
        return None


def _moment(value: str | None) -> datetime | None:
    if not value:
        return None
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(value)
        except ValueError:
            continue
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return None


def _until(moment: datetime | None, now: datetime | None) -> float | None:
    if moment is None or now is None:
        return None
    return max(0.0, (moment - now).total_seconds())

"""Values given as JSON on the command line, and how they become a function's arguments."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, cast

import msgspec

from holdfast import errors
from holdfast.handlers import Handler
from holdfast.secret import Secret


def parse_json(text: str, what: str) -> Any:  # noqa: ANN401  any JSON value
    """Return a value given as JSON.

    Raises:
        UsageError: it isn't JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        message = f"{what} is nested too deeply."
        raise errors.UsageError(message) from None
    except ValueError as error:
        hint = f" Text needs quotes: '\"{text}\"'." if text.isidentifier() else ""
        shown = text if len(text) <= 60 else text[:59] + "…"  # noqa: PLR2004
        message = f"{what} is no JSON: {shown!r} ({error}).{hint}"
        raise errors.UsageError(message) from None


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON"
    raise ValueError(message)


def parse_arguments(together: str | None, single: Sequence[str]) -> dict[str, Any]:
    """Return arguments by name, from `--args` and the `--arg`s, which add to it.

    Raises:
        UsageError: one isn't `name=JSON`, or is given twice.
    """
    given: object = {} if together is None else parse_json(together, "--args")
    if not isinstance(given, dict):
        message = "--args takes a JSON object: the arguments by name."
        raise errors.UsageError(message)
    arguments = cast("dict[str, Any]", given)
    for each in single:
        name, equals, text = each.partition("=")
        if not equals or not name.isidentifier():
            message = f"--arg takes name=JSON, not {each!r}."
            raise errors.UsageError(message)
        if name in arguments:
            message = f"Argument {name} is given twice."
            raise errors.UsageError(message)
        arguments[name] = parse_json(text, f"--arg {name}")
    return arguments


def fit(handler: Handler[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values as the types the function's parameters are annotated with.

    Dataclasses, models, dates and the like are built from their JSON form; a parameter whose
    annotation can't be read, or isn't known, is given the plain value.

    Raises:
        ArgumentsError: a value doesn't fit.
    """
    try:
        hints = typing.get_type_hints(handler.function, include_extras=True)
    except Exception:  # noqa: BLE001  resolving annotations runs any code
        hints = {}
    return {
        name: _convert(handler.name, name, value, hints[name]) if name in hints else value
        for name, value in arguments.items()
    }


def _convert(task: str, name: str, value: object, hint: Any) -> object:  # noqa: ANN401
    try:
        return msgspec.convert(value, hint, dec_hook=_build)
    except msgspec.ValidationError as error:
        message = f"Argument {name} of {task} doesn't fit: {error}. Nothing was recorded."
        raise errors.ArgumentsError(message) from None
    except Exception:  # noqa: BLE001  an annotation msgspec can't work with
        return value


def _build(kind: Any, value: object) -> object:  # noqa: ANN401
    """Build what msgspec doesn't know itself: pydantic models and secrets."""
    validate: Callable[[object], object] | None = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(value)
    if (typing.get_origin(kind) or kind) is Secret and isinstance(value, str):
        return Secret(value)
    message = f"{kind} is not supported"
    raise NotImplementedError(message)

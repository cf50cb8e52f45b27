"""A typed output: how it is asked for, and how it is read off an answer."""

from __future__ import annotations

import functools
import json
from contextlib import suppress
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.tools import ToolDefinition

from holdfast import errors
from holdfast.registry import register_type

TOOL = "final_result"
"""The tool that a model calls with its output, unless it can answer in a schema by itself."""

_WRAPPED = "response"


class Output:
    """What is to come out of a request.

    Args:
        type_: anything Pydantic can validate, such as a model, a dataclass or `list[int]`; `str` is
            the text of the answer.

    Raises:
        ArgumentsError: Pydantic can't make a schema of it.
    """

    def __init__(self, type_: Any) -> None:  # noqa: ANN401  whatever Pydantic knows
        self.type = type_
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(type_)
            schema = self._adapter.json_schema()
        except Exception as error:
            message = f"{type_!r} is no type a model can answer in: {error}. Nothing was sent."
            raise errors.ArgumentsError(message) from error
        self._is_object = schema.get("type") == "object" and "properties" in schema
        self._schema = schema if self._is_object else _wrapped(schema)
        if isinstance(type_, type):
            _register(type_)

    def ask_for(self, parameters: ModelRequestParameters) -> ModelRequestParameters:
        """Return parameters with which a model answers in this type."""
        if self.type is str:
            return parameters
        description = getattr(self.type, "__doc__", None)
        return ModelRequestParameters(
            function_tools=parameters.function_tools,
            output_mode="auto",
            output_object=OutputObjectDefinition(
                json_schema=self._schema, name=TOOL, description=description
            ),
            output_tools=[
                ToolDefinition(
                    name=TOOL,
                    parameters_json_schema=self._schema,
                    description=description or "The final result.",
                    kind="output",
                )
            ],
            allow_text_output=False,
        )

    def read(self, name: str, response: ModelResponse) -> Any:  # noqa: ANN401  the type's
        """Return the output that an answer holds.

        Args:
            name: of the model, for the message.
            response: the answer.

        Raises:
            OutputRejectedError: it holds none of that type.
        """
        if self.type is str:
            return response.text or ""
        calls = [call for call in response.tool_calls if call.tool_name == TOOL]
        text = calls[0].args_as_json_str() if calls else response.text or ""
        try:
            if not self._is_object:
                text = json.dumps(json.loads(text)[_WRAPPED])
            return self._adapter.validate_json(text)
        except (ValidationError, ValueError, LookupError, TypeError) as error:
            message = (
                f"{name} was to answer with {_describe(self.type)}, and its answer is none: "
                f"{str(error).splitlines()[0]}"
            )
            raise errors.OutputRejectedError(message) from error


@functools.lru_cache(maxsize=256)
def _known(type_: Any) -> Output:  # noqa: ANN401
    return Output(type_)


def output_of(type_: Any) -> Output:  # noqa: ANN401  whatever Pydantic knows
    """Return the output of that type; a schema is made once for each."""
    try:
        return _known(type_)
    except TypeError:  # it can't be hashed
        return Output(type_)


def _wrapped(schema: dict[str, Any]) -> dict[str, Any]:
    inner = {name: part for name, part in schema.items() if name != "$defs"}
    outer: dict[str, Any] = {
        "type": "object",
        "properties": {_WRAPPED: inner},
        "required": [_WRAPPED],
    }
    return outer | ({"$defs": schema["$defs"]} if "$defs" in schema else {})


def _register(cls: type) -> None:
    """Let values of the type be what a handler returns or a checkpoint holds."""
    with suppress(errors.UsageError):  # a built-in type, or one that is only ever data
        register_type(cast("type[Any]", cls))


def _describe(type_: object) -> str:
    return getattr(type_, "__name__", None) or str(type_)

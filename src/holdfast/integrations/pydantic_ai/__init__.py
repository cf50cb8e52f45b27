"""Pydantic AI's agents, made durable without a change to them; see `DurableAgent`."""

from holdfast import providers

providers.require()

from holdfast.integrations.pydantic_ai.agent import DurableAgent  # noqa: E402  says what is missing

__all__ = ["DurableAgent"]

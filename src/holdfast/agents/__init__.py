"""Agents: plans by a model, tools in a workspace, gates that say when it is done.

`holdfast.agents:runner` is an application for `holdfast worker`: it executes the tasks of
`holdfast agent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.runner import TaskRunner

    runner: TaskRunner


def __getattr__(name: str) -> TaskRunner:
    """Make the runner when it is asked for: most of this package works without one."""
    if name != "runner":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from holdfast.agents.rounds import Agent
    from holdfast.runner import TaskRunner

    made = TaskRunner()
    Agent(made)
    globals()["runner"] = made
    return made

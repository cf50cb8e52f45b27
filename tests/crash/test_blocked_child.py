"""A child whose `once` call is in doubt, and the parent that waits for it."""

from __future__ import annotations

import pytest

from holdfast import Context, TaskRunner, errors, tool


def test_a_parent_whose_child_is_in_doubt_is_blocked_and_goes_on_when_that_is_resolved(tmp_path):
    runner = TaskRunner(f"sqlite:///{tmp_path / 'holdfast.db'}", workspace=str(tmp_path))

    @tool
    async def send() -> str:
        raise ConnectionError

    @runner.task
    async def child(ctx: Context) -> str:
        return await ctx.tool(send)

    @runner.task
    async def parent(ctx: Context) -> str:
        return await ctx.child(child)

    with pytest.raises(errors.TaskBlockedError) as blocked:
        runner.run(parent)
    (need,) = blocked.value.needs
    runner.resolve(need.split()[2].rstrip(":"), "done", "sent")
    assert runner.run(parent) == "sent"
    runner.close()

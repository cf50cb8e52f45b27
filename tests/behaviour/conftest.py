"""What the behaviour tests share: a runner on a database of its own, and a log of what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast import RetryPolicy, TaskRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The workspace of the test."""
    place = tmp_path / "work"
    place.mkdir()
    return place


@pytest.fixture
def new_runner(tmp_path: Path, work: Path) -> Iterator[Callable[..., TaskRunner]]:
    """Make runners on one database; each counts as another program."""
    made: list[TaskRunner] = []

    def make(**settings: object) -> TaskRunner:
        given = {"workspace": str(work), "lease": 5.0} | settings
        runner = TaskRunner(f"sqlite:///{tmp_path}/holdfast.db", **given)
        made.append(runner)
        return runner

    yield make
    for runner in made:
        runner.close()


@pytest.fixture
def runner(new_runner: Callable[..., TaskRunner]) -> TaskRunner:
    return new_runner()


@pytest.fixture
def quick() -> RetryPolicy:
    """Three attempts without waiting."""
    return RetryPolicy(max_attempts=3, initial=0.001, maximum=0.002)

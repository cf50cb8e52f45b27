"""What the tests of models share: a provider that they script, and runners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast import RetryPolicy, TaskRunner

OPENAI, CHAT, ANTHROPIC = (
    "openai:gpt-5-mini",
    "openai-chat:gpt-5-mini",
    "anthropic:claude-haiku-4-5",
)
BOTH = pytest.mark.parametrize("model", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])


@pytest.fixture
def new_runner(tmp_path: Path) -> Iterator[Callable[..., TaskRunner]]:
    """Make runners on one database; each counts as another program."""
    made: list[TaskRunner] = []

    def make(**settings: object) -> TaskRunner:
        given = {"workspace": str(tmp_path), "lease": 5.0} | settings
        made.append(TaskRunner(f"sqlite:///{tmp_path}/holdfast.db", **given))
        return made[-1]

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


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a provider that fails again at once."""
    monkeypatch.setattr("holdfast.model_calls.PAUSE", 0.001)

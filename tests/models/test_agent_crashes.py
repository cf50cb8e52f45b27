"""An agent that is killed anywhere goes on; the provider itself counts what it was asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.model_server import Asked, Say, Use

PROGRAM = Path(__file__).with_name("agent_crashes.py")


def clerk(asked: Asked) -> Say | str:
    """Three answers: two of them call tools side by side."""
    if asked.round == 0:
        looks = (Use("search", {"what": "tides"}), Use("search", {"what": "moons"}))
        return Say("Let me see.", (*looks, Use("send", {"to": "ann"})))
    if asked.round == 1:
        return Say(calls=(Use("file_away", {"text": "tides"}), Use("send", {"to": "bob"})))
    return "All done."


@pytest.mark.timeout(180)
def test_killed_at_every_boundary_each_answer_is_paid_for_once_and_nothing_is_sent_twice(
    serve, tmp_path
):
    server = serve(clerk)
    folder = tmp_path / "runs"
    folder.mkdir()
    done = subprocess.run(  # noqa: S603  our own program
        [sys.executable, PROGRAM],
        cwd=folder,
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    points = json.loads(done.stdout)
    asked = Counter(request.prompt for request in server.requests)
    distinct = {prompt: set[str]() for prompt in asked}
    for request in server.requests:
        distinct[request.prompt].add(request.digest)

    assert len(points) >= 30
    lost: list[str] = []
    for point in points:
        prompt = point["point"]
        assert len(distinct[prompt]) == 3, point
        # What was answered and not yet recorded can't be known: that one answer is asked for again.
        extra = asked[prompt] - 3
        assert extra in {0, 1}, point
        lost += [point["label"]] * extra
    # Right before an answer was recorded. Tools run side by side, so which commit that is differs.
    assert 1 <= len(lost) <= 6, lost
    assert all(label.startswith("before commit") for label in lost)
    # Around each call of `send`: after its intent, before and after its effect, before its outcome.
    assert sum(point["doubts"] for point in points) >= 4
    whole_or_streamed = {(request.protocol, request.stream) for request in server.requests}
    assert whole_or_streamed == {("responses", False), ("anthropic", True)}

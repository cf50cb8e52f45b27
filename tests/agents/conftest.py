"""What the tests of agents share: `bench`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.agent_bench import Bench
from support.model_server import Fail, ModelServer


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    with ModelServer(lambda _: Fail(400, "There is no script.")) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield Bench(tmp_path, server)

"""`holdfast copy` in real processes: what was under way goes on, and a copy that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "program.py"
COMMAND = "import sys; from holdfast.cli import main; sys.exit(main())"


@pytest.fixture
def program(tmp_path):
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, *arguments], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def begun(program, tmp_path):
    """A database whose only process was killed while tasks were in every state."""
    process = program(str(PROGRAM), "begin", "sqlite:///source.db")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    process.kill()
    process.wait()
    return f"sqlite:///{tmp_path}/source.db"


def ended(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    return out


def test_what_was_under_way_finishes_on_the_target_with_nothing_repeated(
    program, begun, postgres_url
):
    out = ended(program("-c", COMMAND, "copy", begun, postgres_url))
    assert "Nothing differs" in out
    assert "unbroken" in out
    done = json.loads(ended(program(str(PROGRAM), "finish", postgres_url)))
    assert done["outbox"] == ["after", "before", "login s3cret-key", "unsure", "word"]
    assert done["paid"] == ["notes", *(f"round {n}" for n in range(5))]


def test_a_copy_that_is_killed_leaves_nothing_or_everything_and_a_second_call_completes_it(
    program, begun, postgres_url
):
    assert "killed in" in ended(program(str(PROGRAM), "kill", begun, postgres_url))

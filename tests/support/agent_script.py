"""A model that fixes a bug in a small repository, as a script for `support.model_server`.

What it answers follows from the request alone, so a program that was killed and asks again is told
the same. `python -m support.model_server tests/support/agent_script.py:fix LOG` makes it a server.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from support.model_server import Asked, Fail, Say, Use

GOAL = "Make the failing test pass, and note what was wrong in NOTES.md."

TEST = ["pytest", "-q"]
"""What proves it: declared repeatable by being evidence."""

LOOK = ["pytest", "-q", "tests"]
"""What the model runs itself. It wasn't declared repeatable, so it is `once`."""

BUG = "def add(a, b):\n    return a - b\n"
FIXED = "def add(a, b):\n    return a + b\n"
NOTES = "add() subtracted its second argument.\n"

FILES = {
    "calc.py": BUG,
    "tests/test_calc.py": "from calc import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n",
    "pyproject.toml": (
        '[tool.pytest.ini_options]\npythonpath = ["."]\n'
        'addopts = "--disable-plugin-autoload"\n'  # this environment's would take a second
    ),
    ".gitignore": ".pytest_cache\n__pycache__\n.runs\n",
    # Tells how often pytest was run, and by whom; in the workspace, for a sandbox hides the rest.
    "conftest.py": (
        "import os, sys\n\n\ndef pytest_sessionstart():\n"
        "    where = os.path.join(os.path.dirname(__file__), '.runs')\n"
        "    with open(where, 'a') as runs:\n"
        "        runs.write(' '.join(sys.argv[1:]) + '\\n')\n"
    ),
}


def make_repository(root: Path, *, watched: bool = True) -> Path:
    """Make a git repository whose test fails; `watched` tells how often its tests are run."""
    for name, text in FILES.items():
        if name == "conftest.py" and not watched:
            continue
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "One bug")
    return root


def git(root: Path, *words: str) -> str:
    """Run git there."""
    who = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    command = ["git", *who, *words]
    ended = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)  # noqa: S603
    return ended.stdout


def restore(root: Path) -> None:
    """Put the repository back as it was made."""
    git(root, "reset", "-q", "--hard")
    git(root, "clean", "-qfd")


def plan(*items: dict[str, Any]) -> Say:
    """Return an answer that is a plan."""
    return Say(calls=(Use("final_result", {"summary": "Fix add().", "items": list(items)}),))


FIX = {
    "id": "fix",
    "title": "Correct add()",
    "instructions": "calc.add subtracts. Make tests/test_calc.py pass.",
    "mode": "implementation",
    "evidence": [{"kind": "command", "argv": TEST}],
}
NOTE = {
    "id": "note",
    "title": "Say what was wrong",
    "instructions": "Write NOTES.md: one sentence on the bug.",
    "mode": "implementation",
    "after": ["fix"],
    "evidence": [{"kind": "file", "path": "NOTES.md"}],
}


def fix(asked: Asked) -> Say | Fail | str:
    """Answer as a model would that knows its way about this repository."""
    if "final_result" in asked.tools:
        return _planning(asked)
    if "Your part: Correct add()" in asked.prompt:
        return _fixing(asked)
    if "Your part: Say what was wrong" in asked.prompt:
        return _noting(asked)
    return Fail(400, f"The script has no answer to {asked.prompt!r}.", "invalid_request_error")


def _planning(asked: Asked) -> Say:
    steps = (
        Say("I look around first.", calls=(Use("list_files", {"path": "."}),)),
        Say(calls=(Use("read_file", {"path": "calc.py"}),
                   Use("read_file", {"path": "tests/test_calc.py"}))),
        plan(FIX, NOTE),
    )  # fmt: skip
    return steps[min(asked.round, len(steps) - 1)]


def _fixing(asked: Asked) -> Say | str:
    steps = (
        Say(calls=(Use("run_command", {"argv": LOOK}),)),
        Say(calls=(Use("read_file", {"path": "calc.py"}),)),
        Say(calls=(Use("edit_file", {"path": "calc.py", "old": "a - b", "new": "a + b"}),)),
        Say(calls=(Use("run_command", {"argv": LOOK}),)),
        "add() adds now, and the test passes.",
    )
    return steps[min(asked.round, len(steps) - 1)]


def _noting(asked: Asked) -> Say | str:
    steps = (
        Say(calls=(Use("write_file", {"path": "NOTES.md", "content": NOTES}),)),
        "NOTES.md says what was wrong.",
    )
    return steps[min(asked.round, len(steps) - 1)]

"""There is one export place, and it exports what it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

PACKAGE = Path(holdfast.__file__).parent
PUBLIC = [
    "Approval", "Budget", "Checkpoint", "CheckpointManager", "CheckpointType", "Clock", "Context",
    "Done", "Effect", "Evidence", "EvidencePack", "EvidenceVerifier", "Handler", "ItemPolicy",
    "ItemStatus", "LLMOutputCache", "LeaseManager", "Mode", "ModePipelineRunner", "ModeSelector",
    "NotDone", "RecoverySweep", "Retention", "RetryPolicy", "Reuse", "Secret", "Store",
    "SyncContext", "SystemClock", "Task", "TaskHandle", "TaskRunner", "TaskStatus", "Tool",
    "ToolLedger", "Unknown", "Usage", "Verdict", "VerdictStatus", "WorkItem", "Worker", "Workspace",
    "__version__", "idempotency_key", "open_store", "register_type", "tool",
]  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_the_public_names_are_these():
    assert holdfast.__all__ == PUBLIC


def test_every_public_name_is_there():
    assert [name for name in PUBLIC if not hasattr(holdfast, name)] == []


def test_nothing_is_imported_that_is_not_exported():
    tree = ast.parse(Path(holdfast.__file__).read_text("utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("holdfast")
        for alias in node.names
    }
    assert imported == set(PUBLIC)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_the_root_package(module: Path):
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert "holdfast" not in [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "holdfast":
            # `from holdfast import errors` names a module; a public name would be the root's own.
            names = {alias.name for alias in node.names}
            assert not names & set(PUBLIC)
            for name in names:
                assert (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def test_importing_it_leaves_the_slow_things_for_later():
    code = "import sys, holdfast; print(*sys.modules)"
    done = subprocess.run(  # noqa: S603  our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"click", "rich", "psycopg", "pydantic", "http.client"} & set(done.stdout.split())

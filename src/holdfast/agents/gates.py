"""Gates: commands that say whether an agent's work may count as done.

Three have names of their own, and what they run is found by rules that are fixed here:

- `doctor`: the workspace is sane. In a git checkout nothing is unmerged, and what isn't committed
  has no conflict markers; `pyproject.toml`, `Cargo.toml` and `package.json` in its root parse.
- `smoke`: the code loads. Every Python file compiles; the entry points that `package.json`
  declares pass `node --check`.
- `tests`: the project's own test command, the first of: pytest where it is configured or where
  `tests/`, `test/` or the root hold `test_*.py`; `npm test` where `package.json` has a test
  script; `make test` where the Makefile has that target; `cargo test`; `go test ./...`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from holdfast import errors
from holdfast.agents import checks
from holdfast.evidence import Evidence, EvidencePack, VerdictStatus, WorkspaceRef
from holdfast.redaction import redact
from holdfast.verifiers import EvidenceVerifier

TIMEOUT = 600.0
"""Seconds one gate may take."""

TAIL = 4000
"""Characters of a failing gate's output that are shown, counted from its end."""

# Bytecode is trusted by its source's size and second: an edit within a second of a run, of equal
# length, would be tested in its old form.
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1"}
"""What gates get in addition to the few variables that every checked command has."""

_PYTEST_SECTIONS = (("pytest.ini", "[pytest]"), (".pytest.ini", "[pytest]"),
                    ("tox.ini", "[pytest]"), ("setup.cfg", "[tool:pytest]"))  # fmt: skip
OWN = {
    "doctor": "nothing is unmerged or in conflict, and the manifests parse",
    "smoke": "the code compiles",
}
"""What the gates say that Holdfast has commands of its own for."""

_NO_TEST = "no test specified"  # what `npm init` writes


class Gate(msgspec.Struct, frozen=True):
    """One gate.

    Args:
        name: what it is called.
        argv: what it runs, in the workspace; it must exit with 0.
        rule: why it is this.
    """

    name: str
    argv: tuple[str, ...]
    rule: str

    @property
    def shown(self) -> str:
        """What it runs, as one line for people and models."""
        return OWN.get(self.name) or shlex.join(self.argv)

    @property
    def evidence(self) -> Evidence:
        """The claim that it passes; it may be checked again at any time."""
        return Evidence.command(self.argv, timeout=TIMEOUT, env=ENVIRONMENT, recheck=True)


class GateResult(msgspec.Struct, frozen=True):
    """What running a gate gave: `detail` on one line, and the end of its output if it failed."""

    name: str
    passed: bool
    detail: str
    output: str = ""


def find_gates(root: Path, asked: Sequence[str] = ()) -> tuple[Gate, ...]:
    """Return the gates that were asked for, or those of the three that find anything to run.

    Args:
        root: the workspace.
        asked: `doctor`, `smoke`, `tests`, or a command of one's own as `name=command`.

    Raises:
        UsageError: one finds nothing to run, or what it would run isn't installed; that is no pass.
    """
    if not asked:
        found = (rule(root) for rule in _RULES.values())
        return tuple(_installed(root, gate) for gate in found if gate is not None)
    gates = dict[str, Gate]()
    for each in asked:
        gate = _asked(root, each)
        if gate.name in gates:
            message = f"Two gates are named {gate.name!r}; nothing was started. Rename one."
            raise errors.UsageError(message)
        gates[gate.name] = _installed(root, gate)
    return tuple(gates.values())


def command_gate(command: str, name: str | None = None) -> Gate:
    """Return a gate that runs a command, split into words as a shell would, and run without one.

    Raises:
        UsageError: it can't be split, or is empty.
    """
    return Gate(name or command, split_command(command), "a command of your own")


def split_command(command: str) -> tuple[str, ...]:
    """Return a command's words; no shell reads it.

    Raises:
        UsageError: it has no words, or a quotation doesn't end.
    """
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        message = f"{command!r} is no command: {error}. Nothing was started."
        raise errors.UsageError(message) from None
    if not words or not words[0]:
        message = "An empty command proves nothing; nothing was started."
        raise errors.UsageError(message)
    return words


def _asked(root: Path, asked: str) -> Gate:
    name, equals, command = asked.partition("=")
    if equals:
        if not name or name in _RULES:
            message = f"{asked!r} names no gate of your own. Use a name but {', '.join(_RULES)}."
            raise errors.UsageError(message)
        return command_gate(command, name)
    rule = _RULES.get(name)
    if rule is None:
        message = f"There is no gate {name!r}. Use {', '.join(_RULES)}, or name=command."
        raise errors.UsageError(message)
    gate = rule(root)
    if gate is None:
        message = (
            f"The gate {name!r} finds nothing to run in {root}, which is no pass; nothing was "
            f"started. Name a command of your own: --gate '{name}-own=…'."
        )
        raise errors.UsageError(message)
    return gate


def _installed(root: Path, gate: Gate) -> Gate:
    program = gate.argv[0]
    where = str(root / program) if "/" in program else program
    if shutil.which(where) is None:
        message = (
            f"The gate {gate.name!r} runs {program!r} ({gate.rule}), which isn't installed here; "
            f"nothing was started. Install it, or name the gates you want."
        )
        raise errors.UsageError(message)
    return gate


# -- the three, and their rules -------------------------------------------------------------------


def _doctor(root: Path) -> Gate | None:
    seen = [name for name in (".git", *checks.MANIFESTS) if (root / name).exists()]
    return None if not seen else Gate("doctor", _own("doctor"), f"{', '.join(seen)} is there")


def _smoke(root: Path) -> Gate | None:
    python = next((name for name in _python_files(root)), None)
    if python is not None:
        return Gate("smoke", _own("smoke"), f"Python files such as {python}")
    if (root / "package.json").exists():
        return Gate("smoke", _own("smoke"), "entry points of package.json")
    return None


def _own(check: str) -> tuple[str, ...]:
    return (sys.executable, "-I", checks.__file__, check)


def _python_files(root: Path) -> Sequence[str]:
    return [str(path.relative_to(root)) for path in sorted(root.glob("*.py"))] or [
        str(path.relative_to(root))
        for path in sorted(root.glob("*/*.py"))
        if not path.parent.name.startswith(".")
    ]


def _tests(root: Path) -> Gate | None:
    for rule in (_pytest, _npm, _make, _cargo, _go):
        found = rule(root)
        if found is not None:
            return Gate("tests", *found)
    return None


def _pytest(root: Path) -> tuple[tuple[str, ...], str] | None:
    why = _pytest_configured(root) or _pytest_files(root)
    if why is None:
        return None
    own = next((f"{name}/bin/pytest" for name in (".venv", "venv")
                if (root / name / "bin/pytest").exists()), "pytest")  # fmt: skip
    return (own, "-q"), why


def _pytest_configured(root: Path) -> str | None:
    for name, section in _PYTEST_SECTIONS:
        if section in _text(root / name).splitlines():
            return f"{section} in {name}"
    tool = checks.table(_text(root / "pyproject.toml"), tomllib.loads).get("tool")
    return "[tool.pytest] in pyproject.toml" if "pytest" in checks.as_table(tool) else None


def _pytest_files(root: Path) -> str | None:
    for place in ("tests", "test", "."):
        for pattern in ("test_*.py", "*/test_*.py") if place != "." else ("test_*.py",):
            found = sorted((root / place).glob(pattern))
            if found:
                return f"{found[0].relative_to(root)} is there"
    return None


def _npm(root: Path) -> tuple[tuple[str, ...], str] | None:
    scripts = checks.table(_text(root / "package.json"), json.loads).get("scripts")
    script = checks.as_table(scripts).get("test")
    if not isinstance(script, str) or _NO_TEST in script:
        return None
    return ("npm", "test", "--silent"), "a test script in package.json"


def _make(root: Path) -> tuple[tuple[str, ...], str] | None:
    for name in ("GNUmakefile", "makefile", "Makefile"):
        if re.search(r"^test[ \t]*:(?!=)", _text(root / name), re.MULTILINE):
            return ("make", "test"), f"a target test in {name}"
    return None


def _cargo(root: Path) -> tuple[tuple[str, ...], str] | None:
    there = (root / "Cargo.toml").exists()
    return (("cargo", "test", "--quiet"), "Cargo.toml is there") if there else None


def _go(root: Path) -> tuple[tuple[str, ...], str] | None:
    there = (root / "go.mod").exists()
    return (("go", "test", "./..."), "go.mod is there") if there else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


_RULES: dict[str, Callable[[Path], Gate | None]] = {
    "doctor": _doctor,
    "smoke": _smoke,
    "tests": _tests,
}


# -- running them ---------------------------------------------------------------------------------


async def run_gates(
    verifier: EvidenceVerifier, gates: Mapping[str, Evidence], workspace: WorkspaceRef
) -> list[GateResult]:
    """Run gates side by side and return what each gave, in order.

    Args:
        verifier: checks them.
        gates: what is to be checked, by the gate's name.
        workspace: where.

    Raises:
        EvidenceUnavailableError: this machine doesn't have the workspace, which says nothing about
            the gates.
    """
    if not gates:
        return []
    pack = EvidencePack(tuple(gates.values()))
    found = await verifier.verify(pack.bound_to(workspace), workspace)
    if any(verdict.status is VerdictStatus.UNAVAILABLE for verdict in found.verdicts):
        message = f"The gates can't be run here: {found.explain()}"
        raise errors.EvidenceUnavailableError(message, workspace=workspace.root)
    return [
        GateResult(
            name,
            verdict.holds,
            redact(verdict.detail),
            "" if verdict.holds else redact(str(verdict.captured.get("output", "")))[-TAIL:],
        )
        for name, verdict in zip(gates, found.verdicts, strict=True)
    ]


def explain_failures(results: Sequence[GateResult]) -> str:
    """Return what failed and the end of what it printed, for a person or a model to read."""
    return "\n\n".join(
        f"The gate {result.name} failed: {result.detail}\n{result.output}".rstrip()
        for result in results
        if not result.passed
    )


def same_failure(text: str) -> str:
    """Return a failure without what differs from one run to the next: numbers and white space."""
    return " ".join(re.sub(r"0x[0-9a-f]+|[0-9]+(?:\.[0-9]+)?", "#", text).split())

"""Gates: what they find to run, what they say, and that finding nothing is no pass."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import errors
from holdfast.agents.gates import (
    command_gate,
    explain_failures,
    find_gates,
    run_gates,
    same_failure,
)
from holdfast.verifiers import EvidenceVerifier
from holdfast.workspace import Workspace

BIN = str(Path(sys.executable).parent)


@pytest.fixture(autouse=True)
def own_tools_first(monkeypatch):
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")


def files(root: Path, **contents: str) -> Path:
    for name, text in contents.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    command = ["git", *who, *words]
    subprocess.run(command, cwd=root, check=False, capture_output=True)  # noqa: S603


def passed(root: Path, *asked: str) -> dict[str, bool]:
    return {result.name: result.passed for result in results(root, *asked)}


def results(root: Path, *asked: str):
    gates = {gate.name: gate.evidence for gate in find_gates(root, asked)}
    return asyncio.run(run_gates(EvidenceVerifier(), gates, Workspace.at(root).ref))


def found(root: Path, *asked: str) -> dict[str, tuple[tuple[str, ...], str]]:
    return {gate.name: (gate.argv, gate.rule) for gate in find_gates(root, asked)}


# -- what they find -------------------------------------------------------------------------------


def test_without_being_asked_every_gate_is_taken_that_finds_something(tmp_path):
    assert found(tmp_path) == {}
    files(tmp_path, pyproject_dot_toml="", calc_dot_py="", tests__test_calc_dot_py="")
    assert list(found(tmp_path)) == ["doctor", "smoke", "tests"]


@pytest.mark.parametrize(
    ("contents", "argv", "rule"),
    [
        ({"pyproject_dot_toml": "[tool.pytest.ini_options]"}, ("pytest", "-q"),
         "[tool.pytest] in pyproject.toml"),
        ({"setup_dot_cfg": "[tool:pytest]\n"}, ("pytest", "-q"), "[tool:pytest] in setup.cfg"),
        ({"tests__deep__test_a_dot_py": ""}, ("pytest", "-q"), "tests/deep/test_a.py is there"),
        ({"test_a_dot_py": "", "Makefile": "test:\n"}, ("pytest", "-q"), "test_a.py is there"),
        ({"package_dot_json": '{"scripts": {"test": "node --test"}}'}, ("npm", "test", "--silent"),
         "a test script in package.json"),
        ({"Makefile": "tests: x\ntest: build\n\ttrue\n"}, ("make", "test"),
         "a target test in Makefile"),
    ],
)  # fmt: skip
def test_the_projects_own_test_command_is_found_by_the_first_rule_that_matches(
    tmp_path, contents, argv, rule, monkeypatch
):
    monkeypatch.setattr("shutil.which", lambda name: name)  # npm need not be installed here
    files(tmp_path, **contents)
    assert found(tmp_path, "tests") == {"tests": (argv, rule)}


def test_the_pytest_of_the_projects_own_environment_is_preferred(tmp_path):
    files(tmp_path, test_a_dot_py="", _dot_venv__bin__pytest="#!/bin/sh\nexit 7\n")
    (tmp_path / ".venv/bin/pytest").chmod(0o755)
    assert found(tmp_path, "tests")["tests"][0] == (".venv/bin/pytest", "-q")
    assert passed(tmp_path, "tests") == {"tests": False}


@pytest.mark.parametrize("name", ["doctor", "smoke", "tests"])
def test_a_gate_asked_for_by_name_that_finds_nothing_is_refused_not_passed(tmp_path, name):
    files(tmp_path, notes_dot_txt="nothing here is code", Makefile="tests := x\n")
    with pytest.raises(errors.UsageError, match="finds nothing to run"):
        find_gates(tmp_path, [name])


def test_what_npm_writes_where_there_are_no_tests_is_no_test_command(tmp_path):
    script = 'echo "Error: no test specified" && exit 1'
    files(tmp_path, package_dot_json=json.dumps({"scripts": {"test": script}}))
    with pytest.raises(errors.UsageError, match="finds nothing to run"):
        find_gates(tmp_path, ["tests"])


def test_a_test_command_that_is_not_installed_is_refused_even_where_nobody_asked(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    files(tmp_path, test_a_dot_py="")
    with pytest.raises(errors.UsageError, match="isn't installed"):
        find_gates(tmp_path)


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (["lint"], "There is no gate 'lint'"),
        (["tests=true"], "names no gate of your own"),
        (["=true"], "names no gate of your own"),
        (["a="], "empty command"),
        (["a='"], "No closing quotation"),
        (["a=true", "a=false"], "Two gates are named 'a'"),
    ],
)
def test_gates_that_make_no_sense_are_refused(tmp_path, asked, match):
    with pytest.raises(errors.UsageError, match=match):
        find_gates(tmp_path, asked)


def test_a_command_of_ones_own_is_split_into_words_and_read_by_no_shell(tmp_path):
    gate = command_gate("echo 'a b' ; touch made")
    assert gate.argv == ("echo", "a b", ";", "touch", "made")
    assert passed(tmp_path, "own=true", "other=false") == {"own": True, "other": False}
    assert passed(tmp_path, "e=echo x ; touch made") == {"e": True}
    assert not (tmp_path / "made").exists()


# -- what they say --------------------------------------------------------------------------------


def test_doctor_reads_the_manifests(tmp_path):
    files(tmp_path, pyproject_dot_toml="[project]\n", package_dot_json="{}")
    assert passed(tmp_path, "doctor") == {"doctor": True}
    files(tmp_path, package_dot_json='{"name": ')
    (result,) = results(tmp_path, "doctor")
    assert not result.passed
    assert "package.json: doesn't parse" in result.output


def test_doctor_refuses_a_manifest_that_is_a_link(tmp_path):
    (tmp_path / "pyproject.toml").symlink_to("/dev/zero")
    assert passed(tmp_path, "doctor") == {"doctor": False}


CONFLICT = "a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> other\n"


def test_doctor_finds_conflict_markers_in_what_is_not_committed(tmp_path):
    git(tmp_path, "init")
    files(tmp_path, kept_dot_txt=CONFLICT, a_dot_txt="Title\n=======\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    assert passed(tmp_path, "doctor") == {"doctor": True}  # committed: it is meant to be so
    files(tmp_path, b_dot_txt=CONFLICT)
    (result,) = results(tmp_path, "doctor")
    assert result.output == "b.txt:2: a conflict marker\n"


def test_doctor_finds_what_is_not_merged(tmp_path):
    git(tmp_path, "init", "-b", "main")
    for branch, text in (("main", "1\n"), ("other", "2\n"), ("main", "3\n")):
        git(tmp_path, "checkout", "-B" if branch == "other" else "-f", branch)
        files(tmp_path, a_dot_txt=text)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-m", text)
    git(tmp_path, "merge", "other")
    (result,) = results(tmp_path, "doctor")
    assert "a.txt: not merged" in result.output


def test_smoke_compiles_every_python_file_and_leaves_nothing_behind(tmp_path):
    files(tmp_path, a_dot_py="x = 1\n", pkg__b_dot_py="def f():\n    return (\n")
    (result,) = results(tmp_path, "smoke")
    assert result.output.startswith("pkg/b.py:2: ")
    files(tmp_path, pkg__b_dot_py="def f():\n    return 1\n")
    assert passed(tmp_path, "smoke") == {"smoke": True}
    assert not list(tmp_path.rglob("*.pyc"))


def test_smoke_is_not_fooled_by_a_module_of_the_workspace(tmp_path):
    files(tmp_path, json_dot_py="raise SystemExit(0)\n", bad_dot_py="(\n", ast_dot_py="import x\n")
    assert passed(tmp_path, "smoke") == {"smoke": False}


def test_smoke_passes_over_what_git_ignores(tmp_path):
    git(tmp_path, "init")
    files(tmp_path, a_dot_py="", _dot_gitignore="build\n", build__broken_dot_py="(\n")
    assert passed(tmp_path, "smoke") == {"smoke": True}


def test_smoke_checks_the_entry_points_of_a_node_package(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("NO NODE: its entry points can't be checked here")
    files(tmp_path, package_dot_json='{"main": "./a.js"}', a_dot_js="function (\n")
    assert passed(tmp_path, "smoke") == {"smoke": False}
    files(tmp_path, a_dot_js="module.exports = 1\n")
    assert passed(tmp_path, "smoke") == {"smoke": True}


def test_a_failing_gate_shows_the_end_of_its_output_without_credentials(tmp_path):
    test = "def test_a():\n    print('api_key=abcdefghijkl')\n    assert 1 + 1 == 3\n"
    files(tmp_path, test_a_dot_py=test)
    failing = explain_failures(results(tmp_path, "tests", "own=true"))
    assert failing.startswith("The gate tests failed: exit code 1")
    assert "assert (1 + 1) == 3" in failing
    assert "abcdefghijkl" not in failing
    assert "own" not in failing


def test_the_same_failure_is_known_although_times_and_addresses_differ():
    one, two = "1 failed in 0.12s <f at 0x7f1a>", "1 failed  in 10.2s\n<f at 0x99cc>"
    assert same_failure(one) == same_failure(two)
    assert same_failure("test_a failed") != same_failure("test_b failed")


def test_a_workspace_that_is_not_here_says_nothing_about_the_gates(tmp_path):
    files(tmp_path, a_dot_py="")
    here = Workspace.at(tmp_path)
    elsewhere = Workspace.at(tmp_path / "other", create=True)
    (gate,) = find_gates(tmp_path, ["smoke"])
    gone = type(here.ref)(here.id, str(elsewhere.root / "gone"))
    with pytest.raises(errors.EvidenceUnavailableError):
        asyncio.run(run_gates(EvidenceVerifier(), {"smoke": gate.evidence}, gone))

"""A command runs if it is permitted, within its limits, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from holdfast import Evidence, errors
from holdfast.agents import sandbox
from holdfast.agents.commands import LONGEST, OUTPUT, readable
from holdfast.agents.permissions import AllowedCommand, Permissions
from holdfast.agents.workspace_tools import WorkspaceTools
from holdfast.states import Effect

PYTHON = AllowedCommand((sys.executable,), None)
ANY_PYTHON = Permissions(change_files=True, run_commands=True, commands=(PYTHON,))
IN_SANDBOX = Permissions(change_files=True, run_commands=True)


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "root"
    place.mkdir()
    return place


def run(root, *argv, permissions=ANY_PYTHON, where="off", timeout=30.0, **options):
    tools = WorkspaceTools(root, permissions, sandbox=where, **options)
    return asyncio.run(tools.run_command(list(argv), timeout))


def python(root, code, **options):
    return run(root, sys.executable, "-c", code, **options)


def is_gone(pid):
    """Say whether a process has ended, or is about to; one that nobody reaped yet has."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


# -- limits ---------------------------------------------------------------------------------------


def test_a_command_tells_how_it_ended_and_what_it_wrote(root):
    code = "import os, sys; print(os.getcwd(), flush=True); sys.exit('to stderr')"
    assert python(root, code) == f"exit code 1\n{root}\nto stderr\n"
    assert python(root, "import os; os.kill(os.getpid(), 9)") == "ended by signal 9\n"


def test_it_gets_no_variable_that_it_does_not_need(root, monkeypatch):
    monkeypatch.setenv("API_KEY", "not for models")
    assert "not for models" not in python(root, "import os; print(dict(os.environ))")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="NO /proc")  # noqa: PTH112
def test_when_its_time_is_up_it_is_killed_with_all_that_it_started(root):
    code = (
        "import subprocess, sys, time; "
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, "
        "flush=True); time.sleep(60)"
    )
    started = time.monotonic()
    answer = python(root, code, timeout=1.0)
    assert time.monotonic() - started < 10
    assert answer.startswith("killed after 1 s\n")
    assert is_gone(int(answer.split()[-1]))


def test_it_is_killed_when_the_attempt_ends(root):
    async def cancel():
        tools = WorkspaceTools(root, ANY_PYTHON, sandbox="off")
        code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
        call = asyncio.ensure_future(tools.run_command([sys.executable, "-c", code]))
        while not (root / "pid").exists() or not (root / "pid").read_text():
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel())
    assert is_gone(int((root / "pid").read_text()))


def test_of_much_output_the_end_is_kept(root):
    answer = python(root, "print('x' * 10_000_000); print('the end')")
    assert answer.endswith("x\nthe end\n")
    assert len(answer) < OUTPUT + 200
    assert "bytes of output are left out" in answer


def test_output_is_made_readable():
    raw = b"\x1b[31mred\x1b[0m\r\n\x1b]0;title\x07a\rb\x00\x08\xff\xc2\x9b\tend\n"
    assert readable(raw) == "red\na\nb\ufffd\tend\n"


@pytest.mark.parametrize(
    "argv",
    [[], [""], ["a\0b"], ["half\ud800"], "ls -l", ["python", 5], [["ls"]], ["x" * 100_000]],
    ids=lambda argv: ascii(argv)[:20],
)
def test_what_is_no_command_is_refused(root, argv):
    tools = WorkspaceTools(root, ANY_PYTHON, sandbox="off")
    assert asyncio.run(tools.run_command(argv)).startswith("Refused: ")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_that_is_none_is_refused(root, timeout):
    assert python(root, "print(1)", timeout=timeout).startswith("Failed: ")


def test_a_program_that_is_not_there_is_said_to_be_missing(root):
    permissions = Permissions(run_commands=True, commands=(AllowedCommand(("no-such-thing",)),))
    assert run(root, "no-such-thing", permissions=permissions).startswith("Failed: ")
    assert LONGEST == 600, "the docstring that models read says so"


# -- permissions ----------------------------------------------------------------------------------

GIT_LOG = AllowedCommand(("git", "log"), frozenset({"-n", "--oneline"}))
PYTEST = AllowedCommand(("pytest",), None)
MAKE = AllowedCommand(("make", "test"), operands=False)


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        (["pytest", "-q", "--anything=x"], True),
        (["git", "log"], True),
        (["git", "log", "--oneline", "-n", "3", "src"], True),
        (["git", "log", "main..topic", "--", "--output=f", "a/..b"], True),
        (["git", "log", "../secret"], False),
        (["git", "log", "--", "/dev/null"], False),
        (["git", "log", "a/../../b"], False),
        (["make", "test"], True),
        (["make", "test", "install"], False),
        (["make", "test", "SHELL=x"], False),
        (["make", "test", "--", "install"], False),
        (["make", "test", "-f", "x"], False),
        (["git", "log", "--output=f"], False),
        (["git", "log", "--outp=f"], False),
        (["git", "log", "-n3"], False),
        (["git", "-c", "core.pager=x", "log"], False),
        (["git"], False),
        (["git", "push"], False),
        (["/tmp/pytest"], False),  # noqa: S108
        (["./pytest"], False),
        (["pytest-3"], False),
        (["sh", "-c", "pytest"], False),
        (["env", "pytest"], False),
    ],
)
def test_without_a_sandbox_only_listed_commands_with_listed_options_may_run(argv, allowed):
    assert any(command.allows(argv) for command in (GIT_LOG, PYTEST, MAKE)) is allowed


def test_a_command_that_is_not_permitted_does_not_run(root):
    told = []
    options = {"mode": "testing", "on_refusal": lambda *each: told.append(each)}
    permissions = Permissions(run_commands=True, commands=(GIT_LOG,))
    answer = run(root, "touch", "f", permissions=permissions, **options)
    assert answer.startswith("Refused: 'touch' with these arguments is not among the commands")
    assert "Those are: git log." in answer
    answer = run(root, "git", "log", permissions=Permissions(), where="auto", **options)
    assert answer == "Refused: testing may not run commands."
    assert list(root.iterdir()) == []
    assert [name for name, _ in told] == ["run_command"] * 2


def test_commands_that_the_task_declares_may_run_again(root):
    tools = WorkspaceTools(
        root,
        ANY_PYTHON,
        sandbox="off",
        repeatable=[[sys.executable, "-m", "pytest"]],
        evidence=[Evidence.command([sys.executable, "check.py"]), Evidence.file("f")],
    )

    def effect(*argv):
        return tools.run_command.effect_of({"argv": list(argv), "timeout": 1.0})

    assert effect(sys.executable, "-m", "pytest", "-q") is Effect.IDEMPOTENT
    assert effect(sys.executable, "check.py") is Effect.IDEMPOTENT
    assert effect(sys.executable, "check.py", "--more") is Effect.ONCE
    assert effect(sys.executable, "-m", "other") is Effect.ONCE
    assert effect("rm", "-rf", "/") is Effect.IDEMPOTENT, "it is refused, again and again"


# -- the sandbox ----------------------------------------------------------------------------------

needs_sandbox = pytest.mark.skipif(
    not sandbox.works(), reason="NO SANDBOX: bubblewrap isn't installed, or may not make one"
)


def in_sandbox(root, script, permissions=IN_SANDBOX):
    return run(root, "sh", "-c", script, permissions=permissions, where="required")


@needs_sandbox
def test_in_a_sandbox_the_workspace_can_be_written_and_nothing_else(root, tmp_path):
    answer = in_sandbox(root, f"echo in > f; echo out > {tmp_path}/g; touch /usr/g")
    assert (root / "f").read_text() == "in\n"
    assert answer.startswith("exit code 1\n")
    assert not (tmp_path / "g").exists()
    assert not Path("/usr/g").exists()


@needs_sandbox
def test_a_mode_that_may_not_change_files_cannot_by_a_command_either(root):
    answer = in_sandbox(root, "echo x > f", Permissions(run_commands=True))
    assert "Read-only" in answer
    assert list(root.iterdir()) == []


@needs_sandbox
def test_in_a_sandbox_there_is_no_network_unless_it_is_allowed(root):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        base = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
        without = run(root, base, "-c", code, permissions=IN_SANDBOX, where="required")
        permissions = Permissions(run_commands=True, network=True)
        allowed = run(root, base, "-c", code, permissions=permissions, where="required")
    assert "Error" in without
    assert allowed == "exit code 0\n"


@needs_sandbox
def test_in_a_sandbox_temporary_files_are_private_and_other_processes_are_not_seen(root):
    marker = f"holdfast-{os.getpid()}"
    answer = in_sandbox(
        root, f"touch /tmp/{marker} && ls /tmp; ls /run; ls -d /proc/[0-9]* | wc -l"
    )
    assert answer.startswith("exit code 0\n")
    assert marker in answer
    assert int(answer.split()[-1]) < 10
    assert not Path("/tmp", marker).exists()  # noqa: S108


@needs_sandbox
def test_in_a_sandbox_gits_files_and_holdfasts_stay_as_they_are(root):
    from holdfast.store import open_store

    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]\n")
    with open_store(f"sqlite:///{root}/h.db"):
        answer = in_sandbox(
            root,
            "for f in .git/config .git/commondir .holdfast/x h.db h.db-wal h.db-key; "
            "do echo x >> $f; done; wc -c < h.db-key",
        )
        assert (root / "h.db-key").stat().st_size == 32
    assert answer.split()[-1] == "0", "the key can be read"
    assert (root / ".git" / "config").read_text() == "[core]\n"
    assert [path.name for path in (root / ".git").iterdir()] == ["config"]


@needs_sandbox
def test_in_a_sandbox_places_known_to_hold_keys_are_empty(root, tmp_path, monkeypatch):
    home = Path.home()
    names = [name for name in sandbox._PRIVATE if (home / name).exists()]  # noqa: SLF001
    (root / ".ssh").mkdir()
    (root / ".ssh" / "id").write_text("key")
    (root / ".netrc").write_text("password")
    monkeypatch.setenv("HOME", str(root))
    answer = in_sandbox(root, "true")
    assert answer == "exit code 0\n"
    for name in names:
        assert "0" in in_sandbox(root, f"ls -A {home / name} 2>/dev/null | wc -l"), name


def test_where_there_is_no_sandbox_a_required_one_is_an_error(root, monkeypatch):
    monkeypatch.setattr(sandbox, "_program", lambda: None)
    with pytest.raises(errors.UsageError, match="bubblewrap"):
        WorkspaceTools(root, IN_SANDBOX, sandbox="required")
    answer = run(root, "true", permissions=IN_SANDBOX, where="auto")
    assert answer.startswith("Refused: ")

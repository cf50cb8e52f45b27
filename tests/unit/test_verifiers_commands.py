"""A command claim holds if it ends with its exit code; nothing of the command outlives it."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from holdfast.errors import EvidencePathError
from holdfast.evidence import Evidence, EvidencePack, VerdictStatus, WorkspaceRef
from holdfast.verifiers import EvidenceVerifier


@pytest.fixture
def run(tmp_path):
    here = WorkspaceRef("ws", str(tmp_path))

    def check(argv, *args, previous=None, **options):
        evidence = Evidence.command(argv, *args, **options)
        pack = EvidencePack((evidence,))
        return EvidenceVerifier().verify_now(pack, here, [previous]).verdicts[0]

    return check


def wait_until_gone(pid):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # killed; whoever adopted it has yet to collect it
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False


def test_the_exit_code_decides(run):
    assert run(["true"]).holds
    assert run(["sh", "-c", "exit 1"]).status is VerdictStatus.FAILED
    assert run(["sh", "-c", "exit 3"], exit_code=3).holds
    assert run(["true"], exit_code=3).status is VerdictStatus.FAILED


def test_a_killed_command_fails_and_says_so(run):
    verdict = run(["sh", "-c", "kill -9 $$"])
    assert verdict.status is VerdictStatus.FAILED
    assert "signal 9" in verdict.detail


def test_a_failure_shows_the_last_line_of_output_from_either_stream(run):
    verdict = run(["sh", "-c", "echo one; echo 'two failed' >&2; exit 2"])
    assert verdict.detail == "exit code 2, not 0: two failed"
    assert verdict.captured["output"] == "one\ntwo failed\n"


def test_arguments_are_never_read_by_a_shell(run, tmp_path):
    hostile = "; touch hacked; $(touch hacked) `touch hacked`"
    assert run(["printf", "%s", hostile]).captured["output"] == hostile
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_environment_is_inherited_but_what_programs_need(run, monkeypatch):
    monkeypatch.setenv("API_KEY", "hunter2")
    output = run(["env"], env={"EXTRA": "given"}).captured["output"]
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert "hunter2" not in output
    assert "EXTRA=given" in output
    assert names <= {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "EXTRA"}


def test_standard_input_is_empty_and_no_descriptor_is_inherited(run):
    assert run(["cat"], timeout=5).captured["output"] == ""
    with Path(__file__).open() as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003
        script = f"import os; os.fstat({file.fileno()})"
        assert "OSError" in run([sys.executable, "-S", "-c", script]).captured["output"]


def test_it_runs_in_its_directory_which_is_in_the_workspace(run, tmp_path):
    (tmp_path / "sub").mkdir()
    assert run(["pwd"], cwd="sub").captured["output"].strip() == str(tmp_path / "sub")
    assert run(["true"], cwd="gone").status is VerdictStatus.FAILED
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(EvidencePathError):
        run(["true"], cwd="link")


def test_a_program_that_is_not_there_could_not_be_checked(run):
    verdict = run(["no-such-program-anywhere"])
    assert verdict.status is VerdictStatus.ERROR
    assert "no-such-program-anywhere could not be started" in verdict.detail


def test_a_hanging_command_is_killed_with_its_children(run):
    started = time.monotonic()
    verdict = run(["sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait"], timeout=0.3)
    assert time.monotonic() - started < 5
    assert verdict.status is VerdictStatus.FAILED
    assert verdict.detail == "timed out after 0.3 s"
    assert wait_until_gone(int(verdict.captured["output"]))


def test_children_left_in_the_background_die_with_their_leader(run):
    started = time.monotonic()
    verdict = run(["sh", "-c", "sleep 60 & echo $!"])
    assert time.monotonic() - started < 5
    assert verdict.holds
    assert wait_until_gone(int(verdict.captured["output"]))


def test_a_command_that_closed_its_output_is_still_waited_for(run):
    verdict = run(["sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 4"], exit_code=4)
    assert verdict.holds
    assert verdict.seconds >= 0.2


def test_a_flood_of_output_is_capped_in_constant_memory(run):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    verdict = run(["sh", "-c", "head -c 300000000 /dev/zero; echo the end"], output_cap=1000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert verdict.holds
    assert len(verdict.captured["output"]) == 1000
    assert verdict.captured["output"].endswith("the end\n")
    assert verdict.captured["output_bytes"] == 300_000_008
    assert verdict.captured["truncated"]
    assert grown < 50_000  # KiB


def test_a_flood_without_end_is_stopped_by_the_time_limit(run):
    verdict = run(["yes"], timeout=0.3)
    assert verdict.detail.startswith("timed out")
    assert len(verdict.captured["output"]) == 64 * 1024


def test_output_that_is_no_text_is_kept_readable(run):
    assert run(["printf", r"a\377b"]).captured["output"] == "a\ufffdb"


def test_a_command_runs_again_only_if_it_says_it_may(run, tmp_path):
    argv = ["sh", "-c", "echo x >> log; test ! -e broken"]
    once = run(argv)
    assert run(argv, previous=once).status is VerdictStatus.HISTORIC
    assert (tmp_path / "log").read_text() == "x\n"
    again = run(argv, recheck=True)
    (tmp_path / "broken").touch()
    assert run(argv, recheck=True, previous=again).status is VerdictStatus.FAILED


def test_a_lost_exit_status_is_never_taken_for_zero(run):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        verdict = run(["sh", "-c", "exit 1"])
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert verdict.status is VerdictStatus.ERROR
    assert "exit status was lost" in verdict.detail

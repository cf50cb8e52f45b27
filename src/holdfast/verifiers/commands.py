"""Commands: it ends with the exit code that was claimed."""

from __future__ import annotations

from holdfast import processes
from holdfast.evidence import Evidence, Verdict
from holdfast.verifiers.site import Site, could_not_tell, failed, verified


def check_command(evidence: Evidence, _previous: Verdict | None, site: Site) -> Verdict:
    """Run the command within its limits and compare its exit code.

    The command may run twice if this process dies before its verdict is recorded.
    """
    params = evidence.params
    try:
        directory = site.beneath.directory(params["cwd"])
    except (FileNotFoundError, NotADirectoryError):
        return failed(f"the working directory {params['cwd']} doesn't exist")
    limits = processes.Limits(timeout=params["timeout"], output_cap=params["output_cap"])
    try:
        ended = processes.run(
            params["argv"],
            cwd=directory,
            env=processes.scrubbed_environment(params["env"]),
            limits=limits,
            clock=site.clock,
            stopped=site.stopped,
        )
    except OSError as error:
        return could_not_tell(f"{params['argv'][0]} could not be started: {error.strerror}")
    return _judge(ended, params["exit_code"], limits)


def _judge(ended: processes.Finished, expected: int, limits: processes.Limits) -> Verdict:
    captured = {
        "exit_code": ended.exit_code,
        "output": ended.text,
        "output_bytes": ended.output_bytes,
        "truncated": ended.output_bytes > len(ended.output),
    }
    if ended.exit_code is None:
        return failed(f"timed out after {limits.timeout:g} s", captured)
    if ended.exit_code != expected:
        return failed(f"{_ending(ended.exit_code)}, not {expected}{_last_line(ended)}", captured)
    return verified(f"exit code {expected} after {ended.seconds:.2f} s", captured)


def _ending(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code >= 0 else f"killed by signal {-exit_code}"


def _last_line(ended: processes.Finished) -> str:
    lines = ended.text.strip().splitlines()
    return f": {lines[-1][:200]}" if lines else ""

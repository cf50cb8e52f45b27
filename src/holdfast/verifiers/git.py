"""Git: a revision names a commit, and that commit isn't thrown away later."""

from __future__ import annotations

from holdfast import processes
from holdfast.errors import EvidenceInputError
from holdfast.evidence import Evidence, Verdict
from holdfast.verifiers.site import Site, could_not_tell, failed, verified

_LIMITS = processes.Limits(timeout=30.0, output_cap=4096)
# The C locale, because one message is compared; no lock, because others work in the repository.
_ENVIRONMENT = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
_FATAL = 128


def check_git_commit(evidence: Evidence, previous: Verdict | None, site: Site) -> Verdict:
    """Check that the revision names a commit or, on a recheck, that the commit is still there.

    A commit that was captured still holds when later commits build on it. It doesn't when a
    reset or an amendment threw it away, even though its object may lie around for a while.
    """
    rev: str = evidence.params["rev"]
    if rev.startswith("-"):
        raise EvidenceInputError(f"{rev!r} would be read as an option, not as a revision.")
    try:
        repository = site.beneath.directory(evidence.params["repo"])
    except (FileNotFoundError, NotADirectoryError):
        return failed(f"the directory {evidence.params['repo']} doesn't exist")
    commit = previous.captured.get("commit") if previous else None
    if commit is None:
        return _resolve(rev, repository, site)
    return _still_there(commit, rev, repository, site)


def _resolve(rev: str, repository: str, site: Site) -> Verdict:
    ended = _git(["rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}"], repository, site)
    if ended.exit_code == 0:
        commit = ended.text.strip()
        return verified(f"{rev} is commit {commit[:12]}", {"commit": commit})
    return _refused(ended, f"{rev} names no commit")


def _still_there(commit: str, rev: str, repository: str, site: Site) -> Verdict:
    # A branch may be gone because it was merged; then HEAD has the commit.
    for tip in (rev, "HEAD"):
        ended = _git(["merge-base", "--is-ancestor", commit, f"{tip}^{{commit}}"], repository, site)
        if ended.exit_code == 0:
            return verified(f"{tip} has commit {commit[:12]}", {"commit": commit})
    return _refused(ended, f"neither {rev} nor HEAD has commit {commit[:12]} any more")


def _refused(ended: processes.Finished, detail: str) -> Verdict:
    complaint = ended.text.strip()
    if ended.exit_code is None:
        return could_not_tell(f"git didn't answer within {_LIMITS.timeout:g} s")
    if ended.exit_code >= _FATAL and "not a git repository" in complaint:
        return failed("not a git repository")
    if ended.exit_code >= _FATAL and not _names_nothing(complaint):
        return could_not_tell(f"git: {complaint[:200]}")
    return failed(detail)


def _names_nothing(complaint: str) -> bool:
    return "Not a valid" in complaint or "Needed a single revision" in complaint


def _git(arguments: list[str], repository: str, site: Site) -> processes.Finished:
    return processes.run(
        ["git", "-C", repository, *arguments],
        cwd=repository,
        env=processes.scrubbed_environment(_ENVIRONMENT),
        limits=_LIMITS,
        clock=site.clock,
        stopped=site.stopped,
    )

"""A commit claim holds while the commit is part of the work, and no longer."""

from __future__ import annotations

import os
import subprocess

import pytest

from holdfast.errors import EvidencePathError
from holdfast.evidence import Evidence, EvidencePack, VerdictStatus, WorkspaceRef
from holdfast.verifiers import EvidenceVerifier

AUTHOR = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]


@pytest.fixture
def git(tmp_path):
    def call(*arguments):
        environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
        argv = ["git", "-C", str(tmp_path), *AUTHOR, *arguments]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment)  # noqa: S603
        return done.stdout.strip()

    call("init", "-q", "-b", "main")
    call("commit", "-q", "--allow-empty", "-m", "first")
    return call


@pytest.fixture
def check(tmp_path):
    def verify(rev="HEAD", repo=".", previous=None):
        pack = EvidencePack((Evidence.git_commit(rev, repo),))
        here = WorkspaceRef("ws", str(tmp_path))
        return EvidenceVerifier().verify_now(pack, here, [previous]).verdicts[0]

    return verify


def test_the_commit_is_captured(git, check):
    for rev in ("HEAD", "main", git("rev-parse", "HEAD"), git("rev-parse", "--short", "HEAD")):
        verdict = check(rev)
        assert verdict.holds
        assert verdict.captured == {"commit": git("rev-parse", "HEAD")}


def test_what_names_no_commit_fails(git, check):
    git("tag", "tree", git("rev-parse", "HEAD^{tree}"))
    for rev in ("nowhere", "0" * 40, "tree", "HEAD~5"):
        assert check(rev).status is VerdictStatus.FAILED


def test_it_still_holds_when_later_commits_build_on_it(git, check):
    first = check()
    git("commit", "-q", "--allow-empty", "-m", "second")
    again = check(previous=first)
    assert again.holds
    assert again.captured == first.captured


def test_it_fails_when_the_commit_was_thrown_away(git, check):
    git("commit", "-q", "--allow-empty", "-m", "second")
    second = check()
    git("reset", "-q", "--hard", "HEAD~1")
    assert check(previous=second).status is VerdictStatus.FAILED
    assert check(second.captured["commit"]).holds, "its object is still lying around"


def test_it_fails_when_the_commit_was_amended(git, check):
    first = check("main")
    git("commit", "-q", "--amend", "--allow-empty", "-m", "other")
    assert check("main", previous=first).status is VerdictStatus.FAILED


def test_it_holds_after_its_branch_was_merged_and_deleted(git, check):
    git("checkout", "-q", "-b", "feature")
    git("commit", "-q", "--allow-empty", "-m", "feature")
    first = check("feature")
    git("checkout", "-q", "main")
    assert check("feature", previous=first).holds
    git("merge", "-q", "feature")
    git("branch", "-q", "-d", "feature")
    assert check("feature", previous=first).holds


def test_without_a_repository_it_fails(tmp_path, check, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert check(repo="gone").status is VerdictStatus.FAILED
    (tmp_path / "plain").mkdir()
    verdict = check(repo="plain")
    assert verdict.status is VerdictStatus.FAILED
    assert "not a git repository" in verdict.detail


@pytest.mark.usefixtures("git")
def test_a_repository_that_disappeared_fails_a_recheck(check, tmp_path):
    first = check()
    (tmp_path / ".git").rename(tmp_path / "was-git")
    assert check(previous=first).status is VerdictStatus.FAILED


@pytest.mark.usefixtures("git")
def test_a_repository_git_cannot_read_is_an_error(check, tmp_path):
    (tmp_path / ".git" / "config").write_text("[broken")
    assert check().status is VerdictStatus.ERROR


@pytest.mark.usefixtures("git")
def test_a_repository_reached_through_a_link_is_refused(check, tmp_path):
    (tmp_path / "link").symlink_to(".")
    with pytest.raises(EvidencePathError):
        check(repo="link")

"""What the verifier does with claims of any kind: order, rechecks, workspaces, custom checks."""

from __future__ import annotations

import asyncio
import threading
import time

import msgspec
import pytest

from holdfast.errors import EvidenceIdentifierError, EvidencePathError, UsageError
from holdfast.evidence import Evidence, EvidencePack, Verdict, VerdictStatus, WorkspaceRef
from holdfast.verifiers import EvidenceVerifier

OK = Verdict(VerdictStatus.VERIFIED, "earlier", {"exit_code": 0}, 1.0)


@pytest.fixture
def here(tmp_path):
    return WorkspaceRef("ws-here", str(tmp_path))


def check(here, *claims, previous=None, verifier=None):
    verifier = verifier or EvidenceVerifier()
    return verifier.verify_now(EvidencePack(claims), here, previous)


def custom(here, answer, previous=None):
    verifier = EvidenceVerifier()
    verifier.register("it", answer)
    evidence = Evidence.custom("it", "thing", colour="red")
    return asyncio.run(verifier.verify_one(evidence, here, previous))


def test_verdicts_come_in_the_order_of_the_claims_whatever_their_kinds(here, tmp_path):
    (tmp_path / "a").write_text("a")
    verifier = EvidenceVerifier()
    verifier.register("slow", lambda _params, _root: time.sleep(0.05) or True)
    result = check(
        here,
        Evidence.custom("slow", "s"),
        Evidence.file("missing"),
        Evidence.command(["false"]),
        Evidence.file("a"),
        verifier=verifier,
    )
    assert [v.status.value for v in result.verdicts] == ["verified", "failed", "failed", "verified"]
    assert result.subjects[1] == "file:missing"
    assert result.status is VerdictStatus.FAILED


def test_an_empty_pack_is_never_verified(here):
    assert not check(here).verified


def test_a_verdict_says_when_it_was_checked_and_what_it_cost(here):
    before = time.time()
    verdict = check(here, Evidence.command(["sleep", "0.1"])).verdicts[0]
    assert 0.1 <= verdict.seconds < 5
    assert before <= verdict.checked_at <= time.time()


def test_a_claim_from_another_workspace_is_unavailable_and_keeps_its_baseline(here, tmp_path):
    (tmp_path / "a").write_text("a")
    evidence = Evidence.file("a").bound_to(WorkspaceRef("ws-other", "/elsewhere"))
    result = check(here, evidence, previous=[OK])
    assert result.unavailable
    assert result.verdicts[0].captured == OK.captured


def test_a_claim_from_this_workspace_is_checked(here, tmp_path):
    (tmp_path / "a").write_text("a")
    assert check(here, Evidence.file("a").bound_to(here)).verified


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence.file("a"),
        Evidence.command(["true"]),
        Evidence.git_commit("HEAD"),
        Evidence.db_row("sqlite:///a.db", "t", {"id": 1}, {}),
    ],
    ids=lambda e: e.kind,
)
def test_without_the_workspace_directory_a_claim_is_unavailable_and_not_failed(tmp_path, evidence):
    gone = WorkspaceRef("ws-here", str(tmp_path / "gone"))
    assert check(gone, evidence).unavailable


def test_a_claim_not_to_be_repeated_keeps_its_verdict_as_historic(here, tmp_path):
    evidence = Evidence.command(["touch", "ran"])
    verdict = check(here, evidence, previous=[OK]).verdicts[0]
    assert verdict.status is VerdictStatus.HISTORIC
    assert (verdict.captured, verdict.checked_at) == (OK.captured, OK.checked_at)
    assert check(here, evidence, previous=[verdict]).verdicts[0] == verdict
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("status", [VerdictStatus.FAILED, VerdictStatus.ERROR])
def test_a_claim_not_to_be_repeated_does_not_become_true_by_waiting(here, status):
    earlier = Verdict(status, "no")
    assert check(here, Evidence.command(["true"]), previous=[earlier]).verdicts[0] == earlier


def test_a_command_that_was_never_run_for_want_of_its_workspace_is_run(here):
    never = Verdict(VerdictStatus.UNAVAILABLE, "not here")
    assert check(here, Evidence.command(["true"]), previous=[never]).verdicts[0].seconds > 0


def test_bad_input_is_raised_at_the_first_check_and_failed_at_a_recheck(here, tmp_path):
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(EvidencePathError):
        check(here, Evidence.file("link"))
    result = check(here, Evidence.file("link"), previous=[OK])
    assert result.status is VerdictStatus.FAILED
    assert "symbolic link" in result.explain()


def test_previous_verdicts_have_to_match_the_claims(here):
    with pytest.raises(UsageError):
        check(here, Evidence.file("a"), previous=[OK, OK])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (True, "verified"),
        (False, "failed"),
        (Verdict(VerdictStatus.VERIFIED, "closed", {"by": "me"}), "verified"),
        (None, "error"),
        (1, "error"),
        ("yes", "error"),
        (Verdict(VerdictStatus.VERIFIED, "", {"what": object()}), "error"),
    ],
    ids=["true", "false", "verdict", "none", "number", "text", "not-storable"],
)
def test_a_custom_check_says_yes_or_no_and_nothing_else_counts(here, answer, status):
    assert custom(here, lambda _params, _root: answer).status.value == status

    async def later(_params, _root):
        await asyncio.sleep(0)
        return answer

    assert custom(here, later).status.value == status


def test_a_custom_check_is_given_its_parameters_and_the_root(here, tmp_path):
    given = []
    custom(here, lambda params, root: given.append((params, root)) or True)
    assert given == [({"colour": "red", "subject": "thing"}, tmp_path)]


def test_a_check_that_raises_is_an_error_and_never_verified(here):
    def broken(_params, _root):
        raise RuntimeError("out of order")

    verdict = custom(here, broken, OK)
    assert verdict.status is VerdictStatus.ERROR
    assert "RuntimeError: out of order" in verdict.detail
    assert verdict.captured == OK.captured


def test_a_custom_check_can_refuse_its_input(here):
    def picky(_params, _root):
        raise EvidenceIdentifierError("no such column", identifier="x")

    with pytest.raises(EvidenceIdentifierError):
        custom(here, picky)


def test_a_custom_check_nobody_registered_is_an_error(here):
    result = check(here, Evidence.custom("unheard", "of"))
    assert result.status is VerdictStatus.ERROR
    assert "unheard" in result.explain()


def test_a_kind_this_program_does_not_know_is_an_error(here):
    assert check(here, Evidence("tomorrow", "tomorrow:x", {})).status is VerdictStatus.ERROR


def test_a_stored_claim_that_was_tampered_with_is_confined_all_the_same(here, tmp_path):
    (tmp_path.parent / "outside").write_text("x")
    evil = msgspec.structs.replace(Evidence.file("a"), params={"path": "../outside"})
    with pytest.raises(EvidencePathError):
        check(here, evil)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_more_checks_run_at_once_than_allowed(here, kind):
    running, most = [], []
    lock = threading.Lock()

    def enter():
        with lock:
            running.append(1)
            most.append(len(running))

    def sync_check(_params, _root):
        enter()
        time.sleep(0.03)
        running.pop()
        return True

    async def async_check(_params, _root):
        enter()
        await asyncio.sleep(0.03)
        running.pop()
        return True

    verifier = EvidenceVerifier(parallel=3)
    verifier.register("count", sync_check if kind == "sync" else async_check)
    claims = [Evidence.custom("count", str(n)) for n in range(9)]
    assert check(here, *claims, verifier=verifier).verified
    assert max(most) == 3


def test_the_event_loop_goes_on_while_commands_run(here):
    async def both():
        verifier = EvidenceVerifier()
        pack = EvidencePack.of(Evidence.command(["sleep", "0.3"]))
        checking = asyncio.create_task(verifier.verify(pack, here))
        ticks = 0
        while not checking.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(both()) > 5


def test_canceling_a_check_kills_the_command_it_runs(here, tmp_path):
    async def cancel():
        pack = EvidencePack.of(Evidence.command(["sh", "-c", "sleep 1; touch late"]))
        checking = asyncio.create_task(EvidenceVerifier().verify(pack, here))
        await asyncio.sleep(0.2)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking

    asyncio.run(cancel())
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()


def test_blocking_inside_an_event_loop_is_refused(here):
    async def block():
        EvidenceVerifier().verify_now(EvidencePack(), here)

    with pytest.raises(UsageError, match="await verify"):
        asyncio.run(block())

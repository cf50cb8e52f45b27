"""EvidenceVerifier: checks the claims of a pack in parallel and says what holds."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from holdfast.clock import Clock, SystemClock
from holdfast.confined import ConfinedRoot
from holdfast.errors import EvidenceInputError, EvidenceUnavailableError, UsageError
from holdfast.evidence import (
    Evidence,
    EvidencePack,
    PackVerdict,
    Verdict,
    VerdictStatus,
    WorkspaceRef,
    combine,
)
from holdfast.verifiers.site import Check, Site

CustomCheck = Callable[[dict[str, Any], Path], Verdict | bool | Awaitable[Verdict | bool]]

_SYSTEM_CLOCK = SystemClock()
# So many unchanged files are checked by one thread in a few milliseconds: a thread hop for each
# would cost more than the check.
_FILES_A_BATCH = 512
_FILE_KINDS = frozenset({"file", "file_hash"})
_DETAIL = 500


@dataclass(frozen=True, slots=True)
class _Claim:
    number: int
    evidence: Evidence
    previous: Verdict | None


# Bad input is a value until every claim has been checked; then the first one is raised.
_Outcome = Verdict | EvidenceInputError


class EvidenceVerifier:
    """Checks claims against the world.

    A claim is verified only if its check ran and found it true. A check that raises gives the
    verdict `error`, never `verified`. Checking changes nothing in the world, apart from what a
    command does.

    Args:
        parallel: how many checks run at once, each in a thread of this verifier's own.
        clock: the source of time.
    """

    def __init__(self, *, parallel: int = 8, clock: Clock = _SYSTEM_CLOCK) -> None:
        if parallel < 1:
            raise UsageError(f"At least one check has to run at a time; parallel={parallel}.")
        self._parallel = parallel
        self._clock = clock
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="holdfast-verify")
        self._custom: dict[str, CustomCheck] = {}

    def register(self, name: str, check: CustomCheck) -> None:
        """Make `Evidence.custom(name, …)` checkable. The latest registration of a name counts.

        Args:
            name: what claims call it.
            check: called as `check(params, root)` with the claim's parameters, including
                `subject`, and the workspace's root. It returns True, False or a `Verdict`, or
                an awaitable of those. A plain function runs in a thread; it has no time limit.

        Raises:
            UsageError: the name is empty.
        """
        if not name:
            raise UsageError("A custom verifier needs a name.")
        self._custom[name] = check

    async def verify(
        self,
        pack: EvidencePack,
        workspace: WorkspaceRef,
        previous: Sequence[Verdict | None] | None = None,
    ) -> PackVerdict:
        """Check every claim of a pack.

        Where an earlier verdict is given this is a recheck: what was captured then must still
        be so, an unchanged file isn't read again, and a claim that may not be checked twice
        keeps its verdict.

        Args:
            pack: the claims.
            workspace: where file, command and git claims are checked.
            previous: the last verdict of each claim, in order; None for a first check.

        Raises:
            EvidenceInputError: a claim's first check found that it can't be checked safely. On
                a recheck that is a failed verdict instead.
            UsageError: `previous` isn't as long as the pack.
        """
        claims = _claims(pack, previous)
        outcomes: list[_Outcome | None] = [_settled(claim, workspace) for claim in claims]
        undecided = [claim for claim in claims if outcomes[claim.number] is None]
        for number, outcome in await self._check_all(undecided, workspace):
            outcomes[number] = outcome
        verdicts = tuple(_raise_refusals(outcomes))
        subjects = tuple(item.subject for item in pack.items)
        return PackVerdict(verdicts, combine(pack, verdicts), subjects)

    async def verify_one(
        self, evidence: Evidence, workspace: WorkspaceRef, previous: Verdict | None = None
    ) -> Verdict:
        """Check one claim; see `verify`."""
        checked = await self.verify(EvidencePack((evidence,)), workspace, [previous])
        return checked.verdicts[0]

    def verify_now(
        self,
        pack: EvidencePack,
        workspace: WorkspaceRef,
        previous: Sequence[Verdict | None] | None = None,
    ) -> PackVerdict:
        """Check every claim of a pack and wait for it; see `verify`.

        Raises:
            UsageError: an event loop is running in this thread; await `verify` there.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.verify(pack, workspace, previous))
        raise UsageError("verify_now would block the running event loop; await verify instead.")

    async def _check_all(
        self, claims: list[_Claim], workspace: WorkspaceRef
    ) -> list[tuple[int, _Outcome]]:
        stop = threading.Event()
        slots = asyncio.Semaphore(self._parallel)
        custom = [claim for claim in claims if claim.evidence.kind == "custom"]
        work = [self._check_custom(claim, workspace, slots) for claim in custom]
        work += [self._check_batch(batch, workspace, stop) for batch in self._batches(claims)]
        try:
            done = await asyncio.gather(*work)
        finally:
            # Canceled, or a fatal error: commands that still run are killed.
            stop.set()
        return [outcome for batch in done for outcome in batch]

    def _batches(self, claims: list[_Claim]) -> Iterator[list[_Claim]]:
        files = [claim for claim in claims if claim.evidence.kind in _FILE_KINDS]
        size = min(_FILES_A_BATCH, -(-len(files) // self._parallel))
        for start in range(0, len(files), size or 1):
            yield files[start : start + size]
        apart = _FILE_KINDS | {"custom"}
        yield from ([claim] for claim in claims if claim.evidence.kind not in apart)

    async def _check_batch(
        self, batch: list[_Claim], workspace: WorkspaceRef, stop: threading.Event
    ) -> list[tuple[int, _Outcome]]:
        def check() -> list[tuple[int, _Outcome]]:
            with ConfinedRoot(workspace.root) as beneath:
                site = Site(beneath, self._clock, stop.is_set)
                return [(claim.number, _check(claim, site)) for claim in batch if not stop.is_set()]

        return await asyncio.get_running_loop().run_in_executor(self._threads, check)

    async def _check_custom(
        self, claim: _Claim, workspace: WorkspaceRef, slots: asyncio.Semaphore
    ) -> list[tuple[int, _Outcome]]:
        async with slots:
            started = self._clock.boottime()
            try:
                verdict = await self._ask_custom(claim.evidence, workspace)
            except Exception as error:  # noqa: BLE001  whatever it raises is the verdict
                outcome = _refused(error, claim)
            else:
                outcome = verdict
            return [(claim.number, _recorded(outcome, claim, self._clock, started))]

    async def _ask_custom(self, evidence: Evidence, workspace: WorkspaceRef) -> Verdict:
        name: str = evidence.params["name"]
        check = self._custom.get(name)
        if check is None:
            detail = f"no verifier is registered under {name!r} in this program"
            return Verdict(VerdictStatus.ERROR, detail)
        params = {**evidence.params["params"], "subject": evidence.params["subject"]}
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, check, params, Path(workspace.root))
        return _as_verdict(await answer if inspect.isawaitable(answer) else answer)


def _claims(pack: EvidencePack, previous: Sequence[Verdict | None] | None) -> list[_Claim]:
    earlier = previous if previous is not None else [None] * len(pack.items)
    if len(earlier) != len(pack.items):
        raise UsageError(f"{len(pack.items)} claims, but {len(earlier)} previous verdicts.")
    pairs = zip(pack.items, earlier, strict=True)
    return [_Claim(number, item, verdict) for number, (item, verdict) in enumerate(pairs)]


def _settled(claim: _Claim, workspace: WorkspaceRef) -> Verdict | None:
    """Return the verdict of a claim that isn't to be checked here and now."""
    evidence, previous = claim.evidence, claim.previous
    # Unavailable means that it was never checked, so its first check is still to come.
    if (
        not evidence.recheck
        and previous is not None
        and previous.status is not VerdictStatus.UNAVAILABLE
    ):
        return _as_history(previous)
    if evidence.workspace is None or evidence.workspace == workspace.id:
        return None
    detail = f"made in workspace {evidence.workspace}; this machine has {workspace.id}"
    captured = previous.captured if previous else {}
    return Verdict(VerdictStatus.UNAVAILABLE, detail, captured)


def _as_history(previous: Verdict) -> Verdict:
    if previous.status is not VerdictStatus.VERIFIED:
        return previous
    detail = f"checked once, not to be repeated: {previous.detail}"
    return msgspec.structs.replace(previous, status=VerdictStatus.HISTORIC, detail=detail)


def _check(claim: _Claim, site: Site) -> _Outcome:
    started = site.clock.boottime()
    try:
        check = _check_for(claim.evidence.kind)
        outcome = check(claim.evidence, claim.previous, site)
    except Exception as error:  # noqa: BLE001  whatever it raises is the verdict
        outcome = _refused(error, claim)
    return _recorded(outcome, claim, site.clock, started)


def _check_for(kind: str) -> Check:
    """Return the check of one kind. What only it needs is imported when it is first used."""
    match kind:
        case "file" | "file_hash":
            from holdfast.verifiers.files import check_file as check
        case "command":
            from holdfast.verifiers.commands import check_command as check
        case "db_row":
            from holdfast.verifiers.rows import check_row as check
        case "git_commit":
            from holdfast.verifiers.git import check_git_commit as check
        case "http":
            from holdfast.verifiers.http import check_http as check
        case _:
            raise ValueError(f"this program knows no evidence of kind {kind!r}")
    return check


def _as_verdict(answer: object) -> Verdict:
    if isinstance(answer, Verdict):
        msgspec.msgpack.encode(answer)  # what it captured must be storable
        return answer
    if isinstance(answer, bool):
        return Verdict(VerdictStatus.VERIFIED if answer else VerdictStatus.FAILED, str(answer))
    raise TypeError(f"a verifier returns a Verdict or a bool, not {type(answer).__name__}")


def _refused(error: Exception, claim: _Claim) -> _Outcome:
    """Return what an exception means for the claim."""
    if isinstance(error, EvidenceUnavailableError):
        return Verdict(VerdictStatus.UNAVAILABLE, str(error))
    if isinstance(error, EvidenceInputError):
        if claim.previous is None:
            return error
        return Verdict(VerdictStatus.FAILED, str(error))
    detail = f"{type(error).__name__}: {error}"
    return Verdict(VerdictStatus.ERROR, detail[:_DETAIL])


def _recorded(outcome: _Outcome, claim: _Claim, clock: Clock, started: float) -> _Outcome:
    """Add when it was checked and what that cost, and keep the baseline of a claim that fails."""
    if not isinstance(outcome, Verdict):
        return outcome
    captured = outcome.captured
    if not outcome.holds and claim.previous is not None:
        captured = {**claim.previous.captured, **captured}
    seconds = clock.boottime() - started
    return Verdict(outcome.status, outcome.detail, captured, clock.now(), seconds)


def _raise_refusals(outcomes: list[_Outcome | None]) -> Iterator[Verdict]:
    for outcome in outcomes:
        if isinstance(outcome, EvidenceInputError):
            raise outcome
        if outcome is None:
            raise RuntimeError("a claim was left unchecked")
        yield outcome

"""Context: what a handler is given. Everything it does through it is recorded.

`Context` is for async handlers, `SyncContext` (see `holdfast.sync_context`) for sync ones.
"""

from __future__ import annotations

import inspect
import random
import sys
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

import msgspec

from holdfast import errors
from holdfast.answer import Answer, AnyModel
from holdfast.approvals import Approval
from holdfast.attempt import Attempt
from holdfast.branches import scoped, zip_scopes
from holdfast.budgets import Reserve
from holdfast.evidence import Evidence, EvidencePack
from holdfast.handlers import Handler, TaskOptions
from holdfast.llm_cache import Reuse
from holdfast.model_calls import How, ModelCalls, ModelStream, describe
from holdfast.models import Checkpoint, Task
from holdfast.redaction import redact
from holdfast.states import CheckpointType, Effect, EntryKind
from holdfast.store import verbs
from holdfast.tool import effect_named
from holdfast.tool import idempotency_key as current_idempotency_key
from holdfast.usage import Usage, usage_of
from holdfast.waiting import Waiting

if TYPE_CHECKING:  # it takes seconds to import, and needn't be installed
    from holdfast.providers.asking import Asked

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


class CallOptions(msgspec.Struct, frozen=True):
    """How one call is made; never mixed with its function's own parameters.

    Args:
        key: names the call within its item, instead of its arguments; then it answers every time.
        name: what the journal calls it; the function's name when None.
        timeout: seconds the call may take.
        effect: for a step, what it does to the world.
        approve: for a tool or step, whether a person must approve the call, for its exact
            arguments; a number of seconds is how long they have for it.
        model: for an LLM call, the model's name, where it isn't an argument called `model`.
        reuse: for an LLM call, share its output between runs.
        usage: for an LLM call, reads tokens and cost off the answer.
        reserve: for an LLM call under a budget, what it may take at most, or a function of its
            arguments by name that says so; an estimate without a price when None.
        quota_wait: for an LLM call, seconds it may wait in all for a provider that takes no more
            calls; a day when None, and 0 raises `RateLimitedError` at once.
        queue: for a child, which workers may claim it.
        priority: for a child.
    """

    key: str | None = None
    name: str | None = None
    timeout: float | None = None
    effect: Effect | None = None
    approve: bool | float = False
    model: str | None = None
    reuse: Reuse | None = None
    usage: Callable[[Any], Usage | None] = usage_of
    reserve: Reserve | None = None
    quota_wait: float | None = None
    queue: str | None = None
    priority: int = 0


_DEFAULTS = CallOptions()


class Context:
    """What an async handler is given.

    A handler may run twice, from the top. Each call made through its context runs at most once per
    recorded outcome: what was recorded answers instead of the call.
    """

    def __init__(self, attempt: Attempt, options: CallOptions = _DEFAULTS) -> None:
        self._attempt = attempt
        self._options = options
        self._waiting = Waiting(attempt, options.key)

    # -- where it runs ---------------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The task as it was when this attempt started."""
        return self._attempt.task

    @property
    def item_id(self) -> str:
        """The work item this handler executes."""
        return self._attempt.item.item_id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1; waiting doesn't count."""
        return self._attempt.item.attempts

    @property
    def results(self) -> dict[str, Any]:
        """What the items directly before this one returned, by item id."""
        return self._attempt.results

    @property
    def workspace(self) -> Path:
        """The directory that relative paths of evidence start from."""
        return Path(self._attempt.task.workspace or ".")

    @property
    def idempotency_key(self) -> str:
        """The key of the call this runs in; see `holdfast.idempotency_key`."""
        return current_idempotency_key()

    def options(
        self,
        *,
        key: str | None = None,
        name: str | None = None,
        timeout: float | None = None,
        effect: Effect | str | None = None,
        approve: bool | float = False,
        model: str | None = None,
        reuse: Reuse | float | bool | None = None,
        usage: Callable[[Any], Usage | None] | None = None,
        reserve: Reserve | None = None,
        quota_wait: float | None = None,
        queue: str | None = None,
        priority: int = 0,
    ) -> Context:
        """Return this context with options for its next calls; see `CallOptions`.

        `reuse` may be a `Reuse`, a number of seconds, or True (until invalidated).
        """
        return Context(
            self._attempt,
            CallOptions(
                key=key,
                name=name,
                timeout=timeout,
                effect=None if effect is None else effect_named(effect),
                approve=approve,
                model=model,
                reuse=_as_reuse(reuse),
                usage=usage or usage_of,
                reserve=reserve,
                quota_wait=quota_wait,
                queue=queue,
                priority=priority,
            ),
        )

    # -- calls -----------------------------------------------------------------------------------

    @overload
    async def llm(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def llm(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def llm(self, function: Asked, /) -> Answer: ...
    @overload
    async def llm(
        self,
        function: str | AnyModel,
        messages: str | Iterable[Any],
        /,
        *,
        tools: Iterable[Any] = (),
        settings: Mapping[str, Any] | None = None,
        base_url: str | None = None,
    ) -> Answer: ...
    @overload
    async def llm(
        self,
        function: str | AnyModel,
        messages: str | Iterable[Any],
        /,
        *,
        output: type[T],
        tools: Iterable[Any] = (),
        settings: Mapping[str, Any] | None = None,
        base_url: str | None = None,
    ) -> T: ...
    async def llm(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a model. Its output is durable before this returns and never paid for again.

        A crash while the model answers loses that one answer: it is asked again. Where the task has
        a budget, what the call may take is reserved before it is sent; where too little is left the
        item waits, and so it does when the function raises `RateLimitedError`.

        Given a model's name, such as `openai:gpt-5-mini`, or a Pydantic AI model, it is asked with
        `messages`: a text, Pydantic AI messages, or dicts with `role` and `content`. `tools` are
        what it may call (nothing is called here), `settings` those of Pydantic AI's
        `ModelSettings`, `base_url` another server with the provider's API. With `output`, a value
        of that type comes back; without, Pydantic AI's `ModelResponse`. That needs
        `holdfast[agent]`.

        Raises:
            UnknownPriceError: the budget limits money, and `reserve` says no cost.
            RateLimitedError: the provider refused it for longer than `quota_wait`.
            EncodingError: an argument or the output can't be kept as data.
            ProviderUnavailableError: the provider failed three times in a row.
            RequestRejectedError: the provider won't answer this request.
            OutputRejectedError: three answers in a row weren't of the type `output`.
            Exception: whatever the function raised, the same at a replay.
        """
        if isinstance(function, str) or _is_model(function):
            return await self._ask(function, *args, **kwargs)
        given = self._options
        with self._attempt.branches.call():
            return await self._attempt.llm_cache.call(
                function, args, kwargs, name=given.name, key=given.key, model=given.model,
                reuse=given.reuse, measure=given.usage, reserve=given.reserve,
                quota_wait=given.quota_wait, timeout=given.timeout,
            )  # fmt: skip

    async def _ask(
        self,
        model: str | AnyModel | Asked,
        messages: str | Iterable[Any] = (),
        *,
        output: Any = None,  # noqa: ANN401  any type
        tools: Iterable[Any] = (),
        settings: Mapping[str, Any] | None = None,
        base_url: str | None = None,
    ) -> Any:  # noqa: ANN401  of that type
        asked, wanted = await describe(
            model, messages, tools=tools, output=output, settings=settings, base_url=base_url
        )
        response = await ModelCalls(self._attempt).ask(asked, self._how, wanted)
        return response if wanted is None else wanted.read(asked.name, cast("Any", response))

    def stream(
        self,
        model: str | AnyModel | Asked,
        messages: str | Iterable[Any] = (),
        *,
        tools: Iterable[Any] = (),
        settings: Mapping[str, Any] | None = None,
        base_url: str | None = None,
    ) -> ModelStream:
        """Ask a model and read its answer while it comes; see `llm` for the arguments.

        ::

            async for text in ctx.stream("openai:gpt-5-mini", prompt): ...

        What comes is provisional: the loop ends only when the answer is durable. A recorded answer
        arrives piece by piece, as it came. A stream that breaks off fails the call; what has been
        read by then isn't kept. Who leaves the loop early cancels the request.
        """

        async def open_(
            finished: Callable[[Answer], None],
        ) -> AsyncGenerator[Any]:
            asked, _ = await describe(
                model, messages, tools=tools, output=None, settings=settings, base_url=base_url
            )
            events = ModelCalls(self._attempt).stream(asked, self._how, finished)
            try:
                async for event in events:
                    yield event
            finally:
                await events.aclose()

        return ModelStream(open_)

    @property
    def _how(self) -> How:
        given = self._options
        return How(
            name=given.name, key=given.key, model=given.model, reuse=given.reuse,
            timeout=given.timeout, usage=given.usage, reserve=given.reserve,
            quota_wait=given.quota_wait,
        )  # fmt: skip

    @overload
    async def tool(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def tool(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def tool(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a tool; what a crash inside does is decided by its effect class.

        A function without `@tool` counts as `once`: started and not finished, it is in doubt and is
        never just run again.

        Raises:
            ConcurrentCallError: an identical `once` call is under way; give each a key.
            KeyReusedError: the key named a call with other arguments.
            ApprovalRejectedError, ApprovalExpiredError: it must be approved, and was not.
            Exception: whatever the tool raised, the same at a replay.
        """
        return await self._call(EntryKind.TOOL, function, args, kwargs)

    @overload
    async def step(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def step(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def step(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a function of yours; a crash inside runs it again, so it may run twice.

        `idempotent` unless `options(effect=…)` says otherwise. Durable before this returns (a
        `read`: before the next effect).
        """
        return await self._call(EntryKind.STEP, function, args, kwargs)

    async def _call(
        self,
        kind: EntryKind,
        function: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> T:
        given = self._options
        with self._attempt.branches.call():
            return await self._attempt.ledger.call(
                function, args, kwargs, kind=kind, effect=given.effect, name=given.name,
                key=given.key, timeout=given.timeout, approve=given.approve,
            )  # fmt: skip

    # -- checkpoints -----------------------------------------------------------------------------

    async def checkpoint(
        self,
        state: object = None,
        *,
        evidence: Evidence | Iterable[Evidence] | EvidencePack | None = None,
        type: CheckpointType | str = CheckpointType.MANUAL,  # noqa: A002
    ) -> Checkpoint:
        """Record a state that `restore` may give back, with evidence that must hold.

        Raises:
            EvidenceRejectedError: it doesn't hold; nothing was recorded.
            BranchesRunningError: a sibling branch of this item is running.
        """
        with self._attempt.branches.call():
            if not self._attempt.branches.alone:
                message = (
                    "A checkpoint while another branch of the same item runs would cut its journal "
                    "in two; nothing was recorded. Take it after the gather."
                )
                raise errors.BranchesRunningError(message)
            return await self._attempt.checkpoints.commit(state, evidence, type=type)

    async def restore(self, default: T) -> T:
        """Return the state of the newest checkpoint whose evidence holds, or `default`.

        For handlers that loop over a growing state: from here on only what came after that
        checkpoint is replayed, and what came before may be pruned. Must be the first call.

        Raises:
            RestoreOrderError: another call came first.
        """
        with self._attempt.branches.call():
            return await self._attempt.checkpoints.restore(default)

    # -- waiting ---------------------------------------------------------------------------------

    async def sleep(self, name: str, seconds: float) -> None:
        """Wait, durably, holding no slot. The end is fixed when it is first reached.

        Args:
            name: tells this wait from others of the item.
            seconds: how long.
        """
        with self._attempt.branches.call():
            await self._waiting.sleep(name, seconds)

    async def signal(self, name: str, *, timeout: float | None = None) -> Any:  # noqa: ANN401, ASYNC109
        """Wait for a signal and return its payload; each signal is taken once.

        Args:
            name: of the signal.
            timeout: seconds to wait; counted from when it is first reached.

        Raises:
            CallTimeoutError: none came in time, the same at a replay.
        """
        with self._attempt.branches.call():
            return await self._waiting.signal(name, timeout)

    async def approval(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        text: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  how long people have
    ) -> Approval:
        """Wait for a person's approval, for days if need be, and use it up.

        It is bound to the name and the exact arguments. A crash before this returns leaves it
        usable, and a replay returns what was recorded.

        Args:
            name: of what is to happen.
            arguments: what people decide about; data.
            text: what they are told besides.
            timeout: seconds they have for an answer, from when it is first asked for; as long as
                they like when None.

        Raises:
            ApprovalRejectedError: a person said no.
            ApprovalExpiredError: nobody answered in time.
            EncodingError: the arguments can't be kept as data; nobody was asked.
        """
        with self._attempt.branches.call():
            return await self._waiting.approval(name, dict(arguments or {}), text or "", timeout)

    async def child(self, function: Handler[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a registered task as a child and return its result; holds no slot meanwhile.

        Submitting it and recording that are one transaction: a crash never makes a second child.
        Canceling the parent cancels it.

        Raises:
            UnknownHandlerError: the function isn't registered.
            TaskFailedError, TaskCanceledError: the child ended so.
        """
        given = self._options
        with self._attempt.branches.call():
            handler = self._attempt.handlers.get(function)
            arguments = handler.bind(args, kwargs)
            options = TaskOptions(queue=given.queue, priority=given.priority)
            return cast("T", await self._waiting.child(handler, arguments, options))

    # -- branches --------------------------------------------------------------------------------

    async def gather(self, *branches: Awaitable[T]) -> list[T]:
        """Run calls side by side and return their results in order.

        Each branch has a scope of its own. The first failure cancels the others.
        """

        async def run(scope: str, branch: Awaitable[T]) -> T:
            with scoped(scope):
                return await branch

        try:
            return await self._attempt.branches.fork(
                [run(f"gather[{i}]", branch) for i, branch in enumerate(branches)]
            )
        finally:
            for branch in branches:
                if inspect.iscoroutine(branch):
                    branch.close()  # one that was canceled before it began

    async def map(
        self, function: Callable[[S], Awaitable[T]], items: Iterable[S], *, limit: int | None = None
    ) -> list[T]:
        """Run `function(item)` for each item side by side and return the results in order.

        A branch is named by its item, so items may be added or reordered between runs.

        Args:
            function: an async function that makes calls through this context.
            items: what to call it with; data.
            limit: how many run at once; all when None.

        Raises:
            EncodingError: an item can't name its branch; nothing was called.
        """
        given = zip_scopes(function, tuple(items))
        if limit is not None and limit < 1:
            message = f"{limit} branches at a time would never end. Use 1 or more."
            raise errors.UsageError(message)
        left, results = iter(enumerate(given)), dict[int, T]()

        async def work() -> None:
            for number, (scope, item) in left:
                with scoped(scope):
                    results[number] = await function(item)

        count = len(given) if limit is None else min(limit, len(given))
        await self._attempt.branches.fork([work() for _ in range(count)])
        return [results[number] for number in range(len(given))]

    @asynccontextmanager
    async def scope(self, name: str) -> AsyncGenerator[None]:
        """Give the calls of a block a scope of their own, apart from equal calls elsewhere."""
        with scoped(name):
            yield

    # -- values that must not change -------------------------------------------------------------

    async def now(self, name: str) -> datetime:
        """Return the time (UTC) this was first reached; the same at a replay."""
        with self._attempt.branches.call():
            value = self._waiting.value(f"now:{name}", self._attempt.store.now)
            return datetime.fromtimestamp(cast("float", value), UTC)

    async def uuid(self, name: str) -> uuid.UUID:
        """Return a random UUID; the same at a replay."""
        with self._attempt.branches.call():
            return cast("uuid.UUID", self._waiting.value(f"uuid:{name}", uuid.uuid4))

    async def random(self, name: str) -> float:
        """Return a random number in [0, 1); the same at a replay. Not for secrets."""
        with self._attempt.branches.call():
            return cast("float", self._waiting.value(f"random:{name}", random.random))

    async def progress(
        self, text: str, done: float | None = None, total: float | None = None
    ) -> None:
        """Tell whoever watches how far this is. Everything recorded before is durable then."""
        with self._attempt.branches.call():
            journal = self._attempt.journal
            await journal.write(
                verbs.report_progress(
                    journal.lease, journal.extend(()), redact(text), done, total,
                    self._attempt.store.now(),
                )
            )  # fmt: skip


def _is_model(function: object) -> bool:
    """Say whether it is a model of Pydantic AI's; whoever made one has imported that."""
    models = sys.modules.get("pydantic_ai.models")
    asking = sys.modules.get("holdfast.providers.asking")
    return (models is not None and isinstance(function, models.Model)) or (
        asking is not None and isinstance(function, asking.Asked)
    )


def _as_reuse(reuse: Reuse | float | bool | None) -> Reuse | None:  # noqa: FBT001
    if reuse is None or isinstance(reuse, Reuse):
        return reuse
    if isinstance(reuse, bool):
        return Reuse() if reuse else None
    return Reuse(ttl=float(reuse))

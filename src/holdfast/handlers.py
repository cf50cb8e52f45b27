"""The functions a program has registered, by name, and the tasks they make."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import msgspec

from holdfast import codec, errors
from holdfast.evidence import Evidence, EvidencePack
from holdfast.ids import new_id
from holdfast.models import MAIN, PLAN, Budget, ItemPolicy, Task, WorkItem
from holdfast.registry import register_annotations
from holdfast.states import ApprovalPolicy
from holdfast.store.payload import Payload, make_payload
from holdfast.store.verbs import NewItem, NewTask
from holdfast.tool import bind_arguments, is_async, name_of

P = ParamSpec("P")
T = TypeVar("T")

Plan = Sequence[WorkItem] | Awaitable[Sequence[WorkItem]]
Planner = Callable[[Task], Plan] | Callable[[Any, Task], Plan]
"""Turns a task into a plan; one with two parameters is given a context first."""


class Handler(Generic[P, T]):
    """A registered function that executes work items. Calling it calls the function.

    Args:
        function: takes a context first, then its own parameters.
        name: what the database calls it; renaming it strands what is under way.
        policy: attempts, backoff, time limit of one attempt.
        queue: which workers may claim it.
        evidence: what each of its items owes.
        require_evidence: refuse to succeed without any verified evidence.
    """

    def __init__(
        self,
        function: Callable[Concatenate[Any, P], Awaitable[T]] | Callable[Concatenate[Any, P], T],
        *,
        name: str | None = None,
        policy: ItemPolicy | None = None,
        queue: str = "default",
        evidence: Sequence[Evidence] | EvidencePack = (),
        require_evidence: bool = False,
    ) -> None:
        self.function = function
        self.name = name or name_of(function)
        self.policy = policy or ItemPolicy()
        self.queue = queue
        self.evidence = EvidencePack.of(evidence)
        self.require_evidence = require_evidence
        self.is_async = is_async(function)
        self.planner: Planner | None = None
        self.signature = _without_context(self.name, inspect.signature(function))
        self.__doc__ = function.__doc__
        register_annotations(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  the function's own
        """Call the function itself: nothing is recorded beyond what its context does."""
        return self.function(*args, **kwargs)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, defaults included.

        Raises:
            ArgumentsError: they don't fit.
        """
        return bind_arguments(self.name, self.signature, args, kwargs)

    @property
    def planner_takes_context(self) -> bool:
        """Whether the planner makes calls through a context: it has two parameters."""
        if self.planner is None:
            return False
        return len(inspect.signature(self.planner).parameters) > 1

    def call_arguments(self, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return stored arguments as positional and keyword ones.

        Raises:
            ArgumentsError: the function's parameters have changed since they were stored.
        """
        bound = inspect.BoundArguments(self.signature, {})  # type: ignore[arg-type]
        unknown = set(given) - set(self.signature.parameters)
        missing = [
            name
            for name, parameter in self.signature.parameters.items()
            if name not in given
            and parameter.default is inspect.Parameter.empty
            and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        ]
        if unknown or missing:
            message = (
                f"{self.name}{self.signature} doesn't take the stored arguments "
                f"({', '.join(sorted(given))}); its parameters were changed. Restore them, or "
                f"cancel the task and submit it anew."
            )
            raise errors.ArgumentsError(message)
        bound.arguments.update(given)
        return list(bound.args), bound.kwargs


def _without_context(name: str, signature: inspect.Signature) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    if not parameters:
        message = f"{name} takes no context. Give it one first parameter: def {name}(ctx, …)."
        raise errors.UsageError(message)
    return signature.replace(parameters=parameters[1:])


class Handlers:
    """The registry of one runner."""

    def __init__(self) -> None:
        self._by_name: dict[str, Handler[..., Any]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What this program can execute."""
        planners = (f"{name}:{PLAN}" for name, handler in self._by_name.items() if handler.planner)
        return (*self._by_name, *planners)

    def add(self, handler: Handler[..., Any]) -> None:
        """Register a handler.

        Raises:
            UsageError: another function has that name.
        """
        known = self._by_name.get(handler.name)
        if known is not None and known.function is not handler.function:
            message = f"Two handlers are named {handler.name!r}. Name one of them: name=…."
            raise errors.UsageError(message)
        self._by_name[handler.name] = handler

    def get(self, named: object) -> Handler[..., Any]:
        """Return a handler by its name, its function or itself.

        Raises:
            UnknownHandlerError: it isn't registered here.
        """
        if isinstance(named, Handler):
            named = named.name
        elif callable(named):
            named = next(
                (h.name for h in self._by_name.values() if h.function is named), name_of(named)
            )
        handler = self._by_name.get(str(named))
        if handler is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            message = (
                f"No handler is registered as {named!r} here; nothing was recorded. "
                f"Registered: {known}."
            )
            raise errors.UnknownHandlerError(message, name=str(named))
        return handler

    def planner_of(self, handler_name: str) -> Handler[..., Any] | None:
        """Return the handler whose planner a work item runs, if it runs one."""
        name, mark, kind = handler_name.rpartition(":")
        return self.get(name) if mark and kind == PLAN else None


class TaskOptions(msgspec.Struct, frozen=True):
    """How a task is submitted; never mixed with its function's own parameters.

    Args:
        key: names the task: submitting the same again returns the one there is.
        queue: which workers may claim its items; the handler's own when None.
        priority: higher is claimed earlier; one point is worth a minute of waiting.
        workspace: root of the relative paths in its evidence; the working directory when None.
        require_evidence: refuse to succeed without verified evidence; the handler's own when None.
        budget: what it may spend on model calls, with everything below it.
        approvals: which of its calls need a person's approval without asking for one; what it
            starts itself inherits that.
    """

    key: str | None = None
    queue: str | None = None
    priority: int = 0
    workspace: str | None = None
    require_evidence: bool | None = None
    budget: Budget | None = None
    approvals: ApprovalPolicy = ApprovalPolicy.AUTONOMOUS


def policy_named(name: ApprovalPolicy | str) -> ApprovalPolicy:
    """Return a policy by its name.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return ApprovalPolicy(name)
    except ValueError:
        message = f"{name!r} is no approval policy. Use autonomous, assisted or interactive."
        raise errors.UsageError(message) from None


def new_task(
    handler: Handler[..., Any], arguments: dict[str, Any], options: TaskOptions, now: float
) -> NewTask:
    """Return a task that is ready to be stored, with the items it starts with.

    Raises:
        EncodingError, PayloadTooLargeError: an argument can't be kept; nothing was recorded.
    """
    given = encode_arguments(handler, arguments)
    queue = options.queue or handler.queue
    main = NewItem(
        MAIN,
        handler.name,
        given,
        queue,
        options.priority,
        msgspec.msgpack.encode(handler.policy),
        handler.policy.max_crashes,
        msgspec.msgpack.encode(handler.evidence) if handler.evidence.items else None,
        (PLAN,) if handler.planner else (),
    )
    items = (main,)
    if handler.planner is not None:
        plan = msgspec.structs.replace(
            main, item_id=PLAN, handler=f"{handler.name}:{PLAN}", owes=None, after=()
        )
        items = (plan, main)
    required = options.require_evidence
    return NewTask(
        new_id(now),
        handler.name,
        given,
        items,
        key=options.key,
        queue=queue,
        priority=options.priority,
        workspace=str(Path(options.workspace or ".").absolute()),
        require_evidence=handler.require_evidence if required is None else required,
        budget=options.budget,
        approvals=options.approvals,
    )


def encode_arguments(handler: Handler[..., Any], arguments: dict[str, Any]) -> Payload:
    """Encode a handler's arguments.

    Raises:
        EncodingError, PayloadTooLargeError: one can't be kept; nothing was recorded.
    """
    try:
        return make_payload(codec.encode(arguments))
    except errors.EncodingError as error:
        message = f"The arguments of {handler.name} can't be kept: {error}"
        raise errors.EncodingError(message, path=error.path) from error

"""What a function is to Holdfast: its name, its effect, its parameters."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

import msgspec

from holdfast import errors
from holdfast.registry import register_annotations, register_type
from holdfast.states import Effect
from holdfast.threads import start_thread

P = ParamSpec("P")
T = TypeVar("T")

SETTLE_AFTER = 10.0
"""Seconds after a `once` call is known to be over before "it did not happen" is believed: a request
that a dead process sent may still be on its way."""


class Done(msgspec.Struct, frozen=True):
    """A reconcile function's answer: it happened, and this is what it returned."""

    result: Any = None


class NotDone(msgspec.Struct, frozen=True):
    """A reconcile function's answer: it did not happen."""


class Unknown(msgspec.Struct, frozen=True):
    """A reconcile function's answer: it can't be told. A person resolves the call."""


LINGER = 5.0
"""Seconds that a call in a thread, which can't be interrupted, is waited for after its time."""

Reconciled = Done | NotDone | Unknown
Reconcile = (
    Callable[[dict[str, Any], str], Reconciled | Awaitable[Reconciled]]
    | Callable[[dict[str, Any], str, Any], Reconciled | Awaitable[Reconciled]]
)
Observe = Callable[[dict[str, Any]], object]
Repeatable = Callable[[dict[str, Any]], bool]


class Tool(Generic[P, T]):
    """A function with an effect class. Calling it directly just calls the function.

    Args:
        function: what does the work; may be sync (then it runs in a thread) or async.
        effect: see `Effect`.
        name: what the journal calls it; the function's qualified name by default.
        reconcile: for a `once` tool, asks the world whether a call happened. It is given the
            arguments by name, the idempotency key, and what `observe` returned where there is one.
        observe: for a `once` tool, looks at the world before a call; it is given the arguments by
            name. What it returns is durable before the call starts. If it raises, there is no call.
        repeatable: for a `once` tool, says of arguments, by name, that a call with them may run
            again: that call is `idempotent`.
        settle_after: seconds after a call is known to be over before `NotDone` is believed.
        no_effect: exceptions that say the call had no effect, so that it may be made again.
        raises: exceptions of your own that a replay may raise again as they are.
        stops_when_canceled: of an async function: whether a call that was canceled has no effect
            later, because it starts no thread, and no task that it doesn't wait for. Otherwise one
            that was interrupted counts as running until its process ends, and nobody believes
            `NotDone` of it before.
        timeout: seconds one call may take. A sync function can't be stopped: it is waited for up to
            `LINGER` seconds more, and what it returns by then counts.
        approve: whether a person must approve each call, for its exact arguments; a number of
            seconds is how long they have for it.
    """

    def __init__(
        self,
        function: Callable[P, Awaitable[T]] | Callable[P, T],
        *,
        effect: Effect = Effect.ONCE,
        name: str | None = None,
        reconcile: Reconcile | None = None,
        observe: Observe | None = None,
        repeatable: Repeatable | None = None,
        settle_after: float = SETTLE_AFTER,
        no_effect: tuple[type[Exception], ...] = (),
        raises: tuple[type[Exception], ...] = (),
        stops_when_canceled: bool = False,
        timeout: float | None = None,
        approve: bool | float = False,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.effect = effect
        self.name = name or name_of(function)
        self.reconcile = reconcile
        self.observe = observe
        self.repeatable = repeatable
        self.settle_after = settle_after
        self.no_effect = (errors.NoEffect, *no_effect)
        self.stops_when_canceled = stops_when_canceled
        self.timeout = timeout
        self.approve = approve
        self.signature = _signature(_unwrapped(function))
        self._names = _plain_names(self.signature)
        register_annotations(function)
        for exception in (*no_effect, *raises):
            register_type(exception)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function itself: nothing is recorded."""
        return cast("T", self.function(*args, **kwargs))

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by parameter name, defaults included.

        Raises:
            ArgumentsError: they don't fit; nothing was called.
        """
        inner: Any = self.function
        while isinstance(inner, functools.partial):  # what it holds belongs to the call
            args, kwargs = (*inner.args, *args), {**inner.keywords, **kwargs}
            inner = cast("functools.partial[Any]", inner).func
        names = self._names
        if names is not None and len(args) == len(names) and not kwargs:  # quicker, and the same
            return dict(zip(names, args, strict=True))
        return bind_arguments(self.name, self.signature, args, kwargs)

    def effect_of(self, arguments: dict[str, Any]) -> Effect:
        """Return what a call with these arguments, by name, does to the world."""
        if self.effect is Effect.ONCE and self.repeatable and self.repeatable(dict(arguments)):
            return Effect.IDEMPOTENT
        return self.effect

    async def invoke(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> T:
        """Call the function: an async one here, a sync one in a thread."""
        return cast("T", await invoke(self.function, args, kwargs, self.timeout, self.name))


@functools.lru_cache(maxsize=1024)
def _plain_tool(function: Callable[..., Any], effect: Effect) -> Tool[..., Any]:
    return Tool(function, effect=effect)


def tool_of(function: Any, effect: Effect) -> Tool[..., Any]:  # noqa: ANN401  any callable
    """Return the tool a callable is, or makes; `effect` is what a bare function has."""
    if isinstance(function, Tool):
        return cast("Tool[..., Any]", function)
    if not callable(function):
        message = f"{function!r} can't be called. Pass a function, not what it returned."
        raise errors.ArgumentsError(message)
    make = _plain_tool if type(function).__hash__ is not None else _plain_tool.__wrapped__
    return make(function, effect)


@overload
def tool(function: Callable[P, T], /) -> Tool[P, T]: ...
@overload
def tool(
    *,
    effect: Effect | str = ...,
    name: str | None = ...,
    reconcile: Reconcile | None = ...,
    observe: Observe | None = ...,
    repeatable: Repeatable | None = ...,
    settle_after: float = ...,
    no_effect: tuple[type[Exception], ...] = ...,
    raises: tuple[type[Exception], ...] = ...,
    stops_when_canceled: bool = ...,
    timeout: float | None = ...,
    approve: bool | float = ...,
) -> Callable[[Callable[P, T]], Tool[P, T]]: ...
def tool(function: Any = None, /, *, effect: Effect | str = Effect.ONCE, **options: Any) -> Any:
    """Say what a function does to the world.

    ::

        @tool(effect="once", reconcile=look_into_the_outbox)
        async def send_email(to: str, body: str) -> str: ...

    The effect is one of `read`, `idempotent` and `once`; `once` is the default, because it is the
    only safe one for a function nothing is known of. The other arguments are those of `Tool`.
    """
    known = effect_named(effect)
    if function is not None:
        return Tool(function, effect=known)
    return functools.partial(cast("Any", Tool), effect=known, **options)


def effect_named(name: Effect | str) -> Effect:
    """Return the effect class a tool or step may have.

    Raises:
        UsageError: it is none, or that of a model call.
    """
    if name not in {Effect.READ, Effect.IDEMPOTENT, Effect.ONCE}:
        message = f"{name!r} is no effect class of a tool. Use read, idempotent or once."
        raise errors.UsageError(message)
    return Effect(name)


# -- the call that is being made ------------------------------------------------------------------


class CurrentCall(msgspec.Struct):
    """What a tool may know about the call it is in.

    Args:
        key: returns its idempotency key, which most calls don't ask for.
        key_used: whether it did.
    """

    key: Callable[[], str]
    key_used: bool = False


current_call: ContextVar[CurrentCall | None] = ContextVar("holdfast_call", default=None)


def idempotency_key() -> str:
    """Return the idempotency key of the call this runs in; hand it to the receiver.

    It is the same when the call is made again after a crash, and different for any other call. A
    call that reads it is kept in the journal until its task ends.

    Raises:
        UsageError: no call made through a context is running here.
    """
    call = current_call.get()
    if call is None:
        message = "idempotency_key() is for functions called through ctx.tool, ctx.step or ctx.llm."
        raise errors.UsageError(message)
    call.key_used = True
    return call.key()


# -- functions ------------------------------------------------------------------------------------


def name_of(function: Callable[..., Any]) -> str:
    """Return the name a function goes by: short, and stable while it keeps its name."""
    function = _unwrapped(function)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return name.replace("<locals>.", "")


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    return function


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return None


def _plain_names(signature: inspect.Signature | None) -> tuple[str, ...] | None:
    """Return the names of the parameters where each is an ordinary one."""
    if signature is None:
        return None
    parameters = signature.parameters.values()
    plain = all(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters)
    return tuple(each.name for each in parameters) if plain else None


def bind_arguments(
    name: str,
    signature: inspect.Signature | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """Return arguments by parameter name, defaults included, so that equal calls look equal.

    Raises:
        ArgumentsError: they don't fit.
    """
    if signature is None:
        return {"args": args, "kwargs": dict(kwargs)}
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        message = f"{name}{signature}: {error}. Nothing was called."
        raise errors.ArgumentsError(message) from None
    bound.apply_defaults()
    return dict(bound.arguments)


def is_async(function: Callable[..., Any]) -> bool:
    """Say whether calling it gives an awaitable."""
    if isinstance(function, FunctionType) and function.__code__.co_flags & inspect.CO_COROUTINE:
        return True  # as most are; the rest is slower
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  asks about the method, not callability
    )


async def invoke(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    timeout: float | None,  # noqa: ASYNC109  what a tool declares
    name: str,
) -> Any:  # noqa: ANN401  whatever the function returns
    """Call a function, sync ones in a thread, within a time limit.

    A thread can't be stopped: when its time is over or the attempt ends, this still waits for it
    for up to `LINGER` seconds, so that its outcome is known.

    Raises:
        CallTimeoutError: it took longer than `timeout` seconds.
        FinishedAnyway: the attempt was told to stop, and a sync function returned nonetheless.
    """
    if is_async(function):
        running = function(*args, **kwargs)
        return await (running if timeout is None else _within(running, timeout, name))
    call = functools.partial(function, *args, **kwargs)
    result = await _in_thread(call, timeout, name)
    return await _within(result, timeout, name) if inspect.isawaitable(result) else result


async def _within(call: Awaitable[Any], seconds: float | None, name: str) -> Any:  # noqa: ANN401
    if seconds is None:
        return await call
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            return await call
    except TimeoutError as error:
        if not timer.expired():
            raise  # the function's own
        raise _timed_out(name, seconds) from error


async def _in_thread(call: Callable[[], Any], seconds: float | None, name: str) -> Any:  # noqa: ANN401
    context = contextvars.copy_context()
    running = start_thread(functools.partial(context.run, call))
    try:
        await asyncio.wait((running,), timeout=seconds)
        if seconds is not None and not await _ended(running):
            raise _timed_out(name, seconds)
        return running.result()
    except asyncio.CancelledError:
        if await _ended(running) and running.exception() is None:
            raise FinishedAnyway(running.result()) from None
        raise


async def _ended(running: asyncio.Future[Any]) -> bool:
    if not running.done():
        await asyncio.wait((running,), timeout=LINGER)
    if not running.done():
        running.add_done_callback(lambda late: late.exception())  # retrieved: nobody waits for it
    return running.done()


def _timed_out(name: str, seconds: float) -> errors.CallTimeoutError:
    message = f"{name} took longer than {seconds:g} s and was stopped."
    return errors.CallTimeoutError(message, seconds=seconds)


class FinishedAnyway(asyncio.CancelledError):
    """A call in a thread returned after its attempt was told to stop; `result` is what."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

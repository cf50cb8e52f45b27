"""Schedules: tasks that a program wants submitted at certain times.

What is due is taken by one transaction that moves the schedule on and submits the task. So each due
time makes one task, however many workers run, and a crash leaves both done or neither.
"""

from __future__ import annotations

import logging
from typing import Any, ParamSpec, TypeVar

import msgspec

from holdfast import codec, errors, packing
from holdfast.cron import Cron
from holdfast.handlers import Handler, Handlers, TaskOptions, encode_arguments, new_task
from holdfast.loops import Loop
from holdfast.store import Store, verbs
from holdfast.store.payload import MAX_PAYLOAD
from holdfast.store.verbs import NewSchedule, ScheduleRecord

P = ParamSpec("P")
T = TypeVar("T")

LOOK = 1.0
"""Seconds between looks at what is due: others may have changed it."""

SOON = 0.05
"""Seconds between two looks at least."""

log = logging.getLogger("holdfast")


class Schedules:
    """The schedules that one program declares. Its workers record them, and submit only these.

    Args:
        handlers: the functions it has registered.
        workspace: root of relative paths in its tasks' evidence.
    """

    def __init__(self, handlers: Handlers, workspace: str | None = None) -> None:
        self.handlers = handlers
        self.workspace = workspace
        self.declared: dict[str, NewSchedule] = {}

    def add(self, new: NewSchedule) -> None:
        """Declare a schedule.

        Raises:
            UsageError: another one has that name.
        """
        if self.declared.setdefault(new.name, new) != new:
            message = f"Two schedules are named {new.name!r}. Name one of them: name=…."
            raise errors.UsageError(message)


class Scheduled:
    """A time at which tasks are wanted; says which when it is called. See `TaskRunner.schedule`."""

    def __init__(
        self, schedules: Schedules, cron: Cron, name: str | None, options: TaskOptions
    ) -> None:
        cron.check()
        self._schedules = schedules
        self._cron = cron
        self._name = name
        self._options = options

    def __call__(
        self, handler: Handler[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Handler[P, T]:
        """Want a task of `handler` with these arguments; returns the handler.

        Raises:
            UsageError: another schedule has the name.
            ArgumentsError, EncodingError: the arguments don't fit, or can't be kept.
        """
        arguments = handler.bind(args, kwargs)
        encode_arguments(handler, arguments)  # says what can't be kept
        self._schedules.add(
            NewSchedule(
                self._name or handler.name,
                handler.name,
                packing.pack(codec.encode(arguments)),
                self._cron.expression,
                self._cron.timezone,
                msgspec.msgpack.encode(self._options),
            )
        )
        return handler


class ScheduleLoop(Loop):
    """Records what a program declares, and submits what is due.

    Args:
        store: the database.
        schedules: what the program declares.
    """

    def __init__(self, store: Store, schedules: Schedules) -> None:
        super().__init__(LOOK)
        self._store = store
        self._schedules = schedules
        self._recorded = False
        self._left: set[str] = set()

    async def tick(self) -> None:
        """Submit what is due, once each; wait until the next is."""
        declared = self._schedules.declared
        if not self._recorded:
            now = self._store.now()
            first = [
                (new, Cron(new.cron, new.timezone).next_after(now)) for new in declared.values()
            ]
            await self._store.commit(verbs.put_schedules(first))
            self._recorded = True
        wait = LOOK
        coming = verbs.coming_schedules(tuple(declared), self._store.now())
        for each, due_in in await self._store.beside(lambda: self._store.read(coming)):
            if due_in > 0:
                wait = min(wait, max(SOON, due_in))
            else:
                await self._fire(each, each.next_at - due_in)
        self.interval = wait

    async def _fire(self, due: ScheduleRecord, now: float) -> None:
        """Submit the task of a schedule that is due; `now` is what the database's clock says.

        What this program can't submit is left to others.
        """
        try:
            next_at = Cron(due.cron, due.timezone).next_after(max(now, due.next_at))
            new = self._task(due)
        except (errors.InputError, errors.DecodingError) as error:
            if due.name not in self._left:
                log.warning("Schedule %s is left to other programs: %s", due.name, error)
            self._left.add(due.name)
            return
        self._left.discard(due.name)
        await self._store.commit(verbs.fire_schedule(due, next_at, new, self._store.now()))

    def _task(self, due: ScheduleRecord) -> verbs.NewTask:
        handler = self._schedules.handlers.get(due.task)
        arguments: Any = codec.decode(packing.unpack(due.input, MAX_PAYLOAD))
        handler.call_arguments(arguments)
        options = msgspec.msgpack.decode(due.options or b"\x80", type=TaskOptions)
        at = Cron(due.cron, due.timezone).shown(due.next_at)
        options = msgspec.structs.replace(
            options,
            key=f"schedule:{due.name}:{at}",
            workspace=options.workspace or self._schedules.workspace,
        )
        return new_task(handler, arguments, options, self._store.now())

"""Follows a task's timeline while it is executed: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from holdfast.cli.output import Output, clock_time, moment, short
from holdfast.cli.plain import clean
from holdfast.models import Event
from holdfast.states import FINAL_ITEM
from holdfast.store import Store, verbs

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

PAUSE = 0.1
"""Seconds between looks at the timeline."""


async def events_of(store: Store, task_id: str) -> AsyncGenerator[Event]:
    """Yield a task's events as they come, for as long as somebody asks."""
    last = ""
    while True:
        for event in store.read(verbs.list_events(task_id, last)):
            last = event.event_id
            yield event
        await asyncio.sleep(PAUSE)


def describe_event(event: Event) -> str:
    """Return an event as one line, without its time."""
    return describe(event.item_id, event.type, event_data(event))


def describe(item_id: str | None, kind: str, data: dict[str, Any]) -> str:
    """Return what happened as one line."""
    facts = " ".join(
        # A fencing token is no secret, but redaction can't know that of a word like `token`.
        f"{'lease' if name == 'token' else name}={_fact(name, value)}"
        for name, value in data.items()
        if value is not None
    )
    where = f"{item_id}  " if item_id else ""
    return clean(f"{where}{kind.replace('_', ' ')}{': ' if facts else ''}{facts}")


def event_data(event: Event) -> dict[str, Any]:
    """Return what an event says; whatever isn't an object is kept under `text`."""
    try:
        data: object = json.loads(event.data)
    except ValueError:
        data = event.data
    return data if isinstance(data, dict) else {"text": data}  # pyright: ignore[reportUnknownVariableType]


def _fact(name: str, value: object) -> str:
    if isinstance(value, int | float) and name.endswith("_at"):
        return moment(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "wait":
        return short(_waits_for(value))
    return short(value)


def _waits_for(value: object) -> object:
    """Return what an item waits for: the kind in the JSON that is stored."""
    try:
        waits: Any = json.loads(str(value))
        return waits["kind"]
    except (ValueError, LookupError, TypeError):
        return value


class Reporter(Protocol):
    """Shows how a task comes along."""

    def show(self, event: Event) -> None:
        """Show an event."""
        ...

    def close(self) -> None:
        """Show no more."""
        ...


class Lines:
    """Plain lines on stderr."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, event: Event) -> None:
        """Print an event."""
        self._output.note(f"{clock_time(event.at)}  {describe_event(event)}")

    def close(self) -> None:
        """Nothing is left to do."""


class Bar:
    """A bar on the terminal: how many items have ended, and what happened last."""

    def __init__(self, store: Store, task_id: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._store = store
        self._task_id = task_id
        self._progress: Progress = Progress(
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._row = self._progress.add_task("", total=None)
        self._progress.start()

    def show(self, event: Event) -> None:
        """Move the bar."""
        items = self._store.read(verbs.list_items(self._task_id))
        done = sum(item.status in FINAL_ITEM for item in items)
        self._progress.update(
            self._row, completed=done, total=len(items), description=describe_event(event)
        )

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def new_reporter(output: Output, store: Store, task_id: str) -> Reporter | None:
    """Return what shows progress here; None with `--json`."""
    if output.json:
        return None
    return Bar(store, task_id) if sys.stderr.isatty() else Lines(output)


async def with_progress(
    output: Output, store: Store, task_id: str, call: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Await `call()` and show meanwhile what happens to the task."""
    reporter = new_reporter(output, store, task_id)
    if reporter is None:
        return await call()
    known = {event.event_id for event in store.read(verbs.list_events(task_id))}
    showing = asyncio.ensure_future(_show(reporter, store, task_id, known))
    try:
        return await call()
    finally:
        showing.cancel()
        await asyncio.wait((showing,))
        for event in store.read(verbs.list_events(task_id)):
            if event.event_id not in known:
                reporter.show(event)
        reporter.close()


async def _show(reporter: Reporter, store: Store, task_id: str, known: set[str]) -> None:
    async for event in events_of(store, task_id):
        if event.event_id not in known:
            known.add(event.event_id)
            reporter.show(event)

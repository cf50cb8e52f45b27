"""What the demo shows: progress while it runs, and a table at the end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.demo.account import Account
from holdfast.demo.inspection import Inspection
from holdfast.demo.job import DATABASE
from holdfast.demo.standin import LABEL
from holdfast.demo.supervisor import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

STEP = 10
"""Per cent between two lines about the progress, where there is no terminal."""


class Settings(msgspec.Struct, frozen=True):
    """How the run was to go: worker processes at a time, kills, and what chose their moments."""

    workers: int
    kills: int
    seed: int


class Report(msgspec.Struct, frozen=True):
    """Everything about a run.

    Args:
        settings: how it was to go.
        kills: how many hit a worker before the job ended.
        seconds: how long the job took.
        task_id: the task.
        account: what is due compared with what happened.
        inspection: what a fresh process found; None when it could not be asked.
        directory: where the files are; None when they are removed.
    """

    settings: Settings
    kills: int
    seconds: float
    task_id: str
    account: Account
    inspection: Inspection | None
    directory: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was lost and nothing repeated."""
        return not self.account.problems


class Display:
    """Shows a run on a terminal, or as plain lines; or not at all.

    Args:
        total: how many modules there are.
        quiet: show nothing until the end, and that as JSON.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        from rich.console import Console

        self._console: Console = Console(highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._total = total
        self._shown = 0
        self._bar: Bar | None = None
        self._bar_task: TaskID | None = None

    @contextmanager
    def live(self) -> Generator[None]:
        """Show a progress bar meanwhile, where there is a terminal."""
        if self._quiet or not self._console.is_terminal:
            yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        with Progress(
            TextColumn("auditing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[doing]}"),
            console=self._console,
            transient=True,
        ) as self._bar:
            self._bar_task = self._bar.add_task("audit", total=self._total, doing="")
            yield
        self._bar = None

    def say(self, text: str) -> None:
        """Show one line."""
        if not self._quiet:
            self._console.print(text, markup=False)

    def tell(self, progress: Progress, event: str) -> None:
        """Show the progress, or something that happened."""
        if event:
            self.say(event)
        elif self._bar is not None and self._bar_task is not None:
            doing = " ".join(progress.running)
            self._bar.update(self._bar_task, completed=progress.done, doing=doing)
        elif progress.done * 100 >= (self._shown + STEP) * self._total:
            self._shown = progress.done * 100 // self._total
            self.say(f"{progress.done} of {self._total} modules audited")

    def finish(self, report: Report) -> None:
        """Show how the run ended."""
        if self._quiet:
            facts = {**_facts(report), "ok": report.ok}
            self._console.file.write(
                msgspec.json.format(msgspec.json.encode(facts)).decode() + "\n"
            )
            return
        self._console.print(_table(report))
        for problem in report.account.problems:
            self._console.print(f"PROBLEM: {problem}", style="red", markup=False)
        self.say(
            "Nothing was lost and nothing was repeated."
            if report.ok
            else "Something was lost or repeated; see above."
        )
        if report.directory is not None:
            self.say(_look_around(Path(report.directory), report.task_id))


def _facts(report: Report) -> dict[str, Any]:
    account = msgspec.structs.asdict(report.account)
    problems = account.pop("problems")
    return {
        "kills": report.kills,
        "kills_planned": report.settings.kills,
        "workers": report.settings.workers,
        "seconds": report.seconds,
        "seed": report.settings.seed,
        "task_id": report.task_id,
        "directory": report.directory,
        "model": LABEL,
        **account,
        "inspection": report.inspection,
        "problems": problems,
    }


def _table(report: Report) -> Any:  # noqa: ANN401  a rich table; rich is imported when it is shown
    from rich.table import Table

    table = Table(show_header=False, title="How it ended", title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(report):
        table.add_row(name, text)
    return table


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    a, checked = report.account, report.inspection
    yield (
        "kills",
        (
            f"{report.kills} of {report.settings.kills} (seed {report.settings.seed}), "
            f"{report.settings.workers} workers at a time, {report.seconds:.1f} s"
        ),
    )
    yield "modules audited", f"{a.audited} of {a.modules}, {a.quarantined} quarantined"
    yield (
        "model outputs",
        (
            f"{a.outputs} recorded; {a.paid} paid for, {a.paid_in_vain} of them lost with a killed "
            f"process before they arrived; {a.paid_again} recorded ones paid for again"
        ),
    )
    yield "  replayed", f"{a.replayed_outputs} after a kill, from the journal, for nothing"
    yield "  the model", f"{LABEL}: {a.tokens:,} tokens, ${a.cost:.4f}"
    yield "tool calls", f"{a.executed_tools} executed, {a.replayed_tools} replayed after a kill"
    yield (
        "notifications in doubt",
        (
            f"{a.doubtful}: {a.found_done} found in the outbox, {a.found_not_done} "
            f"found not to have been sent and sent then, {a.by_a_person} left to a person"
        ),
    )
    yield (
        "notifications",
        (f"{a.notified} of {a.modules} due were sent, {a.notified_twice} of them again"),
    )
    yield "items proven", f"{a.proven} of {a.modules + 1} (the index is one)"
    if checked is not None:
        counts = ", ".join(f"{n} {status}" for status, n in sorted(checked.evidence.items()) if n)
        yield "evidence", f"checked again by a fresh process: {counts}"
        yield (
            "hash chains",
            (
                f"{checked.entries} journal entries, "
                f"{'all intact' if not checked.broken else f'{len(checked.broken)} broken'}"
            ),
        )


def _look_around(directory: Path, task_id: str) -> str:
    command = f"holdfast --db sqlite:///{directory / DATABASE}"
    return "\n".join(
        (
            f"The files are in {directory}. Look around:",
            f"  {command} tasks",
            f"  {command} show {task_id}",
            f"  {command} verify {task_id}",
            f"  {command} stats",
        )
    )

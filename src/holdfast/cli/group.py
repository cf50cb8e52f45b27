"""The command group: what commands there are, without importing any of them."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click

from holdfast.cli.failures import EXIT_CODES
from holdfast.version import VERSION


class Lazy(NamedTuple):
    """A command that is imported when it runs. `module` stands below `holdfast.cli`."""

    module: str
    help: str


SECTIONS: dict[str, dict[str, Lazy]] = {
    "Run": {
        "demo": Lazy("demo", "Watch a real job survive kill -9."),
        "agent": Lazy("agent", "Reach a goal in a workspace with a model: plan, carry out, prove."),
        "run": Lazy("running", "Run a task here to its end, or go on with it."),
        "submit": Lazy("running", "Record a task for workers to execute, and print its id."),
        "worker": Lazy("worker", "Execute tasks until told to stop."),
        "resume": Lazy("running", "Check a task's evidence again and run it to its end here."),
    },
    "Look": {
        "tasks": Lazy("tasks", "List tasks, the newest first."),
        "show": Lazy("show", "Show all about one task: items, journal, evidence, timeline."),
        "queues": Lazy("queues", "List queues: limits, what runs, what is ready and how long."),
        "workers": Lazy("workers", "List workers: where they run and what they execute."),
        "schedules": Lazy("schedules", "List schedules: when each is due, and what it did last."),
        "stats": Lazy("upkeep", "Count what is there, and what replay and cache saved."),
    },
    "Decide": {
        "cancel": Lazy("deciding", "Cancel a task and everything below it."),
        "retry": Lazy("deciding", "Make what failed, was skipped or quarantined runnable again."),
        "fork": Lazy("deciding", "Make a new task that goes on from a checkpoint."),
        "resolve": Lazy("deciding", "Settle a call in doubt: say what happened."),
        "signal": Lazy("deciding", "Send a signal to a task."),
        "approvals": Lazy(
            "approvals", "List what waits for an approval, with its exact arguments."
        ),
        "approve": Lazy("approvals", "Let go on what waits for an approval."),
        "reject": Lazy("approvals", "Say no to what waits for an approval."),
        "budget": Lazy("budget", "Show what a task may spend and has spent, or let it spend more."),
    },
    "Steer": {
        "queue": Lazy("queues", "Limit a queue, for all workers on all machines."),
        "schedule": Lazy("schedules", "Pause a schedule, let it go on or run now, or remove it."),
    },
    "Check and clean": {
        "verify": Lazy("verify", "Check a task's evidence, hash chains and stored payloads again."),
        "doctor": Lazy("doctor", "Examine the database, its workers, and what is blocked."),
        "sweep": Lazy("upkeep", "Look once for dead workers and take back what they held."),
        "prune": Lazy("upkeep", "Remove ended tasks and what else nobody needs any more."),
        "copy": Lazy("copying", "Move everything to another database, and compare."),
    },
}
COMMANDS = {name: lazy for section in SECTIONS.values() for name, lazy in section.items()}

_EPILOG = (
    "APP is module:runner, the path of a TaskRunner. TASK is a task's id, or the start or end of "
    "it.\n\nExit codes:\n\n\b\n"
    + "\n".join(f"{code:>5}  {meaning}" for code, meaning in EXIT_CODES)
)


class LazyGroup(click.Group):
    """Commands by name, imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        module = importlib.import_module(f"holdfast.cli.{lazy.module}")
        return getattr(module, f"{cmd_name}_command")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of the help from the table."""
        del ctx
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, lazy.help) for name, lazy in commands.items()])


@click.group(
    cls=LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION, message="holdfast %(version)s")
@click.option("--db", "database_url", metavar="URL", help="The database (HOLDFAST_DB).")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.pass_context
def holdfast(context: click.Context, database_url: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Agent tasks that survive crashes, and finish only what they can prove."""
    from holdfast.cli.session import Session

    context.obj = Session(database_url, json=as_json)

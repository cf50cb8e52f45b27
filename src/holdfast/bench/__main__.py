"""The command: measure, show a table (or JSON), say whether the aims were reached."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import apsw
import msgspec
from rich.console import Console
from rich.table import Table

from holdfast import errors
from holdfast.bench.cache import cache
from holdfast.bench.checkpoints import checkpoint
from holdfast.bench.claims import claims
from holdfast.bench.figures import Bench, Figure
from holdfast.bench.processes import idle, processes
from holdfast.bench.restart import history, restart
from holdfast.bench.sites import PostgresSite, Site, SqliteSite
from holdfast.bench.spent import spent
from holdfast.bench.startup import startup
from holdfast.bench.steps import once, read, steps, tasks
from holdfast.bench.storage import storage
from holdfast.testing import PostgresServer
from holdfast.version import VERSION

ROWS: dict[str, Callable[[Bench], list[Figure]]] = {
    "steps": steps,
    "once": once,
    "read": read,
    "tasks": tasks,
    "processes": processes,
    "idle": idle,
    "claims": claims,
    "spent": spent,
    "restart": restart,
    "storage": storage,
    "startup": startup,
    "checkpoint": checkpoint,
    "cache": cache,
    "history": history,
}

ENGINES = ("sqlite", "postgresql")

WIDTH = 160
"""Columns of the table where the output isn't a terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns 0, whatever the figures are."""
    given = _parse(arguments)
    notes = Console(stderr=True)
    directory = Path(tempfile.mkdtemp(prefix=".holdfast-bench-", dir=given.dir)).absolute()

    def tell(text: str) -> None:
        if not given.json:
            notes.print(f"… {text}", style="dim")

    found: list[dict[str, object]] = []
    try:
        for engine in given.on or ENGINES:
            with _site(engine, given.db, directory, tell) as site:
                if site is None:
                    continue
                rounds = given.rounds or (2 if given.quick else 5)
                figures = _measure(Bench(site, rounds, given.quick, tell), given.only)
            found.append({"engine": engine, "machine": machine(engine), "figures": figures})
            if not given.json:
                # A pipe has no width; a table squeezed into eighty columns can't be read.
                console = Console(width=None if sys.stdout.isatty() else WIDTH)
                show(machine(engine), site.heads, figures, console)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if given.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    return 0


def _measure(bench: Bench, only: Sequence[str] | None) -> list[Figure]:
    figures: list[Figure] = []
    for name in only or ROWS:
        bench.tell(f"{bench.site.name}: {name}")
        figures += ROWS[name](bench)
    return figures


@contextmanager
def _site(
    engine: str, url: str | None, directory: Path, tell: Callable[[str], None]
) -> Generator[Site | None]:
    """Give where to measure an engine: None where that isn't possible, which is told."""
    with ExitStack() as stack:
        if engine == "sqlite":
            yield SqliteSite(directory)
            return
        try:
            if url is None:
                directory.chmod(0o711)  # root's servers run as another user
                url = stack.enter_context(PostgresServer(directory=directory)).url
            site = PostgresSite(url, directory)
        except (errors.StoreOpenError, ImportError) as reason:
            tell(f"nothing is measured on PostgreSQL: {reason}")
            yield None
            return
        stack.callback(site.close)
        yield site


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m holdfast.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="two rounds of a tenth of the work")
    parser.add_argument(
        "--only", action="append", choices=list(ROWS), metavar="ROW",
        help=f"measure only this; may be repeated: {', '.join(ROWS)}",
    )  # fmt: skip
    parser.add_argument(
        "--on",
        action="append",
        choices=ENGINES,
        help="measure only this engine; may be repeated",
    )
    parser.add_argument(
        "--db", metavar="URL",
        help="a PostgreSQL server on which databases may be created; one is started by default",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="how often each figure is taken (5)")
    parser.add_argument("--dir", default=".", help="where to put the databases: the disk measured")
    return parser.parse_args(arguments)


def machine(engine: str) -> str:
    """Say what was measured on."""
    library = f"SQLite {apsw.sqlite_lib_version()}" if engine == "sqlite" else "PostgreSQL"
    return (
        f"Holdfast {VERSION}, Python {platform.python_version()}, {library}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )


def show(title: str, heads: tuple[str, str], figures: Sequence[Figure], console: Console) -> None:
    """Print the table."""
    table = Table(title=title, title_justify="left")
    table.add_column("", min_width=30)
    for heading in ("median", "min", "max", *heads):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("aim", "peers' best"):
        table.add_column(heading)
    last = figures[0].row if figures else ""
    for each in figures:
        if each.row != last:
            table.add_section()
            last = each.row
        mark = {None: "", True: " ✓", False: " ✗"}[each.reached]
        table.add_row(
            each.what,
            f"{_short(each.median)} {each.unit}",
            _short(each.low),
            _short(each.high),
            *("" if ratio is None else f"{ratio:.2f}" for ratio in (each.ratio, each.ratio_alike)),
            each.aim + mark,
            each.peers,
        )
    console.print(table)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"  # noqa: PLR2004  three digits


if __name__ == "__main__":
    sys.exit(main())

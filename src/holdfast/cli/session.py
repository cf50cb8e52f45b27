"""What every command is given: the database it means, and where its answer goes."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from holdfast import errors
from holdfast.cli.output import Output
from holdfast.store import Store, open_store

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL = "sqlite:///holdfast.db"
VARIABLE = "HOLDFAST_DB"
_SQLITE = "sqlite:///"


class Session:
    """One command's surroundings.

    Args:
        url: what `--db` said, before or after the command.
        json: whether `--json` was given.
    """

    def __init__(self, url: str | None = None, *, json: bool = False) -> None:
        self.given_url = url or os.environ.get(VARIABLE) or None
        self.output = Output(json=json)

    @property
    def url(self) -> str:
        """The database that is meant when no application names its own."""
        return self.given_url or DEFAULT_URL

    @contextmanager
    def store(self) -> Generator[Store]:
        """Open a database that is there.

        Raises:
            StoreOpenError: there is none; nothing was created.
        """
        require_database(self.url)
        with open_store(self.url) as store:
            yield store

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run async code to its end."""
        return asyncio.run(call)


def database_path(url: str) -> Path | None:
    """Return the file an SQLite URL names; None for any other URL."""
    if not url.startswith(_SQLITE) or url in {_SQLITE, f"{_SQLITE}:memory:"}:
        return None
    return Path(url.removeprefix(_SQLITE))


def require_database(url: str) -> None:
    """Refuse to look at a database that isn't there, instead of creating it.

    Raises:
        StoreOpenError: it isn't there.
    """
    path = database_path(url)
    if path is None:
        if url in {"sqlite://", f"{_SQLITE}:memory:"}:
            message = "A database in memory ends with its process: there is nothing to look at."
            raise errors.StoreOpenError(message)
        return  # whatever else it is, opening says so
    if is_missing(path):
        message = (
            f"There is no database at {path}. Name it with --db or {VARIABLE}; `holdfast run`, "
            f"`submit` and `worker` create it."
        )
        raise errors.StoreOpenError(message, path=str(path))


def is_missing(path: Path) -> bool:
    """Say whether opening the file would create a database."""
    try:
        return (path.is_file() and path.stat().st_size == 0) or not path.exists()
    except (OSError, ValueError):
        return False  # opening says what is wrong with it


def command(
    name: str, **settings: Any
) -> Callable[[Callable[Concatenate[Session, P], int | None]], click.Command]:
    """Make a command of a function: with `--db` and `--json`, and a `Session` first.

    What the function returns is the exit code; None is 0.
    """

    def decorate(function: Callable[Concatenate[Session, P], int | None]) -> click.Command:
        @functools.wraps(function)
        @click.pass_context
        def call(context: click.Context, /, *args: P.args, **kwargs: P.kwargs) -> int:
            outer: Session | None = context.obj
            url = kwargs.pop("database_url", None) or (outer and outer.given_url)
            as_json = kwargs.pop("as_json", False) or (outer is not None and outer.output.json)
            session = Session(url, json=bool(as_json))  # type: ignore[arg-type]
            return function(session, *args, **kwargs) or 0

        call = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(call)
        call = click.option(
            "--db", "database_url", metavar="URL", help=f"The database ({VARIABLE})."
        )(call)
        return click.command(name, **settings)(call)

    return decorate

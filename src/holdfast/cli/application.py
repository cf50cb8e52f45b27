"""Loads the application a command names: `module:runner`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from holdfast import errors
from holdfast.cli.session import Session
from holdfast.runner import TaskRunner


@contextmanager
def application(session: Session, named: str) -> Generator[TaskRunner]:
    """Load a runner, on the database that `--db` names if it was given, and close it afterwards.

    Raises:
        UsageError: there is no such module or runner, or the module raised.
    """
    with _own_stdout(session):
        runner = load_runner(named)
        if session.given_url is not None:
            runner.use(session.given_url)
        try:
            yield runner
        finally:
            runner.close()


@contextmanager
def _own_stdout(session: Session) -> Generator[None]:
    """With `--json`, keep what the application prints out of the answer: it goes to stderr."""
    if not session.output.json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def load_runner(named: str) -> TaskRunner:
    """Import `module:runner`; the current directory is searched first.

    Raises:
        UsageError: there is no such module or runner, or the module raised.
    """
    module_name, _, path = named.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        message = f"{named!r} names no application. APP is module:runner, such as app:runner."
        raise errors.UsageError(message)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: object = _import(module_name)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            message = f"{module_name} has no {name!r}; APP {named!r} must name a TaskRunner in it."
            raise errors.UsageError(message) from None
    if not isinstance(found, TaskRunner):
        message = f"{named} is no TaskRunner but of type {type(found).__name__}."
        raise errors.UsageError(message)
    return found


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            message = f"There is no module {error.name!r} in {Path.cwd()} or on the Python path."
            raise errors.UsageError(message) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> errors.UsageError:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and os.sep + "importlib" + os.sep not in frame.filename
    ]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if len(frames) > 1 else ""
    message = f"Importing {name} raised {type(error).__name__}: {error}{where}"
    return errors.UsageError(message)

"""The store: where everything is kept, and the only place that knows SQL."""

from __future__ import annotations

import os

from holdfast import errors
from holdfast.clock import Clock, SystemClock
from holdfast.store.engine import Engine
from holdfast.store.keyfile import key_of, new_key
from holdfast.store.store import DEADLINE, Pending, Store

__all__ = ["DEADLINE", "Pending", "Store", "open_engine", "open_store"]

_SQLITE = "sqlite:///"


def open_store(
    url: str | Store | None, *, clock: Clock | None = None, deadline: float = DEADLINE
) -> Store:
    """Open a database, creating it when it isn't there.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user@host/database`,
            or None for a private database in memory that ends with the process. An open store is
            returned as it is.
        clock: what is asked for time.
        deadline: seconds that any call to the database may take.

    Raises:
        UrlError: the URL names no engine we have.
        StoreOpenError: refused; the file is as it was.
    """
    if isinstance(url, Store):
        return url
    clock = clock or SystemClock()
    engine, key = open_engine(url, clock, deadline)
    return Store(engine, clock, deadline, secret_key=key)


def open_engine(url: str | None, clock: Clock, deadline: float) -> tuple[Engine, bytes]:
    """Open the engine under a store; returns it with the key that secrets are digested with.

    Raises:
        UrlError, StoreOpenError: see `open_store`.
    """
    if url is not None and url.startswith(("postgresql:", "postgres:")):
        return _open_postgres(url, clock, deadline)
    from holdfast.store.sqlite import SqliteEngine

    path = _path_of(url)
    engine = SqliteEngine(path, clock, deadline)
    try:
        return engine, new_key() if path is None else key_of(os.path.realpath(path))
    except BaseException:
        engine.close()
        raise


def _open_postgres(url: str, clock: Clock, deadline: float) -> tuple[Engine, bytes]:
    try:
        from holdfast.store.postgres import PostgresEngine
        from holdfast.store.postgres_url import parse_url
    except ImportError as error:
        message = (
            f"PostgreSQL needs its driver, which can't be imported ({error}). Nothing was opened. "
            f"Install it: pip install 'holdfast[postgres]'"
        )
        raise errors.StoreOpenError(message) from error
    engine = PostgresEngine(parse_url(url), clock, deadline)
    return engine, engine.secret_key


def _path_of(url: str | None) -> str | None:
    if url is None or url in {"sqlite://", "sqlite:///:memory:"}:
        return None
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        return url.removeprefix(_SQLITE)
    scheme = url.partition(":")[0]
    message = (
        f"{scheme!r} names no database Holdfast knows. Use sqlite:///file.db (relative), "
        f"sqlite:////path/file.db (absolute), postgresql://user@host/database, or None for memory."
    )
    raise errors.UrlError(message)

"""What a PostgreSQL URL says: the server for the driver, and a few settings of our own."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from holdfast import errors

SCHEMES = ("postgresql://", "postgres://")

_UNREADABLE = "The PostgreSQL URL can't be read. Use postgresql://user@host:5432/database."
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_SWITCH = {"on": True, "1": True, "off": False, "0": False}


class Place(NamedTuple):
    """Where a database is.

    Args:
        server: the URL as the driver reads it.
        schema: the schema that holds our tables.
        listen: a URL that leads to the server without a pooler, for notifications; None when they
            are switched off.
        prepare: whether statements are prepared; None to find out whether they can be.
        shown: the URL without its password, for people.
    """

    server: str
    schema: str
    listen: str | None
    prepare: bool | None
    shown: str


def parse_url(url: str) -> Place:
    """Read a URL.

    Raises:
        UrlError: a setting of ours has a value it can't have.
    """
    try:
        parts = urlsplit(url)
        settings = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise errors.UrlError(_UNREADABLE) from error
    if not url.startswith(SCHEMES):
        raise errors.UrlError(_UNREADABLE)
    ours = {key: value for key, value in settings if key in {"schema", "listen", "prepare"}}
    rest = urlencode([pair for pair in settings if pair[0] not in ours], quote_via=quote)
    server = _joined("postgresql", parts.netloc, parts.path, rest)
    schema = ours.get("schema", "holdfast")
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        message = (
            f"{schema!r} can't be the schema: use small letters, digits and underscores, at most "
            f"41, and no 'pg_' in front."
        )
        raise errors.UrlError(message)
    _check("The PostgreSQL URL", server)
    listen: str | None = ours.get("listen", server)
    if _SWITCH.get(listen) is False:
        listen = None
    elif listen != server:
        _check("What listen= in the PostgreSQL URL gives", listen)
    prepare = _switch("prepare", ours["prepare"]) if "prepare" in ours else None
    return Place(server, schema, listen, prepare, hide(url))


def _check(what: str, server: str) -> None:
    """Refuse what the driver can't read; its own words may show the password."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(server)
    except psycopg.Error as error:
        why = str(error).strip()
        why = why if why.startswith("invalid URI query parameter") else why.partition(":")[0]
        message = f"{what} can't be read ({why}). Use postgresql://user@host:5432/database."
        raise errors.UrlError(message) from None


def _switch(name: str, value: str) -> bool:
    if value not in _SWITCH:
        message = f"{name}={value!r} in the PostgreSQL URL is neither 'on' nor 'off'."
        raise errors.UrlError(message)
    return _SWITCH[value]


def hide(url: str) -> str:
    """Return a URL without passwords, and of the settings only the schema, for people.

    One of SQLite is as it was.
    """
    if not url.startswith(SCHEMES):
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    schema = [pair for pair in parse_qsl(parts.query) if pair[0] == "schema"]
    return _joined(
        parts.scheme, user.partition(":")[0] + at + host, parts.path, urlencode(schema[-1:])
    )


def _joined(scheme: str, place: str, path: str, settings: str) -> str:
    # The standard library leaves the slashes out where nothing stands between them and the path.
    return f"{scheme}://{place}{path}" + (f"?{settings}" if settings else "")

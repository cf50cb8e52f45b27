"""Where a crash scenario happens: a directory for what it does to the world, and a database."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import msgspec

DATABASE = "holdfast.db"
"""The SQLite file, in the directory."""

PLACE = "database"
"""The file that says which database it is, for whoever looks at what a violation left behind."""


class Site(msgspec.Struct, frozen=True):
    """A directory and a database, both of one scenario alone.

    Args:
        root: the directory, made when it isn't there.
        url: the database; made when it is first opened.
    """

    root: Path
    url: str

    @classmethod
    def at(cls, root: Path, db: str | None = None) -> Site:
        """Make the directory.

        Args:
            root: an empty directory, or none yet. No other campaign may use one of that name.
            db: URL of a PostgreSQL database, where the scenario gets a schema of its own; a file in
                the directory when None.
        """
        root.mkdir(parents=True, exist_ok=True)
        if db is None:
            return cls(root, f"sqlite:///{root / DATABASE}")
        joint = "&" if "?" in db else "?"
        schema = f"crash_{hashlib.sha256(bytes(root)).hexdigest()[:16]}"
        url = f"{db}{joint}schema={schema}"
        (root / PLACE).write_text(f"{url}\n", "utf-8")
        return cls(root, url)

    @property
    def is_remote(self) -> bool:
        """Whether the database is on a server."""
        return self.url.startswith("postgres")

    def clear(self) -> None:
        """Remove the directory and the database."""
        shutil.rmtree(self.root)
        if self.is_remote:
            _drop_schema(self.url)


def _drop_schema(url: str) -> None:
    import psycopg
    from psycopg import sql

    from holdfast.store.postgres_url import parse_url

    place = parse_url(url)
    with psycopg.connect(place.server, autocommit=True) as connection:
        name = sql.Identifier(place.schema)
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))

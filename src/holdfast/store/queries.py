"""Loads the named queries of a dialect.

A file holds queries of one noun, each under a header line `-- name: noun.verb` and a line that
says its purpose.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_HEADER = re.compile(r"^-- name: ([a-z_.]+)$", re.MULTILINE)


@cache
def load_queries(dialect: str) -> dict[str, str]:
    """Return every query of the dialect (`sqlite`, `postgres`) by name."""
    queries: dict[str, str] = {}
    folder = resources.files(__package__).joinpath("sql", dialect)
    for file in folder.iterdir():
        if not file.name.endswith(".sql"):
            continue
        parts = _HEADER.split(file.read_text("utf-8"))[1:]
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in queries:
                msg = f"two queries are named {name}"
                raise ValueError(msg)
            queries[name] = _without_comments(body)
    return queries


def _without_comments(body: str) -> str:
    lines = (line.split("--", 1)[0].rstrip() for line in body.splitlines())
    return "\n".join(line for line in lines if line)

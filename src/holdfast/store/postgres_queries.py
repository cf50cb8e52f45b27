"""Makes the named queries of the PostgreSQL dialect ready to be sent."""

from __future__ import annotations

import re
from functools import cache

from holdfast.store.binary import KINDS
from holdfast.store.queries import load_queries
from holdfast.store.wire import Query

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)(::[a-z0-9]+(?:\[\])?)?")
_NUMBERED = re.compile(r"\$\d+::[a-z0-9]+")
_INSERT = re.compile(
    r"\s*(INSERT INTO \S+ \([^()]*\))\s*VALUES \(([^()]*)\)\s*((?:ON CONFLICT DO NOTHING)?)\s*"
)
_ROWS = re.compile(r"\A\s*(?:SELECT|WITH)\b|\bRETURNING\b")
_LOCKS = re.compile(r"[._]lock(?:_|$)")

TYPES = {
    "bytea": """
        anchor budget chain chain_head data digest evidence head identity input nothing options
        outcome owes pack payload policy request result result_hash state usage verdict verdicts
    """,
    "float8": """
        at checked_at claim_order cost created_at due_at expires_at finished lease next_at now
        pause pause_max per per_priority reserved_before seconds seen_at started_at value
        verified_at wake_at
    """,
    "int8": """
        after attempt batch before below changed generation input_tokens journal_seq keep keyed
        limit max_crashes micros must_run nano_limit nanos number output_tokens over paused pid
        position priority proven rate ref remaining renewals require_evidence root running seen seq
        shared slot token token_limit tokens until
    """,
}
"""The type of a parameter, by its name. Any other is text; a query that means another says so, as
in `:before::float8`. A parameter without a type would get one by where it stands first."""

_TYPE_OF = {name: kind for kind, names in TYPES.items() for name in names.split()}


@cache
def load_postgres_queries(schema: str) -> dict[str, Query]:
    """Return every query by name, its tables in that schema."""
    return {name: make_query(name, sql, schema) for name, sql in load_queries("postgres").items()}


def make_query(name: str, sql: str, schema: str = "holdfast") -> Query:
    """Number the parameters of a query, and give each its type."""
    wanted = bool(_ROWS.search(sql)) and not _LOCKS.search(name)
    numbered, kinds = _numbered(sql.replace("holdfast.", f"{schema}."))
    # `copy` may see a newer Holdfast's column of another kind; it is refused before it is sent.
    columns = tuple((name, KINDS.get(kind, KINDS["text"])) for name, kind in kinds.items())
    query = Query(name.encode(), numbered.encode(), columns, wanted)
    return query if wanted else query._replace(many=_many(query))


def _numbered(sql: str) -> tuple[str, dict[str, str]]:
    """Return the statement, and the types of its parameters in the order of their numbers."""
    kinds: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        parameter, cast = match.groups()
        cast = cast or "::" + _TYPE_OF.get(parameter, "text")
        kinds.setdefault(parameter, cast.removeprefix("::").removesuffix("[]"))
        return f"${[*kinds].index(parameter) + 1}{cast}"

    return _PARAMETER.sub(number, sql), kinds


def _many(one: Query) -> Query | None:
    """Return the statement that inserts many rows, given arrays, where one inserts a row."""
    insert = _INSERT.fullmatch(one.sql.decode())
    if insert is None:
        return None
    into, values, conflict = insert.groups()
    columns = [value.strip() for value in values.split(",")]
    if not all(_NUMBERED.fullmatch(column) for column in columns):
        return None
    arrays = ", ".join(f"{column}[]" for column in columns)
    many = f"{into} SELECT * FROM unnest({arrays}) {conflict}"  # noqa: S608  our own SQL
    return one._replace(name=one.name + b".many", sql=many.encode())

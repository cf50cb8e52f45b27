"""Rows in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from holdfast.verifiers.rows import SECONDS, judge, known_columns, unknown_table
from holdfast.verifiers.site import could_not_tell

if TYPE_CHECKING:
    import psycopg

    from holdfast.evidence import Evidence, Verdict

_MISSING = "checking a row in PostgreSQL needs psycopg: pip install 'holdfast[postgres]'"


def check_postgres_row(evidence: Evidence) -> Verdict:
    """Check a row in PostgreSQL, in a read-only transaction with a time limit.

    PostgreSQL itself compares, so a number, a timestamp or a UUID may be given as text.
    """
    try:
        import psycopg
    except ImportError:
        return could_not_tell(_MISSING)
    url: str = evidence.params["url"]
    milliseconds = int(SECONDS * 1000)
    try:
        with psycopg.connect(
            url, connect_timeout=int(SECONDS), tcp_user_timeout=milliseconds
        ) as connection:
            connection.read_only = True
            connection.execute(
                "SELECT set_config('statement_timeout', %s, true)", (str(milliseconds),)
            )
            return _check(connection, evidence.params)
    except psycopg.Error as error:
        return could_not_tell(f"{type(error).__name__}: {_without_password(str(error), url)}")


def _check(connection: psycopg.Connection[Any], params: dict[str, Any]) -> Verdict:
    from psycopg import sql

    where: dict[str, Any] = params["where"]
    values: dict[str, Any] = params["values"]
    schema, table = _table(connection, params["table"])
    listed = connection.execute(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s",
        (schema, table),
    )
    known_columns([*where, *values], [str(name) for (name,) in listed], params["table"])
    columns = list(dict.fromkeys([*where, *values]))
    # `=` where it can be: IS NOT DISTINCT FROM would never use an index.
    matches = [
        sql.SQL("{} IS NULL" if value is None else "{} = %s").format(sql.Identifier(column))
        for column, value in where.items()
    ]
    statement = sql.SQL("SELECT {} FROM {} WHERE {} LIMIT 2").format(
        sql.SQL(", ").join(
            [sql.SQL("{}::text").format(sql.Identifier(column)) for column in columns]
            + [
                sql.SQL("{} IS NOT DISTINCT FROM %s").format(sql.Identifier(column))
                for column in values
            ]
        ),
        sql.Identifier(schema, table),
        sql.SQL(" AND ").join(matches),
    )
    bound = [*values.values(), *(value for value in where.values() if value is not None)]
    found = connection.execute(statement, bound).fetchall()
    rows = [dict(zip(columns, row, strict=False)) for row in found]
    equal = dict(zip(values, found[0][len(columns) :], strict=True)) if found else {}
    return judge(rows, values, lambda column: equal[column] is True)


def _table(connection: psycopg.Connection[Any], name: str) -> tuple[str, str]:
    schema, _, table = name.rpartition(".")
    found = connection.execute(
        "SELECT table_schema, table_name FROM information_schema.tables "
        "WHERE (table_name = %(name)s AND table_schema = ANY (current_schemas(false))) "
        "   OR (table_name = %(table)s AND table_schema = %(schema)s) "
        "ORDER BY array_position(current_schemas(false), table_schema::name) NULLS LAST LIMIT 1",
        {"name": name, "table": table, "schema": schema},
    ).fetchone()
    if found is None:
        raise unknown_table(name)
    return str(found[0]), str(found[1])


def _without_password(text: str, url: str) -> str:
    parts = urlsplit(url)
    secrets = [parts.password, *(v for k, v in parse_qsl(parts.query) if "pass" in k)]
    for secret in filter(None, secrets):
        for spelling in (secret, unquote(secret)):
            text = text.replace(spelling, "***")
    return " ".join(text.split())

"""Arrays come to the server as they are, whatever is in them."""

from __future__ import annotations

import math

import psycopg
import pytest

from holdfast.store.binary import KINDS, UnfitValue, array

VALUES = {
    "text": ["", "plain", 'a "quoted" \\ {one}, NULL', "ü→☃", "one\ntwo", None],
    "bytea": [b"", b"\0\xff\\x", b"x" * 5000, None],
    "int8": [0, -1, 2**63 - 1, -(2**63), True, None],
    "float8": [0.0, -1.5, 3, 1764000000.123456, math.inf, None],
}


@pytest.fixture
def ask(postgres_server_url):
    with psycopg.connect(postgres_server_url, autocommit=True) as connection:

        def ask(kind, values):
            sent = connection.pgconn.exec_params(
                f"SELECT $1::{kind}[]".encode(), [array(values, KINDS[kind])], param_formats=[1]
            )
            literal = sent.get_value(0, 0).decode()
            return connection.execute(f"SELECT %s::{kind}[]".encode(), (literal,)).fetchone()[0]

        yield ask


@pytest.mark.parametrize("kind", VALUES)
def test_an_array_arrives_as_it_was_sent(ask, kind):
    values = VALUES[kind]
    assert ask(kind, values) == values
    assert ask(kind, values[:-1]) == values[:-1]  # without a null


@pytest.mark.parametrize("kind", VALUES)
def test_an_array_of_one_value_many_times_arrives_as_it_was_sent(ask, kind):
    for value in VALUES[kind]:
        assert ask(kind, [value] * 3) == [value] * 3


def test_equal_numbers_of_two_types_both_arrive(ask):
    assert ask("float8", [1, 1.0, True]) == [1.0, 1.0, 1.0]
    assert ask("int8", [1, True]) == [1, 1]


def test_half_a_surrogate_pair_becomes_a_question_mark(ask):
    assert ask("text", ["a\ud800", "b"]) == ["a?", "b"]


@pytest.mark.parametrize(
    ("kind", "values"), [("text", ["fine", "a\0b"]), ("int8", [1, 2**63]), ("text", ["\0", "\0"])]
)
def test_what_the_server_cannot_hold_is_refused_before_anything_is_sent(kind, values):
    with pytest.raises(UnfitValue, match="PostgreSQL"):
        array(values, KINDS[kind])

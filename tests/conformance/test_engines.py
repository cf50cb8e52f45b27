"""Which servers the suite runs on."""

from __future__ import annotations

import os

import psycopg
import pytest

VARIABLE = "HOLDFAST_TEST_PG_URL"


def test_the_suite_runs_on_a_server_that_is_not_the_tests_own_too():
    url = os.environ.get(VARIABLE)
    if not url:
        pytest.skip(
            f"NOT TESTED: PostgreSQL 14, 15 and 17, and PgBouncer. Set {VARIABLE} to the URL of "
            "one, whose user may create schemas, to run this suite there too."
        )
    with psycopg.connect(url) as connection:
        assert connection.info.server_version >= 140000

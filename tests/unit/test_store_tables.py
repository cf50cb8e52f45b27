"""What moves to another database: decided for every table there is."""

from __future__ import annotations

import re

import pytest

from holdfast.store.migrations import load_migrations
from holdfast.store.tables import COPIED, NOT_COPIED

CREATED = re.compile(r"CREATE TABLE (?:holdfast\.)?(\w+)")


@pytest.mark.parametrize(("dialect", "without"), [("sqlite", {"meta"}), ("postgres", set())])
def test_every_table_is_copied_or_named_with_the_reason_why_not(dialect, without):
    tables = {name for each in load_migrations(dialect) for name in CREATED.findall(each.sql)}
    assert tables == {*COPIED, *NOT_COPIED} - without
    assert not {*COPIED} & {*NOT_COPIED}

"""The journal: altered entries are noticed, pruned ones are not missed silently."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from holdfast import LeaseManager, ToolLedger, errors
from holdfast.store import open_store
from holdfast.store.keyfile import key_of


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/h.db"


async def act(n: int) -> int:
    return n


def attempt(url):
    async def main():
        async with LeaseManager(url) as leases, leases.hold("job") as journal:
            return [await ToolLedger(journal).execute_or_replay(act, n) for n in range(3)]

    return asyncio.run(main())


def alter(tmp_path, statement):
    database = sqlite3.connect(tmp_path / "h.db")
    database.execute(statement)
    database.commit()
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal SET outcome = x'0005' WHERE seq = 2",
        "UPDATE journal SET name = 'other' WHERE seq = 1",
        "DELETE FROM journal WHERE seq = 6",
        "DELETE FROM journal WHERE seq = 3",
    ],
)
def test_an_altered_journal_is_not_resumed_from(url, tmp_path, statement):
    attempt(url)
    alter(tmp_path, statement)
    with pytest.raises(errors.ChainBrokenError):
        attempt(url)


def test_after_pruning_a_handler_must_restore_first(url, tmp_path):
    attempt(url)
    alter(tmp_path, "UPDATE work_items SET pruned_seq = 2")
    with pytest.raises(errors.RestoreOrderError):
        attempt(url)


def test_the_key_beside_a_database_is_made_once_and_checked(tmp_path):
    database = str(tmp_path / "h.db")
    assert key_of(database) == key_of(database)
    (tmp_path / "h.db-key").write_bytes(b"short")
    with pytest.raises(errors.StoreOpenError, match="32 bytes"):
        open_store(f"sqlite:///{database}")
    assert (tmp_path / "h.db-key").read_bytes() == b"short"
    assert sorted(path.name for path in tmp_path.iterdir() if "key" in path.name) == ["h.db-key"]

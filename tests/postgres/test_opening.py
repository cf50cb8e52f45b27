"""Opening a PostgreSQL database: what is created, what is refused, what a URL may say."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from holdfast import errors
from holdfast.store import open_store, verbs
from holdfast.store.migrations import READER_VERSION
from holdfast.store.postgres_url import parse_url


def _schema(url):
    server, _, schema = url.partition("?schema=")
    return server, schema


def _execute(url, statement):
    server, schema = _schema(url)
    with psycopg.connect(server) as connection:
        cursor = connection.execute(statement.format(schema))
        return cursor.fetchall() if cursor.description else []


def test_many_programs_that_create_the_same_database_at_once_all_succeed(postgres_url):
    def open_and_ask(_):
        with open_store(f"{postgres_url}&listen=off") as store:
            return store.read(verbs.list_tasks(None, 1)), store.engine.secret_key

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(open_and_ask, range(6)))
    assert all(tasks == [] for tasks, _ in answers)
    assert len({key for _, key in answers}) == 1
    assert len(answers[0][1]) == 32


def test_a_schema_of_another_program_is_refused_and_not_touched(postgres_url):
    _execute(postgres_url, "CREATE SCHEMA {0}; CREATE TABLE {0}.theirs (id int)")
    with pytest.raises(errors.NotHoldfastError, match="another program"):
        open_store(postgres_url)
    _, schema = _schema(postgres_url)
    tables = _execute(
        postgres_url,
        f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace",  # noqa: S608
    )
    assert tables == [("theirs",)]


def test_a_database_that_needs_a_newer_holdfast_is_refused(postgres_url):
    open_store(postgres_url).close()
    newer = READER_VERSION + 1
    _execute(postgres_url, f"UPDATE {{}}.meta SET value = '{newer}' WHERE name = 'reader_version'")  # noqa: S608
    with pytest.raises(errors.StoreTooNewError) as refusal:
        open_store(postgres_url)
    assert refusal.value.needs == newer


def test_a_database_with_a_migration_of_a_newer_holdfast_that_older_ones_can_read_opens(
    postgres_url,
):
    open_store(postgres_url).close()
    _execute(postgres_url, "INSERT INTO {}.migrations VALUES (999, 'later', 0)")
    open_store(postgres_url).close()


def test_a_server_that_is_not_there_is_refused_without_telling_the_password():
    with pytest.raises(errors.StoreOpenError) as refusal:
        open_store("postgresql://me:hunter2@127.0.0.1:1/db", deadline=2)
    assert "hunter2" not in str(refusal.value)
    assert "me@127.0.0.1:1/db" in str(refusal.value)


def test_a_url_says_schema_notifications_and_preparing():
    place = parse_url("postgres://me:x@h:5/db?schema=work&listen=off&prepare=off&sslmode=require")
    assert place.server == "postgresql://me:x@h:5/db?sslmode=require"
    assert (place.schema, place.listen, place.prepare) == ("work", None, False)
    plain = parse_url("postgresql://h/db")
    assert (plain.schema, plain.listen, plain.prepare) == ("holdfast", plain.server, None)
    direct = parse_url("postgresql://pooler/db?listen=postgresql%3A%2F%2Fh%2Fdb")
    assert direct.listen == "postgresql://h/db"


@pytest.mark.parametrize(
    "url", ["postgresql:///db?host=/run/here&user=me", "postgresql:///?service=agents"]
)
def test_a_url_need_not_name_a_host(url):
    place = parse_url(f"{url}&schema=work")
    assert conninfo_to_dict(place.server) == conninfo_to_dict(url)
    assert place.shown == f"{url.partition('?')[0]}?schema=work"


@pytest.mark.parametrize(
    "setting",
    ["schema=x-y", "schema=pg_x", "schema=", "prepare=maybe", "bogus=1", "listen=nowhere"],
)
def test_a_setting_that_can_not_be_is_refused(setting):
    with pytest.raises(errors.UrlError):
        open_store(f"postgresql://h/db?{setting}")


@pytest.mark.parametrize("url", ["postgresql:h/db", "postgresql://me:hunter2%zz@h/db"])
def test_a_url_that_can_not_be_read_is_refused_without_telling_the_password(url):
    with pytest.raises(errors.UrlError, match="can't be read") as refusal:
        open_store(url)
    assert "hunter2" not in str(refusal.value)


def test_without_the_driver_opening_says_what_to_install():
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from holdfast import errors\n"
        "from holdfast.store import open_store\n"
        "try:\n    open_store('postgresql://h/db')\n"
        "except errors.StoreOpenError as error:\n    print(error)\n"
    )
    said = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert "pip install 'holdfast[postgres]'" in said


def test_the_driver_is_not_imported_for_sqlite():
    program = "import sys, holdfast; holdfast.open_store(None); print('psycopg' in sys.modules)"
    said = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert said.strip() == "False"


def test_text_that_postgresql_can_not_hold_is_refused_alone(postgres_url):
    from holdfast.models import MAIN
    from holdfast.store.payload import encode_payload
    from holdfast.store.verbs import NewItem, NewTask

    empty = encode_payload({})
    item = NewItem(MAIN, "work", empty, "default", 0, b"", 3)
    with open_store(f"{postgres_url}&listen=off") as store:
        ticket = store.commit(
            verbs.create_task(NewTask("01b", "fit", empty, (item,)), 1.0)
        ).behind()
        with pytest.raises(errors.InputError, match="zero character"):
            store.commit(verbs.create_task(NewTask("01a", "na\0me", empty, (item,)), 1.0)).wait()
        store.commit(verbs.cancel_task("01b", "be\0cause", 1.0)).wait()
        assert ticket.outcome().created
        assert store.read(verbs.get_item("01b", MAIN)).error == "be␀cause"
        with pytest.raises(errors.InputError, match="Nothing was read"):
            store.read(verbs.get_task("01\0b"))


def test_a_server_that_answers_before_it_is_durable_is_told_to_wait(postgres_url):
    server, _ = _schema(postgres_url)
    with psycopg.connect(server, autocommit=True) as connection:
        name = connection.info.user
        connection.execute(f"ALTER ROLE {name} SET synchronous_commit = off")
        try:
            with open_store(f"{postgres_url}&listen=off") as store:
                settings = store.commit(verbs.read_settings()).wait()
        finally:
            connection.execute(f"ALTER ROLE {name} RESET synchronous_commit")
    assert settings == ("wal", "full")

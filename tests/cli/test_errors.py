"""Errors: one line, an exit code, and a traceback only for those who ask for it."""

import pytest

from holdfast import errors
from holdfast.cli.failures import exit_code_of, report
from holdfast.cli.plain import clean, plain


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.UrlError("x"), 2),
        (errors.TaskNotFoundError("x"), 3),
        (errors.CheckpointNotFoundError("x"), 3),
        (errors.StoreOpenError("x"), 4),
        (errors.StoreCorruptError("x"), 4),
        (errors.TaskFailedError("x"), 5),
        (errors.TaskBlockedError("x"), 6),
        (errors.TaskCanceledError("x"), 7),
        (errors.EvidenceRejectedError("x"), 1),
        (RuntimeError("x"), 1),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error, code, capsys):
    assert exit_code_of(error) == code
    assert report(error, as_json=False) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_error_of_several_lines_is_shown_on_one(capsys):
    report(errors.EvidenceRejectedError("it doesn't hold:\n  a\n  b"), as_json=False)
    assert capsys.readouterr().err == "holdfast: it doesn't hold:; a; b\n"


def test_unknown_words_are_errors_of_usage(cli):
    for words in (["frobnicate"], ["tasks", "--frobnicate"], ["show"], ["show", "a", "b"]):
        plain_answer = cli(*words)
        assert plain_answer.code == 2
        assert len(plain_answer.err.splitlines()) == 1
        assert cli(*words, "--json").error["exit_code"] == 2


def test_json_before_the_command_counts_too(cli):
    cli("submit", "app:runner", "waiting")
    assert cli("--json", "tasks").document[0]["name"] == "waiting"
    assert cli("--json", "show", "missing").error["type"] == "TaskNotFoundError"


@pytest.mark.usefixtures("place")
def test_a_traceback_is_shown_to_those_who_ask_for_it(monkeypatch, capsys):
    from holdfast.cli import main

    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    assert main(["tasks"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_what_a_terminal_would_obey_is_not_printed():
    assert clean("\x1b[2J\x07a\u202eb\n") == "\\x1b[2J\\x07a\\u202eb\\n"
    assert clean("a\nb", lines=True) == "a\nb"


def test_credentials_are_not_printed():
    assert "hunter22" not in clean("password=hunter22")


def test_any_value_can_be_printed():
    import datetime as dt
    import decimal

    value = {
        1: {2, 3}, "f": float("nan"), "d": dt.date(2026, 1, 2), "m": decimal.Decimal("1.50"),
        "b": b"\xff", ("t",): None, "i": 1 << 20_000, "o": object(),
    }  # fmt: skip
    shown = plain(value)
    assert shown["f"] == "nan"
    assert shown["d"] == "2026-01-02"
    assert shown["m"] == "1.50"
    assert shown["b"] == "/w=="
    deep = []
    for _ in range(500):
        deep = [deep]
    plain(deep)

"""The benchmark runs and reports; what it finds depends on the machine, so no figure is checked."""

from __future__ import annotations

import msgspec

import holdfast.bench.claims
from holdfast.bench.__main__ import main
from holdfast.bench.figures import percentile


def _report(capsys, directory, *arguments):
    given = ["--quick", "--rounds", "1", "--json", "--dir", str(directory), *arguments]
    assert main(given) == 0
    assert not list(directory.iterdir())
    (found,) = msgspec.json.decode(capsys.readouterr().out)
    return found


def test_a_quick_run_reports_every_figure_it_was_asked_for_and_leaves_nothing(tmp_path, capsys):
    rows = ("steps", "tasks", "storage")
    found = _report(
        capsys, tmp_path, "--on", "sqlite", *(x for row in rows for x in ("--only", row))
    )

    assert found["engine"] == "sqlite"
    assert {figure["row"] for figure in found["figures"]} == set(rows)
    assert all(figure["median"] > 0 for figure in found["figures"])


def test_a_restart_is_timed_in_a_process_of_its_own(tmp_path, capsys):
    figures = _report(capsys, tmp_path, "--on", "sqlite", "--only", "history")["figures"]
    assert [figure["unit"] for figure in figures] == ["s", "MB", "s", "MB"]


def test_claims_are_compared_with_those_among_few(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(holdfast.bench.claims, "MANY", 10_000)
    figures = _report(capsys, tmp_path, "--on", "sqlite", "--only", "claims")["figures"]
    assert [figure["aim"] for figure in figures[-3:]] == ["≤ 3 x"] * 3


def test_a_server_is_measured_beside_its_own_floors_and_nothing_is_left_there(
    tmp_path, capsys, postgres_server_url
):
    import psycopg

    given = ("--on", "postgresql", "--db", postgres_server_url, "--only", "once")
    (figure,) = _report(capsys, tmp_path, *given)["figures"]
    assert figure["ratio"] > 0
    with psycopg.connect(postgres_server_url) as connection:
        left = "SELECT datname FROM pg_database WHERE datname LIKE 'holdfast_bench_%'"
        assert connection.execute(left).fetchall() == []


def test_the_table_names_aims_and_peers(tmp_path, capsys):
    main(["--quick", "--rounds", "1", "--dir", str(tmp_path), "--only", "tasks", "--on", "sqlite"])

    assert "100 tasks x 20 durable steps" in (table := capsys.readouterr().out)
    assert "15,000" in table
    assert "Restate" in table


def test_a_percentile_is_one_of_the_values():
    assert percentile([5.0, 1.0, 3.0], 0.5) == 3.0
    assert percentile(list(range(1, 101)), 0.99) == 99

"""The benchmark runs and reports; what it finds depends on the machine, so no figure is checked."""

from __future__ import annotations

import msgspec

from holdfast.bench.__main__ import main
from holdfast.bench.figures import percentile


def test_a_quick_run_reports_every_figure_it_was_asked_for_and_leaves_nothing(tmp_path, capsys):
    assert main(["--quick", "--rounds", "1", "--json", "--dir", str(tmp_path),
                 "--only", "steps", "--only", "tasks", "--only", "storage"]) == 0  # fmt: skip

    report = msgspec.json.decode(capsys.readouterr().out)
    assert {figure["row"] for figure in report["figures"]} == {"steps", "tasks", "storage"}
    assert all(figure["median"] > 0 for figure in report["figures"])
    assert not list(tmp_path.iterdir())


def test_a_restart_is_timed_in_a_process_of_its_own(tmp_path, capsys):
    assert main(["--quick", "--rounds", "1", "--json", "--dir", str(tmp_path),
                 "--only", "history"]) == 0  # fmt: skip

    figures = msgspec.json.decode(capsys.readouterr().out)["figures"]
    assert [figure["unit"] for figure in figures] == ["s", "MB", "s", "MB"]


def test_the_table_names_aims_and_peers(tmp_path, capsys):
    main(["--quick", "--rounds", "1", "--dir", str(tmp_path), "--only", "tasks"])

    assert "100 tasks x 20 durable steps" in (table := capsys.readouterr().out)
    assert "15,000" in table
    assert "Restate" in table


def test_a_percentile_is_one_of_the_values():
    assert percentile([5.0, 1.0, 3.0], 0.5) == 3.0
    assert percentile(list(range(1, 101)), 0.99) == 99

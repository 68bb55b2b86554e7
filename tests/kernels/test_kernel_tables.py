"""The tables of docs/kernels.md are those of the committed run and of the ops as they are."""

from __future__ import annotations

import json

from click.testing import CliRunner

from benchmarks import kernel_tables
from benchmarks.kernel_tables import PAGE, RESULTS, command, cpu_table, floors_table, tables


def test_the_page_has_the_figures_of_the_committed_run() -> None:
    done = CliRunner().invoke(command, ["--check"])
    assert done.exit_code == 0, done.output


def test_another_figure_changes_the_page(tmp_path) -> None:
    result = json.loads((RESULTS / "kernels-cpu.json").read_text())
    result["rows"][0]["median_ms"] = 123.4
    (tmp_path / "kernels-cpu.json").write_text(json.dumps(result))
    page = tables(PAGE.read_text(), tmp_path)
    assert page != PAGE.read_text()
    assert "| 123 (" in page
    assert tables(page) == PAGE.read_text()


def test_a_case_without_a_figure_says_why() -> None:
    result = json.loads((RESULTS / "kernels-cpu.json").read_text())
    left_out = {"op": "item_rows_backward", "shape": "N=1", "way": "ours", "problem": "left out: the time is over"}
    assert cpu_table({**result, "rows": [left_out]})[-1] == "| item_rows_backward | N=1 | left out: the time is over | | | | |"


def test_a_run_on_a_gpu_fills_the_last_column() -> None:
    row = {"op": "gated_layers", "shape": "B=1024 L=1", "way": "ours", "median_ms": 0.0042}
    (line,) = [line for line in floors_table({"rows": [row]}) if line.startswith("| gated_layers | B=1024 L=1 |")]
    assert line.endswith("| 4.20 |")
    assert not [line for line in floors_table(None)[2:] if not line.endswith("| not measured |")]


def test_a_page_without_the_marks_is_named(tmp_path, monkeypatch) -> None:
    page = tmp_path / "kernels.md"
    page.write_text("no marks\n")
    monkeypatch.setattr(kernel_tables, "PAGE", page)
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 1
    assert "kernels.md: block 'kernels-cpu' has no place on the page" in done.output
    assert page.read_text() == "no marks\n"

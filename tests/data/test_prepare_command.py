"""`llmgr prepare` on the command line: naming the input, what it prints, and what it says when something is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from input_files import write_shop

from llmgr_core.artefacts import open_artefact
from llmgr_core.commands.prepare import command
from llmgr_core.data import Dataset
from llmgr_core.errors import InputError


def run_command(*arguments: str) -> Any:
    return CliRunner().invoke(command, arguments)


def test_the_command_ends_with_the_fit_report(tmp_path: Path) -> None:
    sources = write_shop(tmp_path)
    result = run_command("--run", str(tmp_path / "run"), "--data", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "Does LLMGR suit this data: " in result.stdout
    assert "include_seen = False" in result.stdout
    by_files = run_command("--run", str(tmp_path / "run"), "--items", str(sources.items), "--sessions", str(sources.sessions))
    assert "up to date" in by_files.stderr
    assert by_files.stdout == result.stdout
    report = Dataset.open(open_artefact(tmp_path / "run" / "dataset", "dataset")).fit_report
    assert {"suits", "findings", "settings", "figures"} <= report.keys()
    assert open_artefact(tmp_path / "run" / "dataset", "dataset").manifest.details["fit_report"] == report


def test_the_data_source_may_stand_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path / "shop")
    monkeypatch.setenv("LLMGR_DATA", str(tmp_path))
    result = run_command("--run", str(tmp_path / "run"), "--set", "data.source=shop")
    assert result.exit_code == 0, result.output
    assert open_artefact(tmp_path / "run" / "dataset", "dataset").manifest.details["num_sessions"] == 80


def test_texts_are_shown_before_and_after_cleaning_without_an_artefact(tmp_path: Path) -> None:
    sources = write_shop(tmp_path)
    result = run_command("--run", str(tmp_path / "run"), "--items", str(sources.items), "--show-text", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("before:") == result.stdout.count("after:") == 3
    assert "before: <b>Fine</b> lamp number 0" in result.stdout
    assert "Fine lamp number 0" in result.stdout.split("after:")[1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no input is named"),
        (["--items", "x.csv"], "no session file"),
        (["--sessions", "nowhere.csv"], "no sessions file nowhere.csv"),
        (["--data", "d", "--items", "x.csv"], "--data names all files at once"),
        (["--data", "no-such-data-set"], "no data set 'no-such-data-set'"),
        (["--show-text", "2", "--sessions", __file__], "is of no format"),
    ],
)
def test_input_that_is_not_there_is_an_error_with_a_way_out(arguments: list[str], message: str) -> None:
    result = run_command(*arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "hint:" in str(result.exception)

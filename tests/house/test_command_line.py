"""The command: errors a person can act on, exit codes, progress as lines where there is no terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmgr_core.command_line.main import llmgr as llmgr_group
from llmgr_core.progress import Reporter


def llmgr(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from llmgr_core.command_line.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory, env=None)


def test_help_lists_the_steps_in_order(tmp_path: Path) -> None:
    done = llmgr("--help", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    places = [done.stdout.index(f"\n  {name} ") for name in ("data", "model", "prepare", "pretrain", "tune", "embed", "distil")]
    assert places == sorted(places)


def test_an_unknown_command_and_an_unknown_option_are_named(tmp_path: Path) -> None:
    done = llmgr("prepair", directory=tmp_path)
    assert done.returncode == 2
    assert "prepair" in done.stderr
    done = llmgr("data", "--form", "x", directory=tmp_path)
    assert done.returncode == 2
    assert "--form" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_a_person_can_act_on_is_a_message_with_a_hint(tmp_path: Path) -> None:
    done = llmgr("data", "movielens", directory=tmp_path)
    assert done.returncode == 2
    assert "llmgr: no data set 'movielens'" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_setting_is_named_before_any_work(tmp_path: Path) -> None:
    done = llmgr("prepare", "--set", "text.max_token=64", directory=tmp_path)
    assert done.returncode == 2
    assert "unknown key text.max_token" in done.stderr
    assert "did you mean text.max_tokens?" in done.stderr


@pytest.mark.parametrize("step", ["pretrain", "tune", "distil", "evaluate", "export"])
def test_a_step_without_its_input_says_which_step_comes_first(step: str, tmp_path: Path) -> None:
    done = llmgr(step, "--run", "nowhere", directory=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "nowhere" in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.parametrize("name", sorted(point.name for point in entry_points(group="llmgr.commands")))
def test_every_command_answers_help(name: str) -> None:
    result = CliRunner().invoke(llmgr_group, [name, "--help"])
    assert result.exit_code == 0
    assert f"Usage: llmgr {name}" in result.output


def test_progress_is_json_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    reporter.event("epoch", number=3, loss=5.25, place=Path("x"))
    assert list(reporter.track(range(3), "count")) == [0, 1, 2]
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines[0] == {**lines[0], "event": "epoch", "number": 3, "loss": 5.25, "place": "x"}
    assert lines[-1]["done"] == lines[-1]["total"] == 3
    assert out == ""

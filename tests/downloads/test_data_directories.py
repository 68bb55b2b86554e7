"""Data sets taken from a directory are validated; names find their directory."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmgr_core.commands.data import command as data_command
from llmgr_core.commands.model import command as model_command
from llmgr_core.downloads import data_directory, home, model_directory
from llmgr_core.downloads.datasets import fetch_data
from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter

ITEM = {"item_id": "a", "title": "A", "description": None, "brand": None, "category": [["X"]]}
SESSION = {"session_id": "1", "items": ["a", "b"], "timestamps": [1, 2]}


def write_set(directory: Path, **files: list[Any]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        with gzip.open(directory / f"{name}.jsonl.gz", "wb") as stream:
            for row in rows:
                stream.write(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n")
    return directory


def test_a_directory_of_the_format_is_copied(tmp_path: Path, reporter: Reporter) -> None:
    source = write_set(tmp_path / "mine", items=[ITEM], sessions=[SESSION])
    directory = fetch_data("my-shop", reporter, directory=source)
    assert (directory / "items.jsonl.gz").read_bytes() == (source / "items.jsonl.gz").read_bytes()
    assert data_directory("my-shop") == directory


def test_click_data_without_items_and_with_a_given_test_file_is_copied(tmp_path: Path, reporter: Reporter) -> None:
    source = write_set(
        tmp_path / "d", train_sessions=[{"session_id": "0", "items": [1, 2]}], test=[{"items": [1], "target": 2}]
    )
    assert (fetch_data("diginetica", reporter, directory=source) / "test.jsonl.gz").is_file()


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"items": [ITEM]}, "holds no sessions.jsonl.gz"),
        ({"items": [ITEM], "sessions": []}, "sessions.jsonl.gz is empty"),
        ({"items": [ITEM, {"title": "x"}], "sessions": [SESSION]}, "items.jsonl.gz:2: no item_id"),
        ({"items": [{**ITEM, "brand": ["x"]}], "sessions": [SESSION]}, "items.jsonl.gz:1: brand is neither"),
        ({"sessions": [SESSION, {"session_id": "2"}]}, "sessions.jsonl.gz:2: items is not a list"),
        ({"sessions": [{**SESSION, "timestamps": [1]}]}, "timestamps has another length"),
        ({"sessions": [b"{broken\n"]}, "sessions.jsonl.gz:1: not valid JSON"),
        ({"sessions": [[1]]}, "not a JSON object"),
        ({"train_sessions": [SESSION], "test": [{"items": ["a"]}]}, "no target"),
    ],
)
def test_a_directory_that_is_not_of_the_format_is_refused(
    files: dict[str, list[Any]], complaint: str, tmp_path: Path, reporter: Reporter, own_home: Path
) -> None:
    with pytest.raises(InputError, match=complaint.replace(".", r"\.")):
        fetch_data("my-shop", reporter, directory=write_set(tmp_path / "mine", **files))
    assert not (own_home / "data" / "my-shop").exists()


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, reporter: Reporter) -> None:
    source = write_set(tmp_path / "mine", sessions=[SESSION] * 100)
    path = source / "sessions.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged"):
        fetch_data("my-shop", reporter, directory=source)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "/etc"])
def test_a_name_cannot_lead_out_of_the_cache(name: str, tmp_path: Path, reporter: Reporter) -> None:
    with pytest.raises(InputError, match="cannot be the name"):
        fetch_data(name, reporter, directory=tmp_path)


def test_unknown_and_unreachable_names_say_what_to_do(reporter: Reporter) -> None:
    with pytest.raises(InputError, match="movielens-100k"):
        fetch_data("movielens", reporter)
    with pytest.raises(InputError, match="--from DIR"):
        fetch_data("diginetica", reporter)


def test_data_of_LLMGR_DATA_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(home() / "data" / "set", sessions=[SESSION])
    assert data_directory("set") == home() / "data" / "set"
    write_set(tmp_path / "own" / "set", sessions=[SESSION])
    monkeypatch.setenv("LLMGR_DATA", str(tmp_path / "own"))
    assert data_directory("set") == tmp_path / "own" / "set"
    with pytest.raises(InputError, match="llmgr data other"):
        data_directory("other")


def test_model_names_find_their_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`llmgr model minilm`"):
        model_directory("minilm")
    (home() / "models" / "minilm").mkdir(parents=True)
    assert model_directory("minilm") == home() / "models" / "minilm"
    assert model_directory("meta-llama/Llama-2-7b-hf") == "meta-llama/Llama-2-7b-hf"
    (tmp_path / "config.json").write_text("{}")
    assert model_directory(str(tmp_path)) == tmp_path
    for wrong in ("/no/such/place", "./here", "a/b/c", "", tmp_path / "missing"):
        with pytest.raises(InputError, match="no model directory"):
            model_directory(wrong)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds no config\.json"):
        model_directory(tmp_path)


def test_the_commands_list_what_there_is(tmp_path: Path) -> None:
    listed = CliRunner().invoke(data_command, []).output
    assert "movielens-100k" in listed
    assert "not fetched" in listed
    assert "smollm2-135m" in CliRunner().invoke(model_command, []).output


def test_the_data_command_prints_the_directory(tmp_path: Path) -> None:
    source = write_set(tmp_path / "mine", sessions=[SESSION])
    result = CliRunner().invoke(data_command, ["my-shop", "--from", str(source)])
    assert result.exit_code == 0
    assert result.stdout.strip() == str(home() / "data" / "my-shop")

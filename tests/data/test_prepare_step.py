"""`llmgr prepare` as a whole: the data set it makes, resuming, and what it says."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from input_files import Silent, write_rows, write_shop
from killed_process import kill_when_named

from llmgr_core.artefacts import Artefact, open_artefact
from llmgr_core.data import Dataset, Item
from llmgr_core.data import text_pass as text_pass_module
from llmgr_core.data.prepare_dataset import prepare_dataset
from llmgr_core.data.sources import Sources
from llmgr_core.errors import ArtefactError, InputError, LlmgrError
from llmgr_core.sessions import Examples
from llmgr_core.settings import Settings, load_settings
from llmgr_core.text import TextCleaner


def prepare(sources: Sources, run: Path, *overrides: str) -> Artefact:
    return prepare_dataset(sources, load_settings(None, overrides), run / "dataset", Silent(as_json=True))


def prefixes(examples: Examples) -> list[tuple[list[int], int]]:
    return [(examples.prefix(place).tolist(), int(examples.targets[place])) for place in range(len(examples))]


def test_the_data_set_holds_what_was_read(tmp_path: Path) -> None:
    artefact = prepare(write_shop(tmp_path), tmp_path)
    dataset = Dataset.open(artefact)
    artefact.verify()
    assert dataset.num_items == 59
    assert dataset.item_ids == [f"i{number}" for number in range(59)]
    assert dataset.item_index(["i7", "i59", "", "i0"]).tolist() == [7, -1, -1, 0]
    assert dataset.item(7) == Item(
        "i7", "<b>Fine</b> lamp number 7", "A lamp for room 7.", "Brand 3", (("Home", "Lamps 1"), ("Gifts",))
    )
    assert dataset.titles[7] == "<b>Fine</b> lamp number 7"
    assert "Fine lamp number 7" in str(dataset.texts[7])
    assert dataset.texts[3] is None
    assert list(dataset.texts)[5:8] == dataset.texts[5:8] == [dataset.texts[5], dataset.texts[6], dataset.texts[7]]
    assert dataset.texts[-1] == dataset.texts[58]
    with pytest.raises(IndexError):
        dataset.texts[59]
    with pytest.raises(IndexError):
        dataset.item(59)
    assert dataset.brand_codes[3] == dataset.category_codes[3] == -1
    assert dataset.brand_codes[0] == dataset.brand_codes[4] != dataset.brand_codes[1]
    assert dataset.category_codes[0] == dataset.category_codes[6] != dataset.category_codes[1]
    assert dataset.brand_codes.dtype == dataset.category_codes.dtype == np.int32
    assert len(dataset.train) == len(dataset.validation) == len(dataset.test) == 80
    assert dataset.train_counts.sum() == len(dataset.train.items) == 80 * 6
    assert (dataset.train_counts == np.bincount(dataset.train.items, minlength=59)).all()
    assert dataset.digest == artefact.digest
    assert not dataset.heldout_items.any()
    assert len(dataset.heldout) == len(dataset.heldout_validation) == 0
    assert dataset.include_seen is False
    cleaner = TextCleaner.from_state(dataset.cleaner_state)
    assert [cleaner.clean(dataset.item(number)) for number in range(59)] == list(dataset.texts)


def test_texts_see_all_items_but_counts_see_training_clicks_alone(tmp_path: Path) -> None:
    rows = [{"items": ["a", "b", "c"]}] * 5 + [{"items": ["b", "a", "d"]}]
    sessions = write_rows(tmp_path / "sessions.jsonl", rows)
    dataset = Dataset.open(prepare(Sources(sessions), tmp_path, "data.min_item_clicks=1", "data.min_session_clicks=1"))
    assert dataset.item_ids == ["a", "b", "c", "d"]
    assert dataset.train_counts.tolist() == [5, 1, 0, 0]


def test_held_out_items_are_never_shown_in_training(tmp_path: Path) -> None:
    dataset = Dataset.open(prepare(write_shop(tmp_path), tmp_path, "data.heldout_share=0.2"))
    cold = np.flatnonzero(dataset.heldout_items)
    assert len(cold) == round(0.2 * 59)
    assert not np.isin(dataset.train.items, cold).any()
    assert (dataset.train_counts[cold] == 0).all()
    for examples in (dataset.heldout, dataset.heldout_validation):
        assert len(examples)
        assert np.isin(examples.targets, cold).all()
    assert not set(dataset.heldout.targets.tolist()) & set(dataset.heldout_validation.targets.tolist())
    for examples in (dataset.validation, dataset.test, dataset.heldout, dataset.heldout_validation):
        assert not any(set(prefix) & set(cold.tolist()) for prefix, _ in prefixes(examples))
    assert dataset.protocol["heldout_items"] == len(cold)


def test_a_time_split_evaluates_later_clicks_than_it_trains_on(tmp_path: Path) -> None:
    dataset = Dataset.open(prepare(write_shop(tmp_path), tmp_path, "data.split=time"))
    assert dataset.protocol["split"] == "time"
    assert len(dataset.train) == 64
    # the first click of a session has nothing to be predicted from
    assert len(dataset.validation) == len(dataset.test) == 8 * 7


def test_a_given_test_file_is_taken_as_it_is(tmp_path: Path) -> None:
    sources = write_shop(tmp_path)
    test = write_rows(tmp_path / "test.jsonl", [{"items": ["i1", "i2"], "target": "i59"}])
    dataset = Dataset.open(prepare(Sources(sources.sessions, sources.items, test), tmp_path))
    assert prefixes(dataset.test) == [([1, 2], 59)]
    # the target has no click, and is an item all the same
    assert dataset.num_items == 60
    assert dataset.protocol["split"] == "given"
    assert dataset.protocol["min_item_clicks"] == 1
    assert len(dataset.train) == 72
    with pytest.raises(InputError, match=r"data\.split is time"):
        prepare(Sources(sources.sessions, sources.items, test), tmp_path, "data.split=time")
    with pytest.raises(InputError, match="no test file"):
        prepare(sources, tmp_path, "data.split=given")


def test_all_items_can_be_kept(tmp_path: Path) -> None:
    dataset = Dataset.open(prepare(write_shop(tmp_path), tmp_path, "data.items=all"))
    assert dataset.num_items == 60
    assert dataset.train_counts[59] == 0
    assert dataset.texts[59] is not None


def test_sessions_that_the_filter_empties_are_an_error_that_names_the_settings(tmp_path: Path) -> None:
    sessions = write_rows(tmp_path / "sessions.jsonl", [{"items": ["a", "b"]}])
    with pytest.raises(InputError, match=r"(?s)no session is left.*lower data\.min_item_clicks"):
        prepare(Sources(sessions), tmp_path)


def test_the_result_does_not_depend_on_pieces_processes_or_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(write_shop(tmp_path / "a"), tmp_path / "one")
    again = prepare(write_shop(tmp_path / "b"), tmp_path / "two", "data.chunk_bytes=512")
    assert again.digest == first.digest
    monkeypatch.setattr(text_pass_module, "ITEMS_WORTH_PROCESSES", 1)
    monkeypatch.setattr("llmgr_core.data.item_files.ROWS_PER_GROUP", 20)
    spread = prepare(write_shop(tmp_path / "c"), tmp_path / "three", "data.workers=2")
    assert list(Dataset.open(spread).texts) == list(Dataset.open(first).texts)
    assert Dataset.open(spread).item(45) == Dataset.open(first).item(45)


def test_a_finished_step_is_not_repeated_unless_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = write_shop(tmp_path)
    first = prepare(sources, tmp_path)
    written = (tmp_path / "dataset" / "manifest.json").stat().st_mtime_ns
    assert prepare(sources, tmp_path).digest == first.digest
    assert (tmp_path / "dataset" / "manifest.json").stat().st_mtime_ns == written
    assert prepare(sources, tmp_path, "seed=2").digest != first.digest
    with (tmp_path / "sessions.jsonl").open("a") as stream:
        stream.write(json.dumps({"session_id": "new", "items": ["i1"] * 8, "timestamps": [1] * 8}) + "\n")
    assert Dataset.open(prepare(sources, tmp_path)).protocol["num_sessions"] == 81


def test_a_step_that_was_cut_off_goes_on_after_the_last_finished_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = write_shop(tmp_path)
    monkeypatch.setattr("llmgr_core.data.item_files.ROWS_PER_GROUP", 10)
    whole = prepare(sources, tmp_path / "whole")
    cleaned: list[int] = []
    clean_group = text_pass_module._clean_group

    def cut_off(catalogue: Path, number: int, parts: Path) -> int:
        if len(cleaned) == 3:
            raise KeyboardInterrupt
        cleaned.append(number)
        return clean_group(catalogue, number, parts)

    monkeypatch.setattr(text_pass_module, "_clean_group", cut_off)
    with pytest.raises(KeyboardInterrupt):
        prepare(sources, tmp_path / "cut")
    with pytest.raises(ArtefactError):
        open_artefact(tmp_path / "cut" / "dataset", "dataset")
    # what was read and cleaned before is not done again
    monkeypatch.setattr("llmgr_core.data.prepare_dataset.read_input", None)
    monkeypatch.setattr(text_pass_module, "_fit", None)
    cleaned.clear()
    assert prepare(sources, tmp_path / "cut").digest == whole.digest
    assert cleaned == [3, 4, 5]


def test_a_step_killed_outright_is_finished_by_the_next_run(tmp_path: Path) -> None:
    sources = write_shop(tmp_path, num_items=20_000, num_sessions=20)
    assert sources.items is not None
    arguments = ["prepare", "--run", str(tmp_path / "run"), "--items", str(sources.items), "--sessions", str(sources.sessions)]
    arguments += ["--set", "data.items=all", "--set", "data.min_item_clicks=1"]
    program = "from llmgr_core.command_line.main import main; main()"
    kill_when_named(program, arguments, "checkpoints/texts/000000.parquet", tmp_path / "hook")
    partial = tmp_path / "run" / "dataset.partial"
    assert [path.name for path in partial.glob("checkpoints/texts/*")] == ["000000.parquet"]
    assert not (tmp_path / "run" / "dataset").exists()
    overrides = ("data.items=all", "data.min_item_clicks=1")
    finished = prepare(sources, tmp_path / "run", *overrides)
    assert not partial.exists()
    assert finished.digest == prepare(sources, tmp_path / "other", *overrides).digest


def test_an_interrupted_reading_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = write_shop(tmp_path)
    monkeypatch.setattr("llmgr_core.data.raw_input.RawInputWriter.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(sources, tmp_path)
    monkeypatch.undo()
    assert len(Dataset.open(prepare(sources, tmp_path)).train) == 80


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = write_shop(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("llmgr_core.data.prepare_dataset.write_items", full)
    with pytest.raises(LlmgrError, match=r"(?s)the disk is full.*free some space"):
        prepare(sources, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("llmgr_core.data.prepare_dataset.read_input", None)
    assert len(Dataset.open(prepare(sources, tmp_path)).train) == 80


def test_importing_the_data_room_or_the_command_does_not_load_arrow() -> None:
    code = "import sys, llmgr_core.data, llmgr_core.commands.prepare; print('pyarrow' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_settings_of_this_section_are_checked() -> None:
    assert load_settings(None, ["data.fields.item_id=sku"]).data.fields == {"item_id": "sku"}
    assert Settings().data.min_item_clicks is None


ORPHANS = """
import json, multiprocessing, os, signal, sys, tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from llmgr_core.data.text_pass import _start_worker_process
from llmgr_core.settings.text import TextSettings
from llmgr_core.text import TextCleaner

if __name__ == "__main__":
    state = Path(sys.argv[1])
    state.write_text(json.dumps(TextCleaner(TextSettings()).fit([]).state()), encoding="utf-8")
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_worker_process, (state,))
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_that_clean_texts_end_with_a_command_that_was_killed(tmp_path):
    """They hold its standard output, which so ends when the last of them has."""
    program = tmp_path / "orphans.py"
    program.write_text(ORPHANS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program, tmp_path / "state"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 1

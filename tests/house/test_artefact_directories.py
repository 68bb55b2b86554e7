"""Artefacts: whole or not there, unmixed, and what was cut off goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llmgr_core.artefacts import Artefact, directory, draft_artefact, open_artefact
from llmgr_core.artefacts.directory import finished_artefact
from llmgr_core.errors import ArtefactError

SETTINGS = {"epochs": 3, "rate": 0.1}


def make(
    path: Path, kind: str = "dataset", inputs: tuple[Artefact, ...] = (), content: str = "content", **settings: Any
) -> Artefact:
    with draft_artefact(path, kind, list(inputs), settings or SETTINGS) as draft:
        (draft.path / "data").write_text(content)
        (draft.path / "more").mkdir(exist_ok=True)
        (draft.path / "more" / "data").write_text("x")
        draft.details["items"] = 3
        draft.metrics["ndcg"] = 0.5
    return open_artefact(path, kind)


def everything_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_finished_artefact_holds_its_files_and_nothing_of_the_work(tmp_path: Path) -> None:
    with draft_artefact(tmp_path / "a", "dataset", [], SETTINGS) as draft:
        (draft.checkpoints / "last").write_text("x")
        (draft.path / "data").write_text("x")
    assert everything_in(tmp_path) == ["a", "a/data", "a/manifest.json"]
    artefact = open_artefact(tmp_path / "a", "dataset", verify=True)
    assert list(artefact.manifest.files) == ["data"]
    assert artefact.manifest.settings == SETTINGS


def test_equal_steps_have_equal_digests_wherever_they_stand(tmp_path: Path) -> None:
    assert make(tmp_path / "a").digest == make(tmp_path / "b").digest
    assert make(tmp_path / "c", content="other").digest != make(tmp_path / "a").digest
    assert make(tmp_path / "d", epochs=4).digest != make(tmp_path / "a").digest


def test_a_step_asked_again_is_found_finished(tmp_path: Path) -> None:
    artefact = make(tmp_path / "a")
    assert finished_artefact(tmp_path / "a", "dataset", [], dict(reversed(SETTINGS.items()))) == artefact
    assert finished_artefact(tmp_path / "a", "dataset", [], {**SETTINGS, "epochs": 4}) is None
    assert finished_artefact(tmp_path / "b", "dataset", [], SETTINGS) is None
    with pytest.raises(ArtefactError, match="holds a dataset, not a backbone"):
        finished_artefact(tmp_path / "a", "backbone", [], SETTINGS)


def test_a_finished_step_that_lost_a_file_is_done_again(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "data").unlink()
    assert finished_artefact(tmp_path / "a", "dataset", [], SETTINGS) is None


@pytest.mark.parametrize("text", ["{broken", "[]", '{"format_version": 99}', '{"format_version": 1}'])
def test_an_unreadable_manifest_is_refused_by_readers_and_replaced_by_its_step(tmp_path: Path, text: str) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"manifest"):
        open_artefact(tmp_path / "a", "dataset")
    assert finished_artefact(tmp_path / "a", "dataset", [], SETTINGS) is None
    assert make(tmp_path / "a").file("data").read_text() == "content"


def test_what_safetensors_was_writing_when_it_was_killed_does_not_get_into_the_artefact(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), draft_artefact(tmp_path / "a", "dataset", [], SETTINGS) as draft:
        (draft.path / "more").mkdir()
        (draft.path / "more" / ".tmpAbCdEf").write_text("hal")
        raise KeyboardInterrupt
    assert list(make(tmp_path / "a").manifest.files) == ["data", "more/data"]


def test_another_format_version_is_named(tmp_path: Path) -> None:
    make(tmp_path / "a")
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 2}))
    with pytest.raises(ArtefactError, match=r"format version 2; this program reads version 1"):
        open_artefact(tmp_path / "a", "dataset")


def test_a_missing_artefact_and_one_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no dataset at"):
        open_artefact(tmp_path / "a", "dataset")
    (tmp_path / "a").mkdir()
    with pytest.raises(ArtefactError, match="has no manifest"):
        open_artefact(tmp_path / "a", "dataset")
    make(tmp_path / "a")
    with pytest.raises(ArtefactError, match="holds a dataset, not a backbone"):
        open_artefact(tmp_path / "a", "backbone")


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    make(tmp_path / "a").verify()
    (tmp_path / "a" / "data").write_text("c0ntent")
    open_artefact(tmp_path / "a", "dataset")
    with pytest.raises(ArtefactError, match=r"a/data was changed"):
        open_artefact(tmp_path / "a", "dataset", verify=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [("remove", "a/more/data is missing"), ("add", "a/new is not listed"), ("forge", "does not match the files")],
)
def test_other_changes_are_found_as_well(tmp_path: Path, change: str, complaint: str) -> None:
    make(tmp_path / "a")
    if change == "remove":
        (tmp_path / "a" / "more" / "data").unlink()
    elif change == "add":
        (tmp_path / "a" / "new").write_text("")
    else:
        manifest = tmp_path / "a" / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"identity": "', '"identity": "0'))
    with pytest.raises(ArtefactError, match=complaint):
        open_artefact(tmp_path / "a", "dataset", verify=True)


def test_artefacts_of_one_line_belong_together(tmp_path: Path) -> None:
    dataset = make(tmp_path / "dataset")
    backbone = make(tmp_path / "backbone", "backbone", (dataset,))
    tuned = make(tmp_path / "tuned", "tuned", (dataset, backbone))
    assert tuned.lineage() == {"dataset": dataset.digest, "backbone": backbone.digest, "tuned": tuned.digest}
    tuned.require_same_lineage(backbone)


def test_artefacts_of_two_lines_are_refused(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one"), make(tmp_path / "other", content="other")
    backbone = make(tmp_path / "backbone", "backbone", (other,))
    with pytest.raises(ArtefactError, match="do not belong together") as caught:
        make(tmp_path / "tuned", "tuned", (one, backbone))
    assert one.digest[:12] in str(caught.value)
    assert other.digest[:12] in str(caught.value)
    assert not (tmp_path / "tuned").exists()
    with pytest.raises(ArtefactError, match="do not belong together"):
        finished_artefact(tmp_path / "tuned", "tuned", [one, backbone], SETTINGS)


def cut_off(path: Path, **settings: Any) -> None:
    """A step that ends early, after its second epoch."""
    with suppress(KeyboardInterrupt), draft_artefact(path, "dataset", [], settings or SETTINGS) as draft:
        (draft.checkpoints / "epoch").write_text("2")
        raise KeyboardInterrupt


def test_a_step_that_was_cut_off_finds_its_checkpoints(tmp_path: Path) -> None:
    cut_off(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with draft_artefact(tmp_path / "a", "dataset", [], SETTINGS) as draft:
        assert draft.resumed
        assert (draft.checkpoints / "epoch").read_text() == "2"


def test_a_step_with_other_settings_starts_afresh(tmp_path: Path) -> None:
    cut_off(tmp_path / "a")
    with draft_artefact(tmp_path / "a", "dataset", [], {"epochs": 4}) as draft:
        assert not draft.resumed
        assert not list(draft.checkpoints.iterdir())


def test_a_failed_step_leaves_the_old_artefact_whole(tmp_path: Path) -> None:
    old = make(tmp_path / "a")
    cut_off(tmp_path / "a", epochs=4)
    assert open_artefact(tmp_path / "a", "dataset", verify=True) == old


WRITER = """
import os, sys
from pathlib import Path
from llmgr_core.artefacts import directory
root, moment = Path(sys.argv[1]), sys.argv[2]
die = lambda *a, **k: os._exit(9)
if moment == "hashing": directory.hash_files = die
if moment == "flushing": directory._flush = die
if moment == "clearing": directory.shutil.rmtree = die
if moment == "renaming": directory._replace = die
if moment == "between":
    real = Path.rename
    Path.rename = lambda self, target: die() if self.name.endswith(".partial") else real(self, target)
with directory.draft_artefact(root / "a", "dataset", [], {"epochs": 4}) as draft:
    (draft.checkpoints / "epoch").write_text("2")
    (draft.path / "data").write_text("new")
    if moment == "writing": die()
"""


@pytest.mark.parametrize("moment", ["writing", "hashing", "flushing", "renaming", "between"])
def test_a_process_killed_at_any_moment_leaves_the_old_artefact_whole(tmp_path: Path, moment: str) -> None:
    old = make(tmp_path / "a")
    done = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path), moment], check=False)
    assert done.returncode == 9
    assert open_artefact(tmp_path / "a", "dataset", verify=True).digest == old.digest
    with draft_artefact(tmp_path / "a", "dataset", [], {"epochs": 4}) as draft:
        assert draft.resumed == (moment in {"writing", "hashing", "flushing"})
        if draft.resumed:
            assert (draft.checkpoints / "epoch").read_text() == "2"
        (draft.path / "data").write_text("new")
    assert open_artefact(tmp_path / "a", "dataset", verify=True).file("data").read_text() == "new"


@pytest.mark.parametrize("moment", ["clearing", "renaming", "between"])
def test_a_step_killed_after_its_last_file_is_found_finished(tmp_path: Path, moment: str) -> None:
    make(tmp_path / "a")
    done = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path), moment], check=False)
    assert done.returncode == 9
    assert finished_artefact(tmp_path / "a", "dataset", [], {"epochs": 5}) is None
    found = finished_artefact(tmp_path / "a", "dataset", [], {"epochs": 4})
    assert found is not None
    found.verify()
    assert found.file("data").read_text() == "new"
    assert everything_in(tmp_path) == ["a", "a/data", "a/manifest.json"]


def test_a_step_whose_result_another_process_has_just_named_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = directory._replace
    both = lambda partial, final: (write(partial, final), write(partial, final))  # noqa: E731
    monkeypatch.setattr(directory, "_replace", both)
    assert make(tmp_path / "b").file("data").read_text() == "content"


def test_a_file_the_manifest_does_not_list_is_not_handed_out(tmp_path: Path) -> None:
    artefact = make(tmp_path / "a")
    (tmp_path / "a" / "stray").write_text("x")
    with pytest.raises(ArtefactError, match="holds no stray"):
        artefact.file("stray")

"""A bundle holds everything a ranking host needs, and is refused when anything about it is not as it was written."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from llmgr_core.artefacts import draft_artefact
from llmgr_core.bundle import Bundle, write_bundle
from llmgr_core.errors import ArtefactError
from llmgr_core.ranker import RankerRuntime


def test_opens_as_it_was_written(bundle_path: Path, stored, item_ids: list[str], engine) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.item_ids == item_ids
    assert bundle.engine == engine
    assert bundle.fingerprint == engine.fingerprint
    assert bundle.cleaner_state == {"phrases": []}
    assert bundle.description == stored.description
    assert bundle.include_seen is True
    assert bundle.adapter == bundle_path / "adapter"
    assert bundle.bridge is not None
    assert bundle.version == bundle.manifest.digest
    for name, tensor in stored.tensors.items():
        np.testing.assert_array_equal(bundle.ranker.tensors[name], tensor)
    np.testing.assert_array_equal(bundle.ranker.has_id, stored.has_id)
    np.testing.assert_array_equal(bundle.ranker.popularity, stored.popularity)


def test_ranks_the_same_after_writing_and_opening(bundle_path: Path, stored, item_ids: list[str]) -> None:
    vectors = np.random.default_rng(4).normal(size=(len(item_ids), 6)).astype(np.float16)
    before = RankerRuntime(stored.parts("v", item_ids), vectors).rank(np.array([0, 2]), 8)
    after = RankerRuntime(Bundle.open(bundle_path).parts, vectors).rank(np.array([0, 2]), 8)
    np.testing.assert_array_equal(before.indices, after.indices)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_nothing_in_it_can_execute_code(bundle_path: Path) -> None:
    assert {path.suffix for path in bundle_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


FILES = [
    "ranker.safetensors",
    "ranker.json",
    "item_transform.safetensors",
    "transitions.safetensors",
    "item_ids.json",
    "engine.json",
    "text_cleaner.json",
    "bridge.safetensors",
    "adapter/adapter_model.safetensors",
]


@pytest.mark.parametrize("name", FILES)
def test_changed_byte_is_found_before_the_file_is_read(bundle_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray((bundle_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_path / name).write_bytes(content)

    def read(*_: object) -> None:
        raise AssertionError("a file was read although its hash is wrong")

    monkeypatch.setattr("llmgr_core.bundle.bundle.StoredRanker.read", read)
    monkeypatch.setattr("llmgr_core.bundle.bundle._read_json", read)
    with pytest.raises(ArtefactError, match="was changed after it was written"):
        Bundle.open(bundle_path)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(bundle_path: Path, name: str) -> None:
    (bundle_path / name).unlink()
    with pytest.raises(ArtefactError, match=Path(name).name.replace(".", r"\.")):
        Bundle.open(bundle_path)


@pytest.mark.parametrize("name", ["adapter/adapter_model.bin", "adapter/training_args.pt", "extra.pkl", "run.py"])
def test_file_of_another_kind_is_refused_even_unverified(bundle_path: Path, name: str) -> None:
    (bundle_path / name).write_bytes(pickle.dumps({"a": 1}))
    for verify in (True, False):
        with pytest.raises(ArtefactError, match="does not belong in a bundle"):
            Bundle.open(bundle_path, verify=verify)


def test_link_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text("{}")
    (bundle_path / "more.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ArtefactError, match="is not a plain file"):
        Bundle.open(bundle_path)


def test_file_that_the_manifest_does_not_list_is_refused(bundle_path: Path) -> None:
    (bundle_path / "more.json").write_text("{}")
    with pytest.raises(ArtefactError, match="is not listed in the manifest"):
        Bundle.open(bundle_path)


def test_other_format_version_is_refused(bundle_path: Path) -> None:
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    manifest["format_version"] = 99
    (bundle_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="has format version 99"):
        Bundle.open(bundle_path)


def test_manifest_with_exchanged_hashes_is_refused(bundle_path: Path) -> None:
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    (bundle_path / "text_cleaner.json").write_text('{"phrases": ["buy now"]}\n')
    import hashlib

    manifest["files"]["text_cleaner.json"] = hashlib.sha256((bundle_path / "text_cleaner.json").read_bytes()).hexdigest()
    (bundle_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="does not match the files it lists"):
        Bundle.open(bundle_path)


def test_export_refuses_an_adapter_with_a_pickle(tmp_path: Path, stored, item_ids: list[str], engine, adapter: Path) -> None:
    (adapter / "optimizer.pt").write_bytes(b"x")
    with (
        pytest.raises(ArtefactError, match=r"optimizer\.pt does not belong in a bundle"),
        draft_artefact(tmp_path / "b", "bundle", [], {}) as draft,
    ):
        write_bundle(draft.path, stored, item_ids, cleaner_state={}, engine=engine, adapter=adapter)
    assert not (tmp_path / "b").exists()


def test_export_refuses_an_engine_that_made_other_vectors(tmp_path: Path, stored, item_ids: list[str], engine) -> None:
    other = engine.model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(ArtefactError, match="ffffffffffff, the engine is 000000000000"):
        write_bundle(tmp_path, stored, item_ids, cleaner_state={}, engine=other)
    with pytest.raises(ArtefactError, match="ranks 8 items, the data set has 7"):
        write_bundle(tmp_path, stored, item_ids[:-1], cleaner_state={}, engine=engine)


def test_repeated_item_ids_are_refused(tmp_path: Path, stored, item_ids: list[str], engine) -> None:
    with draft_artefact(tmp_path / "b", "bundle", [], {}) as draft:
        write_bundle(draft.path, stored, [*item_ids[:-1], item_ids[0]], cleaner_state={}, engine=engine)
    with pytest.raises(ArtefactError, match="not a list of distinct texts"):
        Bundle.open(tmp_path / "b")

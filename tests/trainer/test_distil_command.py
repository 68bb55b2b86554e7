"""`llmgr distil` and `llmgr export` on a small data set, from files to a ranking."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from llmgr_core.bundle import Bundle
from llmgr_core.command_line.main import llmgr
from llmgr_core.errors import ArtefactError, SettingsError
from llmgr_core.ranker import RankerRuntime

OPTIONS = ["--set", "threads=1", "--set", "encoder.dimension=8", "--set", "distil.encoder.dimension=8"]
OPTIONS += ["--set", "distil.encoder.name=srgnn", "--set", "pretrain.epochs=1", "--set", "distil.epochs=2"]


def run(directory: Path, step: str, *more: str) -> dict[str, object]:
    result = CliRunner().invoke(llmgr, [step, "--run", str(directory), "--json", *OPTIONS, *more], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("distil-command")
    data = root / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    items = [{"item_id": f"id-{n}", "title": f"thing number {n}"} for n in range(30)]
    starts = rng.integers(0, 30, size=120)
    sessions = [
        {"session_id": str(n), "items": [f"id-{(start + step) % 30}" for step in range(6)]} for n, start in enumerate(starts)
    ]
    for name, rows in (("items", items), ("sessions", sessions)):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    directory = root / "run"
    result = CliRunner().invoke(
        llmgr, ["prepare", "--run", str(directory), "--json", "--set", f"data.source={data}"], standalone_mode=False
    )
    if result.exception is not None:
        raise result.exception
    run(directory, "pretrain")
    return directory


def test_from_clicks_to_a_ranking_without_text(prepared: Path) -> None:
    told = run(prepared, "distil", "--variant", "id-only")
    assert told["ranker"] == str(prepared / "ranker-id-only")
    exported = run(prepared, "export", "--variant", "id-only")
    bundle = Bundle.open(prepared / "bundle")
    assert exported["version"] == bundle.version
    assert bundle.engine is None
    assert bundle.manifest.metrics["calibration"]["ece_after"] <= 1.0
    runtime = RankerRuntime(bundle.parts)
    snapshot = runtime.snapshot
    ranking = snapshot.rank(snapshot.indices(["id-3", "id-4"]), 5)
    assert snapshot.item_id(int(ranking.indices[0])) == "id-5"


def test_second_run_finds_its_result(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(prepared, "distil", "--variant", "id-only")
    before = (prepared / "ranker-id-only" / "manifest.json").stat().st_mtime_ns
    assert run(prepared, "distil", "--variant", "id-only") == first
    assert (prepared / "ranker-id-only" / "manifest.json").stat().st_mtime_ns == before


def test_fused_without_a_tuned_model_says_which_way_out(prepared: Path) -> None:
    with pytest.raises(ArtefactError, match="learns from the tuned language model") as caught:
        run(prepared, "distil")
    assert "llmgr tune" in str(caught.value)
    assert "--variant id-only" in str(caught.value)


def test_row_pull_needs_the_backbones_space(prepared: Path) -> None:
    with pytest.raises(SettingsError, match=r"distil\.row_pull needs rows in the backbone's space"):
        run(prepared, "distil", "--variant", "id-only", "--set", "distil.row_pull=0.1")


def test_unknown_variant_is_refused(prepared: Path) -> None:
    with pytest.raises(click.BadParameter):
        run(prepared, "distil", "--variant", "fussed")


def test_starting_from_the_backbone_takes_its_shape(prepared: Path) -> None:
    run(prepared, "distil", "--variant", "id-only", "--set", "distil.start=backbone", "--set", "distil.epochs=1")
    described = json.loads((prepared / "ranker-id-only" / "ranker.json").read_text())
    assert described["encoder"]["name"] == "gcsan"


def test_ranker_of_other_data_is_not_exported(prepared: Path, tmp_path: Path) -> None:
    run(prepared, "distil", "--variant", "id-only")
    manifest = prepared / "ranker-id-only" / "manifest.json"
    kept = manifest.read_text()
    changed = json.loads(kept)
    changed["inputs"]["dataset"] = "0" * 64
    manifest.write_text(json.dumps(changed))
    try:
        with pytest.raises(ArtefactError, match="do not belong together"):
            run(prepared, "export", "--variant", "id-only", "--force")
    finally:
        manifest.write_text(kept)


@pytest.mark.parametrize(
    ("place", "complaint"),
    [("dataset/train/items.npy", "is missing"), ("backbone/backbone.safetensors", "was changed after it was written")],
)
def test_a_file_that_an_input_lost_is_named_before_anything_is_trained(
    prepared: Path, tmp_path: Path, place: str, complaint: str
) -> None:
    directory = Path(shutil.copytree(prepared, tmp_path / "run"))
    shutil.rmtree(directory / "ranker-id-only", ignore_errors=True)
    file = directory / place
    assert file.stat().st_size > 0
    if complaint == "is missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtefactError, match=complaint) as caught:
        run(directory, "distil", "--variant", "id-only")
    assert str(file) in str(caught.value)
    assert not (directory / "ranker-id-only.partial").exists()

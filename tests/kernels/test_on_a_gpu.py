"""The commands for a CUDA machine: what they would run, and that all of it runs where a CPU can."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks import on_a_gpu, training_listing
from kernels.dispatch import interpreting

CPU = torch.device("cpu")
here_is_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


def test_checks_stand_before_listings_and_times(tmp_path) -> None:
    names = [part.name for part in on_a_gpu.parts_of(tmp_path, quick=False, rehearse=False)]
    assert names[:4] == ["check-fp32", "check-bf16", "check-fp16", "sanitizer"]
    assert names[-1] == "benchmark"
    assert "listing-stage-2-gcsan" in names[4:-1]


def test_the_list_runs_nothing(tmp_path) -> None:
    done = CliRunner().invoke(on_a_gpu.command, ["--list", "--quick", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "python -m kernels.benchmark --quick --device cuda" in done.output
    assert not (tmp_path / "out").exists()


@here_is_no_gpu
def test_a_machine_without_cuda_is_told_the_way_out(tmp_path) -> None:
    done = CliRunner().invoke(on_a_gpu.command, ["--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "--rehearse" in done.output
    done = CliRunner().invoke(training_listing.command, ["--device", "cuda"])
    assert done.exit_code == 2
    assert "no CUDA device" in done.output


def test_an_unknown_part_is_refused() -> None:
    done = CliRunner().invoke(on_a_gpu.command, ["--only", "speed"])
    assert done.exit_code == 2
    assert "check-fp32" in done.output


@pytest.mark.skipif(not interpreting(), reason="the interpreter is off: a GPU is here")
def test_a_listing_shows_the_ops_of_a_step_and_misses_those_of_another(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LLMGR_KERNELS", "triton")
    arguments = ["--step", "pretraining", "--encoder", "srgnn", "--items", "30", "--sessions", "2"]
    out = tmp_path / "listing.json"
    done = CliRunner().invoke(training_listing.command, [*arguments, "--device", "cpu", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "MISSING" not in done.output
    found = json.loads(out.read_text())
    assert found["ops"].keys() >= training_listing.required_ops("pretraining", "srgnn")
    assert training_listing.missing_from(found, "stage-2", "srgnn", CPU) == ["gated_project_into"]
    on_cuda = training_listing.missing_from(found, "pretraining", "srgnn", torch.device("cuda"))
    assert on_cuda == ["every kernel of kernels/ on the device"]


@pytest.mark.slow
@here_is_no_gpu
@pytest.mark.timeout(1800)
def test_a_rehearsal_passes_every_part(tmp_path) -> None:
    done = CliRunner().invoke(on_a_gpu.command, ["--rehearse", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    parts = json.loads((tmp_path / "parts.json").read_text())
    assert [part["part"] for part in parts] == [part.name for part in on_a_gpu.parts_of(tmp_path, quick=False, rehearse=True)]
    assert json.loads((tmp_path / "kernels-cpu.json").read_text())["scale"] == "tiny"
    assert "gated_project_into" in json.loads((tmp_path / "listing-stage-2-gcsan.json").read_text())["ops"]

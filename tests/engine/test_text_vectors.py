"""Item text in, text vector out."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llmgr_core.engine import SemanticEngine
from llmgr_core.engine.token_batches import pad_right, token_budget_batches
from llmgr_core.errors import ArtefactError, InputError
from llmgr_core.settings.engine import EngineSettings

TEXTS = ["red lipstick", "small soft brush for cream", "oil", "large green towel . soap , gel and wax", "hard comb", "mirror"]


def load(model: Path, **settings: object) -> SemanticEngine:
    return SemanticEngine.load(EngineSettings.model_validate({"model": str(model), "max_tokens": 32, **settings}))


def relative_difference(left: np.ndarray, right: np.ndarray) -> float:
    return float((np.linalg.norm(left - right, axis=1) / np.linalg.norm(right, axis=1)).max())


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_and_batch_order_do_not_change_a_vector(tiny_model: Path, pooling: str) -> None:
    engine = load(tiny_model, pooling=pooling)
    alone = np.concatenate([engine.embed_texts([text]) for text in TEXTS])
    together = engine.embed_texts(TEXTS)
    order = [3, 0, 5, 1, 4, 2]
    shuffled = engine.embed_texts([TEXTS[place] for place in order])
    assert together.dtype == np.float32
    assert together.shape == (len(TEXTS), engine.hidden_size)
    assert relative_difference(together, alone) < 1e-3
    assert relative_difference(shuffled, alone[order]) < 1e-3


def test_texts_are_told_apart(tiny_model: Path) -> None:
    vectors = load(tiny_model).embed_texts(TEXTS)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2) + 10 * np.eye(len(TEXTS))
    assert distances.min() > 0.05


def test_a_causal_model_pools_the_token_that_saw_all_others(tiny_causal: Path) -> None:
    engine = load(tiny_causal, pooling="last")
    model = engine.language_model
    row = engine.item_tokens(["red soft towel"])[0]
    with torch.no_grad():
        hidden = model.transformer(input_ids=torch.tensor([row])).last_hidden_state
    assert np.allclose(engine.embed_texts(["red soft towel"])[0], hidden[0, -1].numpy(), atol=1e-5)


def test_an_encoder_gets_the_same_input_as_through_its_own_tokens(tiny_encoder: Path) -> None:
    engine = load(tiny_encoder)
    tokenizer, model = engine.language_model.tokenizer, engine.language_model.transformer
    with torch.no_grad():
        hidden = model(**tokenizer("red soft towel", return_tensors="pt")).last_hidden_state
    assert np.allclose(engine.embed_texts(["red soft towel"])[0], hidden[0].mean(dim=0).numpy(), atol=1e-5)


def test_long_text_is_cut_to_the_token_limit_and_keeps_its_special_tokens(tiny_encoder: Path) -> None:
    engine = load(tiny_encoder, max_tokens=16)
    (row,) = engine.item_tokens(["red lipstick " * 80_000])
    assert len(row) == 16
    assert (row[0], row[-1]) == (engine.language_model.opening[0], engine.language_model.closing[0])


@pytest.mark.parametrize("text", ["", "   \n"])
def test_a_blank_text_is_refused_by_its_position(tiny_encoder: Path, text: str) -> None:
    with pytest.raises(InputError, match="text 1 is empty"):
        load(tiny_encoder).embed_texts(["red", text])


def test_invalid_unicode_is_refused_by_its_position(tiny_encoder: Path) -> None:
    with pytest.raises(InputError, match="text 2 is not valid Unicode"):
        load(tiny_encoder).embed_texts(["red", "blue", "\ud800 towel"])


def test_not_a_number_from_the_model_is_refused_by_the_position_of_its_text(tiny_encoder: Path) -> None:
    engine = load(tiny_encoder)
    token = engine.language_model.tokens(["wax"], 8)[0][0]
    with torch.no_grad():
        engine.language_model.transformer.get_input_embeddings().weight[token, 3] = torch.nan
    with pytest.raises(InputError, match=r"NaN or infinity for text 3 \('large green"):
        engine.embed_texts(TEXTS)


def test_threads_may_share_an_engine(tiny_encoder: Path) -> None:
    engine = load(tiny_encoder)
    expected = engine.embed_texts(TEXTS)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(engine.embed_texts(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.allclose(vectors, expected, atol=1e-5) for vectors in found)


def test_no_texts_give_no_vectors(tiny_encoder: Path) -> None:
    assert load(tiny_encoder).embed_texts([]).shape == (0, 32)


def test_bf16_weights_give_nearly_the_same_vectors(tiny_model: Path) -> None:
    exact, rounded = load(tiny_model).embed_texts(TEXTS), load(tiny_model, dtype="bf16").embed_texts(TEXTS)
    assert rounded.dtype == np.float32
    assert 0 < relative_difference(rounded, exact) < 0.1


def test_the_fingerprint_changes_with_whatever_changes_vectors(tiny_encoder: Path, tiny_causal: Path) -> None:
    engine = load(tiny_encoder)
    same = load(tiny_encoder, batch_tokens=64, device="cpu").fingerprint("cleaner")
    assert engine.fingerprint("cleaner") == same
    others = [
        engine.fingerprint("another cleaner"),
        load(tiny_causal).fingerprint("cleaner"),
        load(tiny_encoder, pooling="last").fingerprint("cleaner"),
        load(tiny_encoder, max_tokens=31).fingerprint("cleaner"),
        load(tiny_encoder, dtype="bf16").fingerprint("cleaner"),
    ]
    assert len({same, *others}) == 6


def test_one_changed_weight_is_another_fingerprint(tiny_encoder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_encoder, copy)
    assert load(copy).fingerprint("") == load(tiny_encoder).fingerprint("")
    tensors = load_file(copy / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert load(copy).fingerprint("") != load(tiny_encoder).fingerprint("")


def test_pickled_weights_are_never_loaded(tiny_encoder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_encoder, copy)
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"no \.safetensors"):
        load(copy)


def test_damaged_weights_are_named(tiny_encoder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_encoder, copy)
    (copy / "model.safetensors").write_bytes(b"\x07" * 100)
    with pytest.raises(ArtefactError, match="copy cannot be loaded"):
        load(copy)


def test_a_model_that_is_not_at_hand_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="is not on this machine and HF_HUB_OFFLINE is set") as caught:
        SemanticEngine.load(EngineSettings(model="nobody/no-such-model"))
    assert "llmgr model" in (caught.value.hint or "")


def test_an_unknown_device_is_named(tiny_encoder: Path) -> None:
    with pytest.raises(InputError, match="'warp' cannot be used"):
        load(tiny_encoder, device="warp")


def test_token_budget_batches_take_every_text_once_within_the_budget() -> None:
    lengths = [3, 50, 7, 7, 1, 20, 90, 4]
    batches = token_budget_batches(lengths, 64)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[place] for place in batch) * len(batch) <= 64


def test_padding_stands_on_the_right() -> None:
    ids, mask = pad_right([[5, 6, 7], [8]], padding=0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]

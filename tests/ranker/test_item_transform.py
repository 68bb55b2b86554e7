"""An item's row is its ID vector plus a linear map of its text vector, in training as in serving."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmgr_core.errors import InputError
from llmgr_core.ranker.item_transform import FixedInputDropout, ItemTransform
from llmgr_core.ranker.whitening import Whitening, unit_length
from llmgr_core.settings.distil import DistilSettings


@pytest.fixture
def vectors() -> np.ndarray:
    rng = np.random.default_rng(3)
    # A spectrum with strong and weak directions around a common centre, as language models give it.
    return (rng.normal(size=(200, 24)) * np.geomspace(5, 0.1, 24) + 3.0).astype(np.float16)


@pytest.fixture
def transform(vectors: np.ndarray) -> ItemTransform:
    torch.manual_seed(1)
    module = ItemTransform(Whitening.fit(vectors, rank=10, strength=1.0), dimension=8, text_dropout=0.5, id_dropout=0.5)
    torch.nn.init.constant_(module.log_text_only_scale, 0.3)
    return module


def whitened_of(transform: ItemTransform, vectors: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(transform.whitening.apply(vectors))


def test_fused_row_is_exactly_id_plus_linear_of_text(transform: ItemTransform, vectors: np.ndarray) -> None:
    ids = torch.randn(200, 8)
    yes = torch.ones(200, dtype=torch.bool)
    whitened = whitened_of(transform, vectors)
    rows = transform.eval()(ids, yes, whitened, yes)
    assert torch.equal(rows, ids + transform.linear(whitened))


def test_folded_transform_gives_the_rows_of_the_module(transform: ItemTransform, vectors: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    ids = rng.normal(size=(200, 8)).astype(np.float32)
    has_id, has_text = rng.random(200) < 0.7, rng.random(200) < 0.7
    whitened = whitened_of(transform, vectors) * torch.from_numpy(has_text)[:, None]
    with torch.no_grad():
        expected = transform.eval()(
            torch.from_numpy(ids), torch.from_numpy(has_id), whitened, torch.from_numpy(has_text)
        ).numpy()
    folded = transform.folded()
    rows = folded.rows(ids, has_id, vectors, has_text)
    np.testing.assert_allclose(rows, expected, atol=2e-4)
    for item in range(20):
        one = folded.row(ids[item] if has_id[item] else None, vectors[item] if has_text[item] else None)
        if one is None:
            assert not has_id[item]
            assert not has_text[item]
        else:
            np.testing.assert_allclose(one, rows[item], atol=1e-6)


def test_scores_fold_through_the_matrix(transform: ItemTransform, vectors: np.ndarray) -> None:
    folded = transform.folded()
    z = np.random.default_rng(2).normal(size=8).astype(np.float32)
    direct = folded.text_part(vectors) @ z
    through_matrix = unit_length(vectors) @ (folded.matrix @ z) + folded.offset @ z
    np.testing.assert_allclose(direct, through_matrix, rtol=1e-3, atol=1e-4)


def test_training_drops_whole_id_vectors_of_items_with_text_only(transform: ItemTransform, vectors: np.ndarray) -> None:
    transform.text_dropout.p = 0.0
    ids = torch.randn(200, 8)
    has_text = torch.arange(200) < 150
    whitened = whitened_of(transform, vectors) * has_text[:, None]
    yes = torch.ones(200, dtype=torch.bool)
    rows = transform.train()(ids, yes, whitened, has_text)
    full = torch.isclose(rows, ids + transform.linear(whitened) * has_text[:, None], atol=1e-5).all(dim=1)
    text_only = torch.isclose(rows, transform.log_text_only_scale.exp() * transform.linear(whitened), atol=1e-5).all(dim=1)
    assert full[150:].all()
    assert (full ^ text_only)[:150].all()
    assert 45 <= int(text_only[:150].sum()) <= 105


def test_whitening_decorrelates_and_does_not_see_other_items(vectors: np.ndarray) -> None:
    whitening = Whitening.fit(vectors[:150], rank=10, strength=1.0)
    whitened = whitening.apply(vectors[:150]).astype(np.float64)
    np.testing.assert_allclose(whitened.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(whitened.T @ whitened / 150, np.eye(10), atol=2e-2)
    partial = Whitening.fit(vectors[:150], rank=10, strength=0.5).apply(vectors[:150])
    assert np.square(partial).sum(axis=1).mean() == pytest.approx(10.0, rel=1e-2)
    spread = partial.var(axis=0)
    assert spread[0] > 2 * spread[-1]


def test_rank_never_exceeds_what_the_vectors_span() -> None:
    few = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float16)
    assert Whitening.fit(few, rank=256, strength=1.0).rank == 4
    same = np.ones((3, 24), dtype=np.float16)
    assert np.isfinite(Whitening.fit(same, rank=256, strength=1.0).apply(same)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vector_that_is_not_finite_is_refused(transform: ItemTransform, vectors: np.ndarray, bad: float) -> None:
    folded = transform.folded()
    vectors[3, 5] = bad
    yes = np.ones(200, dtype=np.bool_)
    with pytest.raises(InputError, match="NaN or an infinity"):
        folded.rows(np.zeros((200, 8), dtype=np.float32), yes, vectors, yes)
    with pytest.raises(InputError, match="NaN or an infinity"):
        folded.row(None, vectors[3])
    with pytest.raises(InputError, match="has 7 numbers, this ranker expects 24"):
        folded.row(None, vectors[0, :7])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_input_dropout_drops_its_share_evenly_and_keeps_the_mean(share: float) -> None:
    torch.manual_seed(0)
    dropout = FixedInputDropout(share).train()
    values = torch.ones(4001, 51)
    dropped = dropout(values)
    assert float((dropped == 0).float().mean()) == pytest.approx(share, abs=0.005)
    assert float((dropped == 0).float().mean(dim=0).sub(share).abs().max()) < 0.04
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(dropout.eval()(values), values)


def test_no_share_that_can_be_set_drops_everything() -> None:
    """Shares are rounded to 1/256: a larger one would be all, and the scale of what is kept infinite."""
    with pytest.raises(ValueError, match="text_dropout"):
        DistilSettings(text_dropout=0.999)
    assert torch.isfinite(FixedInputDropout(DistilSettings(text_dropout=0.99).text_dropout).train()(torch.ones(8, 8))).all()


@pytest.mark.parametrize(("rank", "dimension"), [(10, 8), (20, 64)])
def test_text_part_starts_a_little_longer_than_the_id_vectors(vectors: np.ndarray, rank: int, dimension: int) -> None:
    torch.manual_seed(0)
    whitening = Whitening.fit(vectors, rank=rank, strength=1.0)
    fresh = ItemTransform(whitening, dimension, text_dropout=0.0, id_dropout=0.0)
    text_parts = fresh.linear(whitened_of(fresh, vectors))
    id_vectors = torch.empty(2000, dimension).uniform_(-(dimension**-0.5), dimension**-0.5)
    ratio = float(text_parts.square().sum(dim=1).mean().sqrt() / id_vectors.square().sum(dim=1).mean().sqrt())
    assert ratio == pytest.approx(1.6, rel=0.2)

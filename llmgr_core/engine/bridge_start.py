"""Where the bridge starts: closed forms fitted to the untuned text vectors, so that training begins from sense, not noise."""

from __future__ import annotations

import torch
from torch import Tensor

from llmgr_core.engine.bridge import Bridge
from llmgr_core.errors import InputError

RIDGE = 0.1
# Less of the vectors' squared length than this around their mean is rounding, no difference between texts.
LEAST_SPREAD = 1e-10


@torch.no_grad()
def start_projection(
    bridge: Bridge, text_vectors: Tensor, id_vectors: Tensor, token_norm: float, *, random: bool = False
) -> None:
    """Set W_p to the ridge regression from text vectors to ID directions, and the text mean.

    Fine-tuning from a random head first bends the language model towards that head and loses what it knew; from a fitted one it
    does not (Kumar et al., 2022, arXiv:2202.10054). Its scale is chosen so that projected IDs are as long as token vectors.

    Args:
        bridge: is changed.
        text_vectors: e_v, float [n, D] of items with text and clicks.
        id_vectors: x_v, float [n, d] of the same items.
        token_norm: mean length of the model's token vectors.
        random: keep W_p as it was drawn, but for its scale.

    Raises:
        InputError: all text vectors are equal.
    """
    texts, ids = text_vectors.double(), id_vectors.double()
    mean = texts.mean(dim=0)
    bridge.text_mean.copy_(mean)
    centred = texts - mean
    if centred.square().mean() <= LEAST_SPREAD * texts.square().mean():
        raise InputError(
            f"the language model gives all {len(texts):,} items with text and clicks the same vector",
            "nothing can be learnt from that; see that titles, attributes or descriptions of the item file differ",
        )
    weights = bridge.projection.detach().to(ids.device).double() if random else _ridge(centred, ids)
    length = (ids @ weights.T).norm(dim=1).mean().clamp_min(1e-12)
    bridge.projection.copy_(weights * (token_norm / length))


def _ridge(centred: Tensor, ids: Tensor) -> Tensor:
    """From centred text vectors [n, D] to ID directions [n, d]: [D, d]."""
    directions = torch.nn.functional.normalize(ids - ids.mean(dim=0), dim=1)
    gram = centred.T @ centred
    strength = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weights: Tensor = torch.linalg.solve(gram + strength, centred.T @ directions)
    return weights


@torch.no_grad()
def whitening(vectors: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """PCA whitening: mean [D] and A [k, D] such that A (e - mean) has uncorrelated numbers of variance one.

    Args:
        vectors: float [n, D], training items only.
        dimensions: k, at most D; directions without variance get zero rows.
    """
    mean = vectors.double().mean(dim=0)
    centred = vectors.double() - mean
    variances, directions = torch.linalg.eigh(centred.T @ centred / max(len(centred) - 1, 1))
    variances, directions = variances.flip(0)[:dimensions], directions.flip(1)[:, :dimensions]
    usable = variances > variances[0].clamp_min(1e-12) * 1e-6
    factors = torch.where(usable, variances.clamp_min(1e-30).rsqrt(), torch.zeros_like(variances))
    return mean.to(vectors.dtype), (directions * factors).T.to(vectors.dtype).contiguous()

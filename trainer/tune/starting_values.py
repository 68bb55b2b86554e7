"""Values that the bridge starts from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from llmgr_core.engine import SemanticEngine
from llmgr_core.engine.bridge_start import start_projection, whitening
from llmgr_core.engine.hybrid_model import HybridModel
from trainer.tune.stage_examples import Work

MEAN_BATCHES = 6


def start_bridge(
    model: HybridModel, engine: SemanticEngine, untuned: npt.NDArray[np.float32], items: npt.NDArray[np.int64]
) -> None:
    """W_p, fitted on these items (int64 [n]) from their untuned text vectors (of float32 [V, D]) to their IDs, or drawn."""
    places = torch.from_numpy(items)
    token_vectors = engine.language_model.transformer.get_input_embeddings().weight
    token_norm = float(token_vectors.detach().float().norm(dim=1).mean())
    ids = model.backbone.item_table.detach().cpu()[places]
    random = model.settings.projection == "random-frozen"
    start_projection(model.bridge, torch.from_numpy(untuned)[places], ids, token_norm, random=random)


@torch.no_grad()
def mean_readout(model: HybridModel, work: Work) -> npt.NDArray[np.float32]:
    """float32 [D], mean readout of some prompts of a stage, evenly spread; zero where it has no step."""
    steps = work.steps
    model.eval()
    model.bridge.prompt_mean.zero_()
    picked = [steps[round(place)] for place in np.linspace(0, len(steps) - 1, MEAN_BATCHES)] if steps else []
    read = [model.read(work.build(chosen, np.random.default_rng(0))) for chosen in picked]
    mean = torch.cat(read).mean(dim=0) if read else model.bridge.prompt_mean
    found: npt.NDArray[np.float32] = mean.cpu().numpy()
    return found


def start_text_rows(model: HybridModel, vectors: npt.NDArray[np.float32], items: npt.NDArray[np.int64]) -> None:
    """t_v: text vectors (float32 [V, D]) whitened on these items, of unit length; the text head starts as the same map."""
    bridge = model.bridge
    assert bridge.text_head is not None
    texts = torch.from_numpy(vectors)
    mean, weights = whitening(texts[torch.from_numpy(items)], model.settings.text_rows)
    bridge.text_head.weight.data.zero_()
    bridge.text_head.weight.data[: len(weights)].copy_(weights)
    rows = torch.nn.functional.normalize((texts - mean) @ bridge.text_head.weight.data.cpu().T, dim=1)
    has_text = texts.abs().amax(dim=1, keepdim=True) > 0
    model.text_rows.copy_(rows * has_text)

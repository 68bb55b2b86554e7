"""Text vectors of the whole catalogue under the model as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llmgr_core.engine import SemanticEngine
from llmgr_core.progress import Reporter


def catalogue_vectors(
    engine: SemanticEngine, texts: Sequence[str | None], cache: Path, reporter: Reporter, description: str
) -> npt.NDArray[np.float32]:
    """float32 [V, D], zero rows for items without text; kept in ``cache``, where a resumed run finds them."""
    if cache.is_file():
        kept: npt.NDArray[np.float32] = np.load(cache, allow_pickle=False)
        return kept
    items = [item for item, text in enumerate(texts) if text is not None and text.strip()]
    wanted = [texts[item] or "" for item in items]
    vectors = np.zeros((len(texts), engine.hidden_size), dtype=np.float32)
    was_training = engine.language_model.training
    engine.language_model.eval()
    with reporter.bar(description, len(wanted)) as advance:
        for places, part in engine.embed_batches(wanted):
            vectors[[items[place] for place in places]] = part
            advance(len(places))
    engine.language_model.train(was_training)
    temporary = cache.with_suffix(".writing.npy")
    np.save(temporary, vectors, allow_pickle=False)
    temporary.replace(cache)
    return vectors

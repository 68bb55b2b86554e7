"""The tuned LLMGR with its language model in the loop, as a scorer: what the online ranker learns from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from llmgr_core.artefacts import Artefact
from llmgr_core.data import Dataset
from llmgr_core.engine.hybrid_model import HybridModel
from llmgr_core.engine.prompt_batches import PromptBatches
from llmgr_core.engine.token_batches import token_budget_batches
from llmgr_core.engine.tuned_model import load_tuned
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples
from llmgr_core.settings.engine import EngineSettings


class Teacher:
    """Scores every item after each prefix; one pass of the language model a prefix.

    Args:
        model: in evaluation mode.
        batches: builds its prompts.
        batch_tokens: padded tokens of one forward pass.
        reporter: where given, long calls show a bar.
    """

    name = "teacher"

    def __init__(self, model: HybridModel, batches: PromptBatches, batch_tokens: int, reporter: Reporter | None = None) -> None:
        self.model = model
        self._batches, self._batch_tokens, self._reporter = batches, batch_tokens, reporter

    @classmethod
    def load(
        cls,
        tuned: Artefact,
        dataset: Dataset,
        backbone: Artefact,
        host: EngineSettings | None = None,
        reporter: Reporter | None = None,
    ) -> Teacher:
        """The teacher of a ``tuned`` artefact.

        Raises:
            ArtefactError: the three do not belong together, or the base model here is another one.
        """
        model, engine = load_tuned(tuned, dataset, backbone, host)
        max_clicks = model.backbone.settings.max_clicks
        batches = PromptBatches(engine, dataset.texts, dataset.titles, model.settings, max_clicks)
        return cls(model, batches, engine.settings.batch_tokens, reporter)

    def scores(self, examples: Examples) -> Tensor:
        """Logits over the whole catalogue, float32 [B, V] on the CPU; an empty prefix is ranked by what an empty graph says."""
        rows = torch.empty(len(examples), self.model.backbone.num_items)
        queries = self.session_queries(examples)
        with torch.inference_mode():
            table = self.model.item_rows()
            for start in range(0, len(examples), 256):
                part = queries[start : start + 256].to(table.device)
                rows[start : start + 256] = (self.model.scale * (part @ table.T)).cpu()
        return rows

    def session_queries(self, examples: Examples) -> Tensor:
        """float32 [B, d + k] on the CPU: what ``HybridModel.item_rows`` is compared with, times ``scale``."""
        lengths = self._batches.main_lengths(examples) + 32
        queries: Tensor | None = None
        batches = token_budget_batches(lengths.tolist(), self._batch_tokens)
        shown = self._reporter.track(batches, "teacher") if self._reporter and len(examples) > 512 else batches
        with torch.inference_mode():
            for places in shown:
                part = examples.select(np.array(places))
                found = self.model.session_query(self._batches.main(part, with_last_texts=False)).cpu()
                if queries is None:
                    queries = torch.empty(len(examples), found.shape[1])
                queries[places] = found
        return queries if queries is not None else torch.empty(0, self.model.item_rows().shape[1])

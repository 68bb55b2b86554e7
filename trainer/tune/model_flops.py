"""Floating-point operations that a training step needs by the model's formula."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from llmgr_core.engine.hybrid import HybridInput
from llmgr_core.engine.language_model import LanguageModel
from llmgr_core.engine.prompt_batches import AuxiliaryBatch, MainBatch


@dataclass(frozen=True)
class ModelFlops:
    """Operations of one forward and one backward pass through the language model.

    A weight costs a position 2 operations forward (multiply, add), 2 for the gradient of what entered, and 2 more for its own
    gradient where it learns; attention over T positions costs each of them 4 L D T forward and twice that backward:

        C = 4 N_frozen + 6 N_trained + 12 L D T    operations a position

    6 N is Kaplan et al. (2020), section 2.1; with the attention term it is Chowdhery et al. (2022, PaLM), appendix B. Under
    LoRA the frozen weights need no gradient of their own, but every gradient passes through them to the adapters and to W_p
    below: 4 N. Item texts hold no W_p x_v: where no weight of the language model learns, their pass ends after 2 N + 4 L D T.

    Counted are positions as computed, padding included, like tokens a second. Not counted: bridge, backbone and catalogue
    softmax (thousandths of it), and activations that gradient checkpointing computes twice.

    Attributes:
        frozen, trained: N, weights of matrices in the language model, embedding tables left out.
        layers, width: L, and D = heads times width of a head; 0 where the model's configuration does not say.
    """

    frozen: int
    trained: int
    layers: int
    width: int

    @classmethod
    def of(cls, model: LanguageModel) -> ModelFlops:
        """Counts the model as it stands: with its adapter, and with what learns now."""
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        matrices = [one for one in model.parameters() if one.ndim > 1 and id(one) not in tables]
        trained = sum(one.numel() for one in matrices if one.requires_grad)
        config = model.transformer.config
        heads, head_width = getattr(config, "num_attention_heads", 0), getattr(config, "head_dim", None)
        width = heads * head_width if head_width else getattr(config, "hidden_size", 0)
        layers = getattr(config, "num_hidden_layers", 0)
        return cls(sum(one.numel() for one in matrices) - trained, trained, int(layers), int(width))

    def count(self, batch: AuxiliaryBatch | MainBatch) -> float:
        """Operations of a step on this batch."""
        texts = batch.texts if isinstance(batch, AuxiliaryBatch) else batch.last_texts
        return self._count(batch.prompts, True) + (self._count(texts, self.trained > 0) if texts is not None else 0.0)

    def _count(self, rows: HybridInput, backward: bool) -> float:
        width = rows.entries.shape[1]
        weights = 4 * self.frozen + 6 * self.trained if backward else 2 * (self.frozen + self.trained)
        attention = (12 if backward else 4) * self.layers * self.width * width
        return float(rows.tokens) * (weights + attention)

"""The ID-only model: an item table under a session encoder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import kernels
from llmgr_core.artefacts import Artefact
from llmgr_core.encoders.build import build_encoder
from llmgr_core.encoders.logits import ItemLogits
from llmgr_core.errors import ArtefactError
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings

WEIGHTS_NAME = "backbone.safetensors"
SETTINGS_NAME = "encoder.json"


class Backbone(nn.Module):
    """ID vectors x_v, a session encoder, and logits tied to the same table.

    Attributes:
        item_table: x_v of every item, float [V, d].
        encoder: z_s from the node vectors of a session.
        logits: z_s against item rows.
        settings: what it was built from.
    """

    def __init__(self, num_items: int, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        bound = 1.0 / math.sqrt(settings.dimension)
        self.item_table = nn.Parameter(torch.empty(num_items, settings.dimension).uniform_(-bound, bound))
        self.encoder = build_encoder(settings, num_items)
        self.logits = ItemLogits(settings)

    @property
    def num_items(self) -> int:
        return self.item_table.shape[0]

    def encode(self, batch: SessionBatch) -> Tensor:
        """z_s of every session, float [B, d]."""
        vectors: Tensor = self.encoder(kernels.item_rows(self.item_table, batch.node_items), batch)
        return vectors

    def scores(self, batch: SessionBatch) -> Tensor:
        """Logits over the whole catalogue, float [B, V]."""
        logits: Tensor = self.logits(self.encode(batch), self.item_table)
        return logits

    def loss(self, batch: SessionBatch, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the targets (int64 [B]) over the whole catalogue, and what the encoder adds to it."""
        session_vectors = self.encode(batch)
        loss = self.logits.loss(session_vectors, self.item_table, targets)
        added = self.encoder.auxiliary_loss(session_vectors, self.item_table, targets)
        return loss if added is None else loss + added

    def save(self, directory: Path) -> None:
        """Write the weights (safetensors) and the settings (JSON) into an existing directory."""
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in self.state_dict().items()}
        save_file(tensors, directory / WEIGHTS_NAME)
        text = json.dumps({"num_items": self.num_items, **self.settings.model_dump()}, indent=2)
        (directory / SETTINGS_NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, source: Artefact | Path) -> Backbone:
        """The backbone of a finished artefact (or of a directory ``save`` wrote into), in evaluation mode.

        Raises:
            ArtefactError: a file is missing, or the weights do not fit the settings beside them.
        """
        directory = source.path if isinstance(source, Artefact) else source
        try:
            values = json.loads((directory / SETTINGS_NAME).read_text(encoding="utf-8"))
            num_items = int(values.pop("num_items"))
            backbone = cls(num_items, EncoderSettings.model_validate(values))
            backbone.load_state_dict(load_file(directory / WEIGHTS_NAME))
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise ArtefactError(f"{directory} holds no usable backbone: {error}", "run `llmgr pretrain` again") from None
        return backbone.eval()

"""LLMGR itself: language model, bridge and backbone as one module with one loss a stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import kernels
from llmgr_core.encoders import Backbone
from llmgr_core.engine.bridge import Bridge
from llmgr_core.engine.candidate_head import candidate_cross_entropy
from llmgr_core.engine.hybrid import HybridInput
from llmgr_core.engine.pooling import pool
from llmgr_core.engine.prompt_batches import AuxiliaryBatch, MainBatch
from llmgr_core.engine.semantic_engine import SemanticEngine
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.tune import TuneSettings

# Sharpness of the text part before its gate, where the backbone's own may be that of a plain inner product.
COSINE_SCALE = 16.0
# How much less each earlier click counts in the session's text vector.
TEXT_DECAY = 0.5


@dataclass(frozen=True)
class StageLoss:
    """What one batch gave.

    Attributes:
        loss: scalar with gradients, the weighted sum of the stage's parts.
        prompt_loss, item_loss: its parts, before their weights.
        correct: share of prompts whose right answer came first among the candidates (stage 1), else 0.
    """

    loss: Tensor
    prompt_loss: Tensor
    item_loss: Tensor
    correct: Tensor


class HybridModel(nn.Module):
    """p(v | s) from the hidden states of hybrid prompts (paper, sections 4 to 6).

    Stage 1: softmax over the candidates of <head(H), W_p x_c>, H read out of the auxiliary prompt.

    Stage 2: softmax over the whole catalogue with the output matrix tied to the item rows: W_o = X W_p^T, so that
    W_o head(H) = X (W_p^T head(H)) and only d numbers an item enter the product. With ``text_rows`` each item row also has its
    whitened text vector t_v, compared with A h of the prompt's readout h. With ``graph_residual`` both parts start from what is
    known without the language model, the backbone's z_s and the decayed sum t_s of the clicks' own text vectors:

        logit_v = scale * (<z_s + g W_p^T head(H), x_v> + b <t_s + g A h, t_v>)

    each vector of unit length where the backbone compares by cosine. At the start g is small and b is chosen on validation.
    Where W_p is an MLP, x~_v = W_p u_v with u_v = x_v + MLP(x_v), and g <W_p^T head(H), u_v> stands beside <z_s, x_v>.

    Beside its prompt each stage asks the same of the stored vector e_v, the pooled hidden state of the item's text alone, by
    <W_p^T (e_v - mean), x_w>: stage 1 which item it is, stage 2 which item followed it. Only thus does tuning reach the vector
    that the online ranker will use.

    Args:
        known: bool [V], items with clicks in training; the others' ID rows hold nothing learned and count as zero.
        text_rows: t_v, float [V, k], zero rows for items without text; None where ``settings.text_rows`` is 0.

    Raises:
        SettingsError: the backbone compares in hyperbolic space.
    """

    known: Tensor
    text_rows: Tensor

    def __init__(
        self,
        engine: SemanticEngine,
        backbone: Backbone,
        bridge: Bridge,
        settings: TuneSettings,
        *,
        known: Tensor,
        text_rows: Tensor | None = None,
    ) -> None:
        super().__init__()
        _ = backbone.logits.cosine  # refuses now what would fail in stage 2
        self.language_model = engine.language_model
        self.backbone = backbone
        self.bridge = bridge
        self.settings = settings
        self.pooling = engine.pooling
        self.register_buffer("known", known, persistent=False)
        rows = torch.zeros(backbone.num_items, settings.text_rows) if text_rows is None else text_rows
        self.register_buffer("text_rows", rows, persistent=False)
        self.to(engine.language_model.device)

    def forward(self, batch: AuxiliaryBatch | MainBatch) -> StageLoss:
        """The loss of a batch of either stage."""
        return self.auxiliary_loss(batch) if isinstance(batch, AuxiliaryBatch) else self.main_loss(batch)

    def auxiliary_loss(self, batch: AuxiliaryBatch) -> StageLoss:
        """Stage 1."""
        logits = self.candidate_logits(batch)
        prompt_loss = nn.functional.cross_entropy(logits, batch.answers)
        correct = (logits.argmax(dim=1) == batch.answers).float().mean()
        item_loss = torch.zeros((), device=logits.device)
        if self.settings.alignment_weight:
            items = batch.candidates.gather(1, batch.answers[:, None])[:, 0]
            item_loss = self._item_loss(self.text_vectors(batch.texts), items)
        return StageLoss(prompt_loss + self.settings.alignment_weight * item_loss, prompt_loss, item_loss, correct)

    def candidate_logits(self, batch: AuxiliaryBatch) -> Tensor:
        """float32 [B, C]: scale * cos(W_p^T head(H), x_c) with a learned scale."""
        vectors = self._candidate_vectors(batch)
        query = self.bridge.session_part(self.read(batch))
        return self.bridge.log_prompt_scale.exp() * nn.functional.cosine_similarity(query[:, None, :], vectors, dim=2)

    def main_loss(self, batch: MainBatch) -> StageLoss:
        """Stage 2."""
        zero = torch.zeros((), device=batch.targets.device)
        prompt_loss = _softmax_loss(self.session_query(batch), self.item_rows(), batch.targets, batch.candidates, self.scale)
        item_loss = zero
        if self.settings.following_weight and batch.last_texts is not None:
            owner, candidates = batch.last_owner, batch.candidates
            among = None if candidates is None else candidates[owner]
            item_loss = self._item_loss(self.text_vectors(batch.last_texts), batch.targets[owner], among)
        return StageLoss(prompt_loss + self.settings.following_weight * item_loss, prompt_loss, item_loss, zero)

    @property
    def scale(self) -> Tensor | float:
        """Factor of the logits; a tensor, so that no step waits for its value. Tuning leaves it as it is."""
        return self.backbone.logits.scale.detach() if self.backbone.logits.cosine else 1.0

    def id_rows(self) -> Tensor:
        """x_v as the logits use it: float32 [V, d], of unit length under cosine, zero for items without clicks."""
        return self._as_compared(self.backbone.item_table.float())

    def item_rows(self) -> Tensor:
        """What sessions are compared with: [x_v ; t_v], float32 [V, d + k]; with an MLP as W_p [x_v ; u_v ; t_v]."""
        if self.bridge.first_layers is None:
            return torch.cat([self.id_rows(), self.text_rows], dim=1)
        entered = self._as_compared(self.bridge.enter(self.backbone.item_table.float()))
        beside_backbone = [self.id_rows()] if self.settings.graph_residual else []
        return torch.cat([*beside_backbone, entered, self.text_rows], dim=1)

    def session_query(self, batch: MainBatch) -> Tensor:
        """What item rows are compared with: [z_s + g W_p^T head(H) ; b A h], float32 [B, d + k].

        With an MLP as W_p [z_s ; g W_p^T head(H) ; b A h]; without ``graph_residual`` no z_s and no g.
        """
        session_vectors = self.backbone.encode(batch.sessions)
        read = self.read(batch, session_vectors)
        part = self.bridge.session_part(read)
        if self.backbone.logits.cosine:
            part, session_vectors = nn.functional.normalize(part, dim=1), nn.functional.normalize(session_vectors, dim=1)
        query = part
        if self.settings.graph_residual:
            part = self.bridge.graph_gate * part
            linear = self.bridge.first_layers is None
            query = session_vectors + part if linear else torch.cat([session_vectors, part], dim=1)
        if self.bridge.text_head is None or self.bridge.text_gate is None:
            return query.float()
        text = nn.functional.normalize(self.bridge.text_head(read.to(self.bridge.text_head.weight.dtype)), dim=1)
        if self.settings.graph_residual:
            text = self.session_text(batch.sessions) + self.bridge.graph_gate * text
        return torch.cat([query, self.bridge.text_gate * (COSINE_SCALE / self.scale) * text], dim=1).float()

    def session_text(self, sessions: SessionBatch) -> Tensor:
        """t_s: sum of the text rows of the clicks, each earlier one at half the weight; unit length, float32 [B, k]."""
        offsets = sessions.click_offsets
        owner = torch.repeat_interleave(offsets.diff(), output_size=len(sessions.clicks))
        weights = TEXT_DECAY ** (offsets[1:][owner] - 1 - torch.arange(len(owner), device=owner.device)).float()
        together = torch.zeros(sessions.num_sessions, self.text_rows.shape[1], device=owner.device)
        together = together.index_add(0, owner, weights[:, None] * self.text_rows[sessions.clicks])
        return nn.functional.normalize(together, dim=1)

    def scores(self, batch: MainBatch) -> Tensor:
        """Logits over the whole catalogue, float32 [B, V]."""
        return self.scale * (self.session_query(batch) @ self.item_rows().T)

    def text_vectors(self, texts: HybridInput) -> Tensor:
        """e_v with gradients, float32 [n, D], from token rows of the item text prompt."""
        hidden = self.language_model(self.language_model.embed_tokens(texts.entries), texts.mask)
        return pool(hidden.float(), texts.mask, self.pooling)

    def _as_compared(self, rows: Tensor) -> Tensor:
        """Zero for items without clicks, of unit length under cosine."""
        rows = rows * self.known[:, None]
        return nn.functional.normalize(rows, dim=1) if self.backbone.logits.cosine else rows

    def _item_loss(self, text_vectors: Tensor, targets: Tensor, candidates: Tensor | None = None) -> Tensor:
        part = nn.functional.normalize(self.bridge.item_part(text_vectors).float(), dim=1)
        entered = self._as_compared(self.bridge.enter(self.backbone.item_table.detach().float()))
        rows = nn.functional.normalize(entered, dim=1)
        return _softmax_loss(part, rows, targets, candidates, self.bridge.log_item_scale.exp())

    def read(self, batch: AuxiliaryBatch | MainBatch, session_vectors: Tensor | None = None) -> Tensor:
        """What the prompts read as, centred: float32 [B, D].

        Args:
            session_vectors: z_s of a MainBatch, where the caller has it already.
        """
        return self.bridge.read(
            self.language_model(self._inputs(batch, session_vectors), batch.prompts.mask), batch.prompts.mask
        )

    def _inputs(self, batch: AuxiliaryBatch | MainBatch, session_vectors: Tensor | None) -> Tensor:
        """Input vectors of the language model, float32 [B, T, D]."""
        prompts, model, bridge = batch.prompts, self.language_model, self.bridge
        projection = bridge.projection
        if isinstance(batch, AuxiliaryBatch):
            return prompts.vectors(model, projection, self._candidate_vectors(batch).flatten(0, 1))
        if session_vectors is None:
            session_vectors = self.backbone.encode(batch.sessions)
        # Session vectors of the length of an ordinary ID vector.
        usual = self.backbone.item_table.detach().float().norm(dim=1).mean()
        sessions = nn.functional.normalize(session_vectors.float(), dim=1) * usual
        nodes = kernels.item_rows(self.backbone.item_table, batch.sessions.node_items)
        encoder = self.backbone.encoder
        layer = getattr(encoder, "graph_layer", None)
        if layer is None:
            return prompts.vectors(model, projection, bridge.enter(torch.cat([nodes.float(), sessions])))
        settings = encoder.settings
        if bridge.first_layers is not None:
            # One operation does graph layers and a linear W_p; the first layers of an MLP stand between the two.
            layered = kernels.gated_graph_layers(nodes, batch.sessions.graph, layer(), settings.layers, settings.edges)
            return prompts.vectors(model, projection, bridge.enter(torch.cat([layered.float(), sessions])))
        return prompts.vectors_of_graph(
            model, projection, nodes, batch.sessions.graph, layer(), settings.layers, settings.edges, sessions
        )

    def _candidate_vectors(self, batch: AuxiliaryBatch) -> Tensor:
        """x_c of the candidates (u_c where W_p is an MLP), float [B, C, d]."""
        vectors = kernels.item_rows(self.backbone.item_table, batch.candidates.flatten())
        return self.bridge.enter(vectors.float()).view(*batch.candidates.shape, -1)


def _softmax_loss(queries: Tensor, rows: Tensor, targets: Tensor, candidates: Tensor | None, scale: Tensor | float) -> Tensor:
    """Cross-entropy over the candidates of each query, over the whole catalogue where there are none."""
    if candidates is None:
        return kernels.catalogue_cross_entropy(queries, rows, targets, scale)
    return candidate_cross_entropy(queries, rows, candidates, scale)

"""Operations on ragged session graphs and on the catalogue: functions, not a framework. Stands on torch alone."""

from kernels.attention_readout import ReadoutWeights, attention_readout
from kernels.catalogue_cross_entropy import catalogue_cross_entropy
from kernels.gated_graph import (
    GatedGraphWeights,
    gated_graph_layers,
    gated_graph_project_into,
    gated_graph_project_pooled,
)
from kernels.item_rows import item_rows
from kernels.score_topk import RaggedItems, RaggedScores, score_topk
from kernels.session_attention import SessionAttentionWeights, session_attention
from kernels.session_graph import SessionGraph, build_session_graph
from kernels.target_rank import target_rank

__all__ = [
    "GatedGraphWeights",
    "RaggedItems",
    "RaggedScores",
    "ReadoutWeights",
    "SessionAttentionWeights",
    "SessionGraph",
    "attention_readout",
    "build_session_graph",
    "catalogue_cross_entropy",
    "gated_graph_layers",
    "gated_graph_project_into",
    "gated_graph_project_pooled",
    "item_rows",
    "score_topk",
    "session_attention",
    "target_rank",
]

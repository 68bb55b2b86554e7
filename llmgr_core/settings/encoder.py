"""Settings of section [encoder]."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from llmgr_core.settings.section import Section


class EncoderSettings(Section):
    """Section [encoder]: the graph network that turns a session into z_s, and how z_s is compared with items.

    Attributes:
        name: "gcsan" (gated graph layers, self-attention over the clicks) or "srgnn" (gated graph layers, attention readout).
        dimension: d, length of item and session vectors.
        layers: L, gated graph layers.
        edges: "multiplicity" weighs an edge by how often it was clicked; "binary" is SR-GNN's own 0/1.
        attention_layers: self-attention blocks (GC-SAN).
        attention_heads: heads of each block (GC-SAN); divides ``dimension``.
        attention_share: w of z_s = w * attended + (1 - w) * last click (GC-SAN).
        positions: add a learned vector for "how many clicks before the last" to each click.
        dropout: share of node-vector elements dropped while training.
        logits: "cosine" compares directions, times ``scale``; "dot" is the plain inner product.
        scale: sharpness of the cosine logits (NISER's sigma).
        learn_scale: let training move ``scale``.
        max_clicks: clicks encoded; earlier ones of a longer session are left out.
    """

    name: Literal["gcsan", "srgnn"] = "gcsan"
    dimension: int = Field(default=64, ge=4, le=1024)
    layers: int = Field(default=1, ge=0, le=8)
    edges: Literal["multiplicity", "binary"] = "multiplicity"
    attention_layers: int = Field(default=1, ge=1, le=8)
    attention_heads: int = Field(default=1, ge=1, le=64)
    attention_share: float = Field(default=0.6, ge=0.0, le=1.0)
    positions: bool = True
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    logits: Literal["cosine", "dot"] = "cosine"
    scale: float = Field(default=16.0, gt=0.0, le=1000.0)
    learn_scale: bool = False
    max_clicks: int = Field(default=20, ge=1, le=1000)

    @model_validator(mode="after")
    def _heads_divide_dimension(self) -> EncoderSettings:
        if self.dimension % self.attention_heads:
            raise ValueError(f"attention_heads={self.attention_heads} does not divide dimension={self.dimension}")
        return self

"""Settings of section [encoder]."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from llmgr_core.settings.section import Section

EncoderName = Literal["gcsan", "srgnn", "niser", "gru4rec", "stamp", "narm", "sasrec", "bsarec", "fpmc", "caser", "hcgr"]
# What shapes some encoders alone: written down, in manifests too, only for them.
OWN_SETTINGS: dict[str, frozenset[str]] = {
    "bsarec": frozenset({"filter_share", "frequencies"}),
    "caser": frozenset({"window", "horizontal_filters", "vertical_filters"}),
    "hcgr": frozenset({"margin", "contrast"}),
}


class EncoderSettings(Section):
    """Section [encoder]: the network that turns a session into z_s, and how z_s is compared with items.

    Attributes:
        name: "gcsan" (gated graph layers, self-attention over the clicks), "srgnn" (gated graph layers, attention readout),
            "niser" (srgnn with normalised vectors and positions), "gru4rec", "stamp", "narm", "sasrec", "bsarec", "fpmc",
            "caser" or "hcgr"; docs/pretraining.md has a line on each.
        dimension: d, length of item and session vectors.
        layers: L, gated graph layers.
        edges: "multiplicity" weighs an edge by how often it was clicked; "binary" is SR-GNN's own 0/1.
        attention_layers: self-attention blocks (GC-SAN, SASRec, BSARec).
        attention_heads: heads of each block (GC-SAN, SASRec, BSARec); divides ``dimension``.
        attention_share: w of z_s = w * attended + (1 - w) * last click (GC-SAN).
        positions: add a learned vector for "how many clicks before the last" to each click.
        dropout: share of node-vector elements dropped while training.
        logits: "cosine" compares directions, times ``scale``; "dot" is the plain inner product; "lorentz" compares by distance
            in hyperbolic space, times ``scale``: what HCGR takes unless told otherwise.
        scale: sharpness of the cosine and lorentz logits (NISER's sigma).
        learn_scale: let training move ``scale``.
        max_clicks: clicks encoded; earlier ones of a longer session are left out.
        filter_share: alpha of BSARec, the share of the frequency filter beside self-attention.
        frequencies: c of BSARec, low frequencies that its filter passes unscaled.
        window: L of Caser, last clicks its filters see.
        horizontal_filters: filters of each height 1..L (Caser).
        vertical_filters: filters over the L clicks, one weight a click (Caser).
        margin: of HCGR's contrastive ranking loss, a hyperbolic distance.
        contrast: weight of that loss beside the cross-entropy (HCGR).
    """

    name: EncoderName = "gcsan"
    dimension: int = Field(default=64, ge=4, le=1024)
    layers: int = Field(default=1, ge=0, le=8)
    edges: Literal["multiplicity", "binary"] = "multiplicity"
    attention_layers: int = Field(default=1, ge=1, le=8)
    attention_heads: int = Field(default=1, ge=1, le=64)
    attention_share: float = Field(default=0.6, ge=0.0, le=1.0)
    positions: bool = True
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    logits: Literal["cosine", "dot", "lorentz"] = "cosine"
    scale: float = Field(default=16.0, gt=0.0, le=1000.0)
    learn_scale: bool = False
    max_clicks: int = Field(default=20, ge=1, le=1000)
    filter_share: float = Field(default=0.7, ge=0.0, le=1.0)
    frequencies: int = Field(default=5, ge=1, le=500)
    window: int = Field(default=5, ge=1, le=200)
    horizontal_filters: int = Field(default=16, ge=1, le=1024)
    vertical_filters: int = Field(default=4, ge=1, le=1024)
    margin: float = Field(default=1.0, gt=0.0, le=100.0)
    contrast: float = Field(default=0.1, ge=0.0, le=100.0)

    @model_validator(mode="before")
    @classmethod
    def _hyperbolic_scores_for_hcgr(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") == "hcgr":
            return {"logits": "lorentz", **values}
        return values

    @model_serializer(mode="wrap")
    def _without_foreign_settings(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        foreign = frozenset().union(*OWN_SETTINGS.values()) - OWN_SETTINGS.get(self.name, frozenset())
        return {key: value for key, value in dump(self).items() if key not in foreign}

    @model_validator(mode="after")
    def _heads_divide_dimension(self) -> EncoderSettings:
        if self.dimension % self.attention_heads:
            raise ValueError(f"attention_heads={self.attention_heads} does not divide dimension={self.dimension}")
        return self

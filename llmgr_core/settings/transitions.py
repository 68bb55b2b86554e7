"""Settings of section [transitions]."""

from __future__ import annotations

from pydantic import Field

from llmgr_core.settings.section import Section


class TransitionSettings(Section):
    """Section [transitions]: the item-to-item graph of all training sessions. Defaults were chosen on validation examples.

    Attributes:
        window: clicks a transition may span.
        distance_decay: a transition over k clicks weighs ``distance_decay ** (k - 1)``.
        backward: weight of the reversed transition (later item to earlier item), next to 1 for the forward one.
        source_damping: a transition is divided by (clicks of its source item) to this power.
        target_damping: and by (clicks of its target item) to this power.
        click_decay: the k-th click from the end of a prefix counts ``click_decay ** (k - 1)``.
        clicks: last clicks of a prefix that are looked up.
        neighbours: heaviest neighbours of each item that serving keeps; 0 keeps all.
        text_neighbours: nearest items by text that an item shares transitions with, in rankers with text; 0 shares none.
        text_targets: alpha, weight of what leads to an item's text neighbours, next to 1 for what leads to itself.
        text_sources: beta, weight of what an item's text neighbours lead to.
        text_sharpness: a neighbour counts by its cosine to this power.
        text_halving: h, an item with so many training clicks borrows half of what one without any would.
        text_kept: heaviest neighbours of each item that serving keeps after sharing.
        text_new_targets: an item without a training click has so many times the mean transition of its text neighbours.
        text_new_sources: and leads where they lead, this many times as strongly.
        text_new_rank: directions of the whitened text vectors that decide who its neighbours are.
    """

    window: int = Field(default=20, ge=1, le=1000)
    distance_decay: float = Field(default=0.8, gt=0.0, le=1.0)
    backward: float = Field(default=0.2, ge=0.0, le=1.0)
    source_damping: float = Field(default=0.4, ge=0.0, le=2.0)
    target_damping: float = Field(default=0.05, ge=0.0, le=2.0)
    click_decay: float = Field(default=0.5, gt=0.0, le=1.0)
    clicks: int = Field(default=10, ge=1, le=1000)
    neighbours: int = Field(default=100, ge=0)
    text_neighbours: int = Field(default=20, ge=0, le=1000)
    text_targets: float = Field(default=5.6, ge=0.0)
    text_sources: float = Field(default=1.4, ge=0.0)
    text_sharpness: float = Field(default=4.0, ge=0.0)
    text_halving: float = Field(default=15.0, gt=0.0)
    text_kept: int = Field(default=200, ge=1)
    text_new_targets: float = Field(default=1.0, ge=0.0)
    text_new_sources: float = Field(default=1.0, ge=0.0)
    text_new_rank: int = Field(default=64, ge=1, le=4096)

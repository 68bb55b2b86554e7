"""Settings of section [distil.controls]."""

from __future__ import annotations

from typing import Literal

from llmgr_core.settings.section import Section


class ControlSettings(Section):
    """Section [distil.controls]: what an experiment takes away from the ranker or spoils, to see what it was worth.

    A ranker with any of these set can be evaluated, but `llmgr export` refuses it.

    Attributes:
        text_vectors: "own"; "permuted" deals each text vector out to another item at random; "random" draws a random direction
            for each item, as long as its own vector. Neither tells anything about the item any more.
        ids: False ranks by text alone: no item has an ID vector.
        history: "shuffled" puts the clicks of every prefix in a random order, in training and wherever the ranker is measured;
            the item to predict stays the one that followed. The transition graph stays that of the true order, and so do the
            prefixes that the teacher ranked.
    """

    text_vectors: Literal["own", "permuted", "random"] = "own"
    ids: bool = True
    history: Literal["own", "shuffled"] = "own"

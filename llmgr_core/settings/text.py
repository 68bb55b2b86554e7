"""Settings of section [text]."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from llmgr_core.settings.section import Section


class TextSettings(Section):
    """Section [text]: what of an item's text reaches the language model.

    Attributes:
        max_tokens: budget of one item's text, cut at a sentence end. Counted without a tokenizer: up to 8 letters, up to 3
            digits, one CJK character or one other sign make a token.
        attributes: at most so many named attributes stand in the text, by name.
        drop_phrases: drop sentences with known marketing phrases ("100% satisfaction guaranteed").
        repeated_items: a description sentence that stands in this many items or more is dropped everywhere ...
        repeated_share: ... if that is also this share of the catalogue or more. A share of 1 keeps every sentence.
        brands: "anonymised" puts a made-up name in the place of every brand, for experiments: what does the language model know
            of brands already?
    """

    max_tokens: int = Field(default=128, ge=16, le=4096)
    attributes: int = Field(default=12, ge=0, le=100)
    drop_phrases: bool = True
    repeated_items: int = Field(default=10, ge=2)
    repeated_share: float = Field(default=0.001, ge=0.0, le=1.0)
    brands: Literal["own", "anonymised"] = "own"

    def shaping(self) -> dict[str, Any]:
        """What decides the texts; a control that is not used is left out: they are what they were before there was it."""
        return self.model_dump(exclude={"brands"} if self.brands == "own" else None)

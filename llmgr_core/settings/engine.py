"""Settings of section [engine]."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmgr_core.settings.section import Section


class EngineSettings(Section):
    """Section [engine]: the language model that reads item text.

    Attributes:
        model: "minilm", "smollm2-135m" (fetched by `llmgr model NAME`), a local directory, or a Hugging Face id.
        revision: branch, tag or commit of a Hugging Face id; "" is its main branch.
        dtype: number format of the frozen weights; adapters, W_p and heads always stay fp32.
        device: "auto" takes a GPU where there is one; otherwise a torch device such as "cpu" or "cuda:1".
        pooling: how a text's hidden states become one vector. "auto" is the mean over its tokens, for encoders and causal
            models alike; "last" is the last token.
        max_tokens: an item's text is cut to this many tokens, special tokens and prompt words included.
        batch_tokens: padded tokens in one forward pass; more is faster until memory runs out.
    """

    model: str = Field(default="minilm", min_length=1)
    revision: str = ""
    dtype: Literal["fp32", "bf16"] = "fp32"
    device: str = Field(default="auto", min_length=1)
    pooling: Literal["auto", "mean", "last"] = "auto"
    max_tokens: int = Field(default=128, ge=8, le=8192)
    batch_tokens: int = Field(default=4096, ge=64, le=1_048_576)

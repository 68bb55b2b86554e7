"""A transformers model that is fed vectors instead of token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from llmgr_core.errors import ArtefactError, InputError
from llmgr_core.import_names import keep_transformers_off_kernels

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class LanguageModel(nn.Module):
    """H = LLM(E): input vectors [B, T, D] to last hidden states [B, T, D], for causal models and encoders.

    Attributes:
        transformer: the transformers model without its language-model head, perhaps with a PEFT adapter around it.
        tokenizer: its fast tokenizer.
        hidden_size: D.
        is_causal: True where a position sees only what stands before it.
        max_positions: longest sequence the model takes.
        opening, closing: special tokens that the tokenizer puts before and after a text.
    """

    def __init__(self, transformer: Any, tokenizer: Any, is_causal: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.is_causal = is_causal
        self.hidden_size = int(transformer.get_input_embeddings().weight.shape[1])
        limit = int(getattr(transformer.config, "max_position_embeddings", 0) or 1_000_000)
        # RoBERTa-like models count positions from their padding id.
        self.max_positions = limit - 2 if limit in (514, 1026) else limit
        self.opening, self.closing = _special_tokens(tokenizer)

    @property
    def device(self) -> torch.device:
        weight: torch.Tensor = self.transformer.get_input_embeddings().weight
        return weight.device

    def tokens(self, texts: list[str], limit: int) -> list[list[int]]:
        """Token ids of each text without special tokens, cut to ``limit``."""
        if not texts:
            return []
        # No token needs more characters than this on average, and a megabyte of text should not be tokenized to be dropped.
        cut = [text[: 64 * limit] for text in texts]
        found = self.tokenizer(cut, add_special_tokens=False, truncation=True, max_length=limit, return_attention_mask=False)
        ids: list[list[int]] = found["input_ids"]
        return ids

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Token vectors e_t of ids int64 [...]: [..., D] in the model's dtype."""
        vectors: torch.Tensor = self.transformer.get_input_embeddings()(ids)
        return vectors

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states.

        Args:
            vectors: [B, T, D] input vectors; rows are padded on the right.
            mask: bool [B, T], True on real positions.

        Returns:
            [B, T, D] in the model's dtype; what stands on padding means nothing.
        """
        weight_type = self.transformer.get_input_embeddings().weight.dtype
        # Cost without use: a cache of keys and values that no next token will read.
        extra: dict[str, Any] = {"use_cache": False} if self.is_causal else {}
        if self.is_causal:
            extra["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp_min(0)
        output = self.transformer(inputs_embeds=vectors.to(weight_type), attention_mask=mask.long(), **extra)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden


def load_language_model(directory: Path, dtype: Literal["fp32", "bf16"], device: torch.device) -> LanguageModel:
    """Load weights and tokenizer from a directory: safetensors or GGUF only, never code or pickles from it.

    Raises:
        InputError: transformers does not know the architecture, or it is an encoder-decoder.
        ArtefactError: files are missing or damaged.
    """
    keep_transformers_off_kernels()
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    # Its report on the language-model head that is left out, as it should be, reads like a fault.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    if not any(directory.glob("*.safetensors")):
        packed = sorted(directory.glob("*.gguf"))
        if not packed:
            raise ArtefactError(
                f"{directory} holds no .safetensors (or .gguf) weights",
                "convert the model to safetensors; pickled weights are never loaded",
            )
        source["gguf_file"] = packed[0].name
    try:
        config = AutoConfig.from_pretrained(directory, **source)
        if getattr(config, "is_encoder_decoder", False):
            raise InputError(f"{directory} is an encoder-decoder ({config.model_type})", "take a causal model or an encoder")
        tokenizer = AutoTokenizer.from_pretrained(directory, use_fast=True, **source)
        loading = source if "gguf_file" in source else {**source, "use_safetensors": True}
        transformer = AutoModel.from_pretrained(directory, dtype=TORCH_DTYPES[dtype], **loading)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtefactError(f"the model in {directory} cannot be loaded: {reason}", "fetch or convert it again") from error
    # A pooling layer on top of an encoder is never used, and unused weights only cost memory and optimizer state.
    if getattr(transformer, "pooler", None) is not None:
        transformer.pooler = None
    return LanguageModel(transformer.to(device).eval(), tokenizer, _is_causal(config))


def _is_causal(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

    # Encoders such as BERT have a causal variant too; none of the causal models has a masked one.
    known_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    return not known_encoder and config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text, found by trying."""
    plain = tokenizer("item", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("item", add_special_tokens=True)["input_ids"]
    for start in range(len(dressed) - len(plain) + 1):
        if dressed[start : start + len(plain)] == plain:
            return dressed[:start], dressed[start + len(plain) :]
    return [], []

"""A language model of a few thousand weights, saved and loaded by the real classes."""

from __future__ import annotations

import string
from pathlib import Path

HIDDEN_SIZE = 16


def write_tiny_language_model(directory: Path) -> None:
    """An encoder with random weights whose tokens are single letters and digits."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    characters = string.ascii_lowercase + string.digits + ".,:-"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{one}" for one in characters)]
    directory.mkdir(parents=True)
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab_file=str(directory / "vocab.txt"), do_lower_case=True).save_pretrained(directory)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    BertModel(config).eval().save_pretrained(directory, safe_serialization=True)

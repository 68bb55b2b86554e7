"""Tiny random language models with real tokenizers, written as a user's local directories would be."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [
    *("red", "blue", "green", "small", "large", "soft", "hard", "product", "description"),
    *("lipstick", "cream", "brush", "comb", "soap", "towel", "mirror", "powder", "gel", "oil", "wax", "lotion"),
    *("session", "graph", "items", "clicks", "to", "last", "clicked", "before", "that", "next", "item"),
    *("answer", "which", "of", "these", "is", "described"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def _tokenizer(with_special_tokens: bool) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS, ".", ",", ":", "?"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if with_special_tokens:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def write_tiny_encoder(directory: Path, seed: int = 0) -> Path:
    """A two-layer BERT, D = 32."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS) + 4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(directory)
    _tokenizer(with_special_tokens=True).save_pretrained(directory)
    return directory


def write_tiny_causal(directory: Path, seed: int = 0) -> Path:
    """A two-layer Llama with grouped queries, D = 32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS) + 4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    _tokenizer(with_special_tokens=False).save_pretrained(directory)
    return directory

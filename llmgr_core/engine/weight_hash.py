"""Hash of a model's files: which weights exactly."""

from __future__ import annotations

import re
from pathlib import Path

from llmgr_core.artefacts.manifest import hash_file, hash_value
from llmgr_core.errors import ArtefactError

_BLOB_NAME = re.compile(r"[0-9a-f]{64}")
_WEIGHTS = (".safetensors", ".gguf")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt")


def model_files(directory: Path) -> list[Path]:
    """The files that decide what a model computes: weights, configuration, tokenizer; in name order."""
    return sorted(
        path for path in directory.iterdir() if path.suffix in _WEIGHTS or path.name == "config.json" or path.name in _TOKENIZER
    )


def hash_model(directory: Path) -> str:
    """SHA-256 (hex) over names and contents of the files that decide what a model computes.

    In a Hugging Face cache a large file is a link to a blob named by its own SHA-256, which is then taken as it is: hashing the
    13 GB of a LLaMA2-7B again at each start would take longer than loading it.

    Raises:
        ArtefactError: the directory holds no safetensors or GGUF weights.
    """
    files = model_files(directory)
    if not any(path.suffix in _WEIGHTS for path in files):
        raise ArtefactError(
            f"{directory} holds no .safetensors (or .gguf) weights",
            "convert the model to safetensors; pickled weights are never loaded",
        )
    return hash_value({path.name: _content_hash(path) for path in files})


def _content_hash(path: Path) -> str:
    blob = path.resolve().name
    return blob if path.is_symlink() and _BLOB_NAME.fullmatch(blob) else hash_file(path)

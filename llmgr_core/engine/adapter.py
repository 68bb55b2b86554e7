"""LoRA adapters, in PEFT's own files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmgr_core.engine.language_model import LanguageModel
from llmgr_core.errors import ArtefactError, InputError

ADAPTER_DIRECTORY = "adapter"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "query", "key", "value", "qkv_proj", "c_attn", "query_key_value", "Wqkv")


def attach_adapter(model: LanguageModel, directory: Path, *, trainable: bool = False) -> None:
    """Put a saved adapter around the model's linear layers; merged into them when it will not be trained and they are fp32.

    Raises:
        ArtefactError: no adapter there, or one made for another model.
    """
    from peft import PeftModel

    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        if not (directory / name).is_file():
            raise ArtefactError(f"{directory} holds no {name}", "an adapter is a PEFT directory with safetensors weights")
    try:
        json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        with _without_future_warnings():
            adapted = PeftModel.from_pretrained(model.transformer, str(directory), is_trainable=trainable)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ArtefactError(
            f"the adapter in {directory} does not fit the model: {str(error).splitlines()[0]}",
            "load it with the base model it was trained on",
        ) from error
    # Merged into bf16 weights, a mild update would be rounded away.
    merge = not trainable and next(model.transformer.parameters()).dtype == torch.float32
    model.transformer = adapted.merge_and_unload() if merge else adapted


def add_adapter(model: LanguageModel, rank: int, alpha: int, dropout: float, targets: str) -> None:
    """Start a LoRA adapter: W + (alpha / rank) B A on the chosen linear layers, B = 0 (Hu et al., 2021).

    Args:
        targets: "attention", "all-linear", or layer names divided by commas.

    Raises:
        InputError: no layer of the model has such a name.
    """
    from peft import LoraConfig, get_peft_model

    names: str | list[str] = targets
    if targets != "all-linear":
        wanted: Sequence[str] = _ATTENTION if targets == "attention" else [name.strip() for name in targets.split(",")]
        linear = {name.rsplit(".", 1)[-1] for name, layer in model.transformer.named_modules() if isinstance(layer, nn.Linear)}
        names = sorted(linear & set(wanted))
        if not names:
            raise InputError(
                f"tune.lora_targets {targets!r} names no linear layer of the model", f"it has: {', '.join(sorted(linear))}"
            )
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, bias="none")
    with _without_future_warnings():
        model.transformer = get_peft_model(model.transformer, config)


def save_adapter(model: LanguageModel, directory: Path, base_model: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json, which PEFT and this project load again.

    Args:
        base_model: name of the base model for the configuration file, which would otherwise hold a path of this machine.
    """
    transformer: Any = model.transformer
    transformer.save_pretrained(str(directory), safe_serialization=True)
    # PEFT also writes a model card with nothing but placeholders.
    (directory / "README.md").unlink(missing_ok=True)
    path = directory / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_model
    # PEFT keeps them as a set, whose order is another one in each process.
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _without_future_warnings() -> Iterator[None]:
    """PEFT asks transformers by a name that is to go; whoever tunes a model cannot change that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield

"""The tuned artefact: adapter, bridge and what thawed of the backbone, as safetensors with the hashes they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llmgr_core.artefacts import Artefact
from llmgr_core.artefacts.manifest import hash_file
from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.engine.adapter import ADAPTER_DIRECTORY, ADAPTER_WEIGHTS, save_adapter
from llmgr_core.engine.bridge import Bridge
from llmgr_core.engine.engine_reference import EngineReference
from llmgr_core.engine.hybrid_model import HybridModel
from llmgr_core.engine.semantic_engine import SemanticEngine
from llmgr_core.errors import ArtefactError
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.settings.tune import TuneSettings

BRIDGE_NAME = "bridge.safetensors"
_BRIDGE, _ENCODER, _ITEM_TABLE, _TEXT_ROWS = "bridge.", "encoder.", "item_table", "text_rows"


def save_tuned(directory: Path, model: HybridModel, engine: SemanticEngine, settings: EngineSettings) -> dict[str, object]:
    """Write adapter/, engine.json and bridge.safetensors (W_p, readout, heads, text rows, what thawed of the backbone).

    PEFT's own file holds adapter layers only; whatever else was trained would be lost without a word.

    Args:
        settings: section [engine] as the user wrote it; the engine's own may name the device of one process.

    Returns:
        Facts for the manifest.
    """
    (directory / ADAPTER_DIRECTORY).mkdir(parents=True, exist_ok=True)
    save_adapter(model.language_model, directory / ADAPTER_DIRECTORY, settings.model)
    adapter_hash = hash_file(directory / ADAPTER_DIRECTORY / ADAPTER_WEIGHTS)
    EngineReference(settings, engine.base_hash, adapter_hash, engine.hidden_size).write(directory)
    tensors = {_BRIDGE + name: tensor for name, tensor in model.bridge.state_dict().items()}
    if model.settings.thaw != "frozen":
        tensors |= {_ENCODER + name: tensor for name, tensor in model.backbone.encoder.state_dict().items()}
    if model.settings.thaw == "gnn+ids":
        tensors[_ITEM_TABLE] = model.backbone.item_table
    if model.settings.text_rows:
        tensors[_TEXT_ROWS] = model.text_rows
    details: dict[str, object] = {
        "base_model": settings.model,
        "base_hash": engine.base_hash,
        "adapter_hash": adapter_hash,
        "hidden_size": engine.hidden_size,
        "dimension": model.backbone.settings.dimension,
        "prompt_version": EngineReference.prompt_version,
        "num_items": model.backbone.num_items,
    }
    stored = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    # Under one key: safetensors writes several in a random order, and the same model would have another digest each time.
    save_file(stored, directory / BRIDGE_NAME, metadata={"facts": json.dumps(details, sort_keys=True)})
    return details


def load_tuned(
    tuned: Artefact, dataset: Dataset, backbone: Artefact, host: EngineSettings | None = None
) -> tuple[HybridModel, SemanticEngine]:
    """The model that ``save_tuned`` wrote, in evaluation mode: the same logits as before.

    Raises:
        ArtefactError: the artefacts do not descend from one another, another base model, or a damaged file.
    """
    tuned.require_same_lineage(dataset.artefact)
    tuned.require_same_lineage(backbone)
    engine = SemanticEngine.from_tuned(tuned, host)
    settings = TuneSettings.model_validate(tuned.manifest.settings["tune"])
    id_model = Backbone.load(backbone)
    bridge = Bridge(engine.hidden_size, id_model.settings.dimension, settings)
    try:
        tensors = load_file(tuned.file(BRIDGE_NAME))
        bridge.load_state_dict(_below(tensors, _BRIDGE))
        if settings.thaw != "frozen":
            id_model.encoder.load_state_dict(_below(tensors, _ENCODER))
        if settings.thaw == "gnn+ids":
            id_model.item_table.data.copy_(tensors[_ITEM_TABLE])
        text_rows = tensors[_TEXT_ROWS] if settings.text_rows else None
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise ArtefactError(f"{tuned.path / BRIDGE_NAME} cannot be used: {error}", "run `llmgr tune` again") from error
    known = torch.from_numpy(dataset.train_counts > 0)
    model = HybridModel(engine, id_model, bridge, settings, known=known, text_rows=text_rows)
    model.eval().requires_grad_(False)
    model.backbone.encoder.freeze()
    return model, engine


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

"""What each setting shapes in a ranker: its trained weights, what is fitted to them afterwards, or nothing.

`llmgr distil` trains anew only where a setting of the first kind has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmgr_core.settings.distil import DistilSettings
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.settings.transitions import TransitionSettings

# Settings that change how a run goes on, not what it arrives at.
INCIDENTAL = frozenset({"checkpoint_minutes", "device"})
INCIDENTAL_ENGINE = frozenset({"device", "batch_tokens"})

# What training reads.
TRAINED_ENCODER = frozenset(
    {"name", "dimension", "layers", "edges", "attention_layers", "attention_heads", "attention_share", "positions", "dropout"}
    | {"logits", "scale", "learn_scale", "max_clicks", "filter_share", "frequencies", "window", "horizontal_filters"}
    | {"vertical_filters", "margin", "contrast"}
)
TRAINED_CONTROLS = frozenset({"text_vectors", "ids", "history"})
TRAINED = frozenset(
    {
        "epochs",
        "epoch_factor",
        "patience",
        "batch_size",
        "learning_rate",
        "warmup_steps",
        "weight_decay",
        "clip_norm",
        "validation_examples",
    }
    | {"start", "encoder", "head_hidden", "text_below", "text_rank", "whitening", "text_dropout", "id_dropout", "controls"}
    | {"teacher", "teacher_model", "teacher_examples", "teacher_top", "teacher_weight", "teacher_temperature", "row_pull"}
)

# What is read once the weights stand: the transition graph, its weight, how much IDs count, the temperature.
FITTED = frozenset({"heldout_loss", "id_prior"})
FITTED_TRANSITIONS = frozenset(
    {"window", "distance_decay", "backward", "source_damping", "target_damping", "click_decay", "clicks", "neighbours"}
    | {"text_neighbours", "text_targets", "text_sources", "text_sharpness", "text_halving", "text_kept"}
    | {"text_new_targets", "text_new_sources", "text_new_rank"}
)

# What means nothing to a ranker without text, and to one that is no student of the tuned language model.
OF_TEXT = frozenset({"text_below", "text_rank", "whitening", "text_dropout", "id_dropout", "id_prior"})
OF_TEACHER = frozenset(
    {"teacher", "teacher_model", "teacher_examples", "teacher_top", "teacher_weight", "teacher_temperature", "row_pull"}
)
TEXT_TRANSITIONS = frozenset(name for name in FITTED_TRANSITIONS if name.startswith("text_"))


def training_settings(made: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings that a ranker's manifest names those that its weights depend on; what it does not name has its default.

    What means nothing to the ranker's variant is left out.

    Raises:
        KeyError, ValidationError: settings of another program, or of another version of this one.
    """
    unused = (OF_TEXT if made["variant"] == "id-only" else frozenset()) | (
        OF_TEACHER if made["variant"] != "fused" else frozenset()
    )
    shapes: dict[str, Any] = dict.fromkeys(TRAINED - unused, True)
    shapes["encoder"], shapes["controls"] = set(TRAINED_ENCODER), set(TRAINED_CONTROLS)
    engine = EngineSettings.model_validate(made["engine"]) if "engine" in made else None
    return {
        "seed": made["seed"],
        "variant": made["variant"],
        "distil": DistilSettings.model_validate(made["distil"]).model_dump(include=shapes),
        "engine": engine and engine.model_dump(exclude=set(INCIDENTAL_ENGINE)),
    }


def settings_without_text(made: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a ranker without text from end to end: two with the same are one, whatever is set for text.

    Raises:
        KeyError, ValidationError: see ``training_settings``.
    """
    fitted = DistilSettings.model_validate(made["distil"]).model_dump(include=set(FITTED - OF_TEXT))
    transitions = TransitionSettings.model_validate(made["transitions"]).model_dump(exclude=set(TEXT_TRANSITIONS))
    return {**training_settings(made), "fitted": fitted, "transitions": transitions}

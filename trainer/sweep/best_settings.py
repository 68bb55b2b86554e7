"""The best trial's settings as a TOML file that explains itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.pretrain import PretrainSettings
from trainer.sweep.records import TrialRecord


def best_settings(
    model: str,
    best: TrialRecord,
    budget: Mapping[str, Any],
    space: Mapping[str, str],
    encoder: EncoderSettings,
    pretrain: PretrainSettings,
    seed: int,
) -> str:
    """Text for ``--config``: all that shapes the backbone, each searched key with its bounds.

    Args:
        model: name of the encoder.
        best: the trial.
        budget: of the sweep.
        space: bounds by dotted key.
        encoder, pretrain, seed: of that trial.
    """
    lines = [
        f"# Best of {budget['trials']} trials of {model}: validation NDCG@20 {best.value:.5f} (seen items masked) "
        f"after epoch {best.best_epoch}, trial {best.number}.",
        f"#   llmgr pretrain --config THIS_FILE --run RUN      # found by `llmgr tune-backbone --model {model}`",
        "",
        f"seed = {seed}",
    ]
    for section, values in (("encoder", encoder.model_dump()), ("pretrain", shaping(pretrain))):
        lines += ["", f"[{section}]"]
        for key, value in values.items():
            dotted = f"{section}.{key}"
            bounds = space[dotted] if dotted in best.settings else "not searched"
            lines.append(f"{f'{key} = {json.dumps(value)}':<32} # {bounds}")
    return "\n".join(lines) + "\n"


def shaping(pretrain: PretrainSettings) -> dict[str, Any]:
    """Training settings that determine the backbone."""
    from trainer.commands.pretrain import INCIDENTAL

    return pretrain.model_dump(exclude=INCIDENTAL)

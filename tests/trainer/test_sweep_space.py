"""Search spaces: what is searched matters to its encoder, starts from what was given, and is drawn repeatably."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
import torch

from llmgr_core.encoders import Backbone
from llmgr_core.errors import SettingsError
from llmgr_core.graphs import ExampleLoader
from llmgr_core.sessions import Examples, Sessions
from llmgr_core.settings.encoder import EncoderSettings
from llmgr_core.settings.pretrain import PretrainSettings
from trainer.sweep.sampler import ResumableTPE
from trainer.sweep.space import SPACES, Dimension, SearchSpace, settings_by_key

NUM_ITEMS = 30


def start_of(model: str, **given: Any) -> dict[str, Any]:
    encoder = EncoderSettings(name=model, dimension=8, **given)
    fields = {key: getattr(encoder, key) for key in EncoderSettings.model_fields}
    return settings_by_key({"encoder": fields, "pretrain": PretrainSettings().model_dump()})


def loss(settings: EncoderSettings) -> float:
    """Of a fresh backbone in training mode, over sessions that come back to their items and outlast every ``max_clicks``."""
    generator = np.random.default_rng(3)
    sessions = [generator.integers(0, NUM_ITEMS, size=60).tolist() for _ in range(4)]
    examples = Examples.every_prefix(Sessions.from_lists(sessions))
    batch, targets, _ = next(iter(ExampleLoader(examples, 64, settings.max_clicks, seed=1)))
    torch.manual_seed(5)
    return Backbone(NUM_ITEMS, settings).train().loss(batch, targets).item()


@pytest.mark.parametrize("model", SPACES)
def test_every_searched_setting_of_an_encoder_changes_its_loss(model: str) -> None:
    space = SearchSpace.of(model, start_of(model), 8)
    for one in space.dimensions:
        section, _, key = one.key.partition(".")
        if section == "encoder":
            ends = (one.choices[0], one.choices[-1]) if one.choices else (one.low, one.high)
            found = {loss(EncoderSettings.model_validate({"name": model, "dimension": 8, key: end})) for end in ends}
            assert len(found) == 2, f"{model} does not read {one.key}"


@pytest.mark.parametrize("model", SPACES)
def test_the_first_trial_is_what_was_given_and_all_others_are_valid(model: str) -> None:
    start = start_of(model)
    space = SearchSpace.of(model, start, 8)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=ResumableTPE(1, 10))
    study.enqueue_trial(space.first())
    drawn = [space.suggest(study.ask()) for _ in range(20)]
    assert drawn[0] == space.first() == {key: start[key] for key in drawn[0]}
    for values in drawn:
        encoder = {key.partition(".")[2]: value for key, value in values.items() if key.startswith("encoder.")}
        EncoderSettings.model_validate({"name": model, "dimension": 8, **encoder})
        assert ("encoder.scale" in values) == (values.get("encoder.logits", "cosine") == "cosine")


def test_the_first_trial_is_what_was_given_to_the_last_digit() -> None:
    given = {"pretrain.learning_rate": 0.00123456, "pretrain.weight_decay": 1 / 3, "encoder.dropout": 0.123456}
    space = SearchSpace.of("sasrec", start_of("sasrec") | given, 8)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=ResumableTPE(1, 10))
    study.enqueue_trial(space.first())
    first, second = (space.suggest(study.ask()) for _ in range(2))
    assert {key: first[key] for key in given} == given
    assert all(second[key] == float(f"{second[key]:.3g}") for key in given)


def test_what_was_given_widens_the_bounds_and_heads_divide_the_dimension() -> None:
    start = start_of("sasrec", dropout=0.9, max_clicks=7, logits="dot") | {"pretrain.learning_rate": 0.05}
    described = SearchSpace.of("sasrec", start, 6).describe()
    assert described["encoder.dropout"] == "0 to 0.9"
    assert described["encoder.max_clicks"] == "7 | 10 | 20 | 50"
    assert described["pretrain.learning_rate"] == "0.0005 to 0.05, logarithmic"
    assert described["encoder.attention_heads"] == "1 | 2"
    assert "encoder.scale" not in SearchSpace.of("sasrec", start, 6).first()
    with pytest.raises(SettingsError, match=r"pretrain\.weight_decay=0"):
        SearchSpace.of("sasrec", start | {"pretrain.weight_decay": 0.0}, 6)


def test_draws_depend_on_seed_study_and_number_and_on_no_process() -> None:
    dimensions = (Dimension("x", 0.0, 1.0), Dimension("y", choices=("a", "b", "c")), Dimension("n", 1, 100))
    space = SearchSpace(dimensions, {"x": 0.5, "y": "a", "n": 3})
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def trials(seed: int, forget_after: int) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=ResumableTPE(seed, 3), direction="maximize")
        found = []
        for number in range(12):
            if number == forget_after:
                study.sampler = ResumableTPE(seed, 3)
            trial = study.ask()
            found.append(space.suggest(trial))
            study.tell(trial, -((found[-1]["x"] - 0.8) ** 2))
        return found

    assert trials(1, forget_after=2) == trials(1, forget_after=7)
    assert trials(1, forget_after=2) != trials(2, forget_after=2)
    assert len({str(one) for one in trials(1, forget_after=2)}) == 12

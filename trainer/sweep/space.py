"""What is searched for each encoder, and between which bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmgr_core.errors import SettingsError

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = float | int | str | bool


@dataclass(frozen=True)
class Dimension:
    """One searched setting: an interval or a list of choices.

    Attributes:
        key: dotted, "encoder.dropout".
        low, high: bounds of an interval, both included; integers make it one of integers.
        log: search along the logarithm.
        choices: the values, where it is no interval.
        only_with: (key, value) of an earlier setting without which this one means nothing, and is left as it was.
    """

    key: str
    low: float | int = 0
    high: float | int = 0
    log: bool = False
    choices: tuple[Value, ...] = ()
    only_with: tuple[str, Value] | None = None

    def including(self, value: Value) -> Dimension:
        """The same, widened so that the first trial can be the settings as given.

        Raises:
            SettingsError: zero has no place on a logarithmic scale.
        """
        if self.choices:
            return self if value in self.choices else replace(self, choices=(value, *self.choices))
        assert isinstance(value, float | int)
        if self.log and value <= 0:
            raise SettingsError(
                f"{self.key}={value} has no logarithm, and {self.key} is searched along one", f"start from {self.low} or more"
            )
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def suggest(self, trial: Trial) -> Value:
        """A value for this trial."""
        if self.choices:
            chosen = trial.suggest_categorical(self.key, self.choices)
            assert chosen is not None
            return chosen
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def __str__(self) -> str:
        if self.choices:
            return " | ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in self.choices)
        return f"{self.low:g} to {self.high:g}" + (", logarithmic" if self.log else "")


@dataclass(frozen=True)
class SearchSpace:
    """The searched settings of one encoder, and the values they start from.

    Attributes:
        dimensions: in the order they are drawn.
        start: value of each in the settings as given, by key.
    """

    dimensions: tuple[Dimension, ...]
    start: Mapping[str, Value]

    @classmethod
    def of(cls, model: str, start: Mapping[str, Value], dimension: int) -> SearchSpace:
        """The space of an encoder.

        Args:
            model: its name.
            start: every setting as given, by dotted key.
            dimension: d, which the number of heads divides.
        """
        heads = tuple(heads for heads in HEADS if dimension % heads == 0)
        dimensions = []
        for one in SPACES[model]:
            fitting = replace(one, choices=heads) if one.key == "encoder.attention_heads" else one
            dimensions.append(fitting.including(start[one.key]))
        return cls(tuple(dimensions), {one.key: start[one.key] for one in dimensions})

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """Values for a trial, by key; what means nothing beside the others is left out.

        Three significant digits of a real number are enough, except of the one that was given.
        """
        values: dict[str, Value] = {}
        for one in self.dimensions:
            if one.only_with is None or values[one.only_with[0]] == one.only_with[1]:
                drawn = one.suggest(trial)
                rounded = isinstance(drawn, float) and drawn != self.start[one.key]
                values[one.key] = float(f"{drawn:.3g}") if rounded else drawn
        return values

    def first(self) -> dict[str, Value]:
        """The values of the first trial, which are those given."""
        needed = {one.key: one.only_with for one in self.dimensions}
        return {
            key: value
            for key, value in self.start.items()
            if (condition := needed[key]) is None or self.start[condition[0]] == condition[1]
        }

    def describe(self) -> dict[str, str]:
        """Bounds of every searched setting, for people."""
        return {one.key: str(one) for one in self.dimensions}


HEADS = (1, 2, 4)

TRAINING = (
    Dimension("pretrain.learning_rate", 5e-4, 1e-2, log=True),
    Dimension("pretrain.weight_decay", 1e-3, 0.5, log=True),
    Dimension("encoder.dropout", 0.0, 0.6),
)
LOGITS = (
    Dimension("encoder.logits", choices=("cosine", "dot")),
    Dimension("encoder.scale", 8.0, 32.0, log=True, only_with=("encoder.logits", "cosine")),
)
LAYERS = Dimension("encoder.layers", 1, 3)
POSITIONS = Dimension("encoder.positions", choices=(True, False))
CLICKS = Dimension("encoder.max_clicks", choices=(10, 20, 50))
ATTENTION = (Dimension("encoder.attention_layers", 1, 3), Dimension("encoder.attention_heads", choices=HEADS), POSITIONS)

SPACES: dict[str, tuple[Dimension, ...]] = {
    "gcsan": (*TRAINING, *LOGITS, LAYERS, *ATTENTION, Dimension("encoder.attention_share", 0.2, 1.0)),
    "srgnn": (*TRAINING, *LOGITS, LAYERS),
    # Cosine logits are NISER's point.
    "niser": (*TRAINING, Dimension("encoder.scale", 8.0, 32.0, log=True), LAYERS, POSITIONS),
    "gru4rec": (*TRAINING, *LOGITS, CLICKS),
    "stamp": (*TRAINING, *LOGITS, CLICKS),
    "narm": (*TRAINING, *LOGITS, CLICKS),
    "sasrec": (*TRAINING, *LOGITS, *ATTENTION, CLICKS),
    "bsarec": (
        *TRAINING,
        *LOGITS,
        *ATTENTION,
        CLICKS,
        Dimension("encoder.filter_share", 0.1, 0.9),
        Dimension("encoder.frequencies", choices=(1, 3, 5, 7, 9)),
    ),
    "fpmc": (*TRAINING, *LOGITS),
    "caser": (
        *TRAINING,
        *LOGITS,
        Dimension("encoder.window", 3, 9),
        Dimension("encoder.horizontal_filters", choices=(4, 8, 16, 32)),
        Dimension("encoder.vertical_filters", choices=(1, 2, 4, 8)),
    ),
    # Distances in hyperbolic space are HCGR's.
    "hcgr": (
        *TRAINING,
        Dimension("encoder.scale", 2.0, 32.0, log=True),
        LAYERS,
        Dimension("encoder.margin", 0.1, 5.0, log=True),
        Dimension("encoder.contrast", 0.01, 1.0, log=True),
    ),
}


def settings_by_key(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Value]:
    """{"encoder": {"dropout": 0.3}} as {"encoder.dropout": 0.3}."""
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}

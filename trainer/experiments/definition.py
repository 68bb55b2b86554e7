"""An experiment as data: a TOML file with a row for everything that is compared."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

import llmgr_core
from llmgr_core.errors import InputError
from llmgr_core.settings.toml_model import read_toml

FOLDER = Path("configs/experiments")
Value = str | int | float | bool | tuple[float, ...]


class Stale(BaseModel):
    """Some items have a vector that the ranker's own language model did not make.

    Attributes:
        share: of the items with a text vector, drawn at random.
        vectors: theirs are of the "untuned" model, of an "earlier" one, or there are "none".
        set: settings of the earlier model that differ from the row's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(gt=0.0, le=1.0)
    vectors: Literal["untuned", "earlier", "none"]
    set: dict[str, Value] = {}

    @model_validator(mode="after")
    def _earlier_is_another(self) -> Stale:
        if (self.vectors == "earlier") != bool(self.set):
            raise ValueError('settings of the model that made the stale vectors go with vectors = "earlier", and only with it')
        return self


class Row(BaseModel):
    """One thing that is measured.

    Attributes:
        name: for --only, and in the result.
        label: in tables.
        scorer: "ranker" is an online ranker, "backbone" an ID-only encoder; "floor", "sknn" and "popularity" need no training.
        variant: of a ranker: "fused", "id-only" or "frozen-text".
        set: settings that differ from those given on the command line, by dotted key.
        sweep: a backbone with the settings that `llmgr tune-backbone --model SWEEP` found in this run, and those of ``set``.
        transitions: False ranks without the transition term; the ranker is trained as ever.
        stale: rank with the trained ranker while some items' vectors are not those it was trained with.
        reference: row it is compared with; the experiment's where not set, none where "".
        also: further rows it is compared with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")
    label: str
    scorer: Literal["ranker", "backbone", "floor", "sknn", "popularity"] = "ranker"
    variant: Literal["fused", "id-only", "frozen-text"] = "fused"
    set: dict[str, Value] = {}
    sweep: str = ""
    transitions: bool = True
    stale: Stale | None = None
    reference: str | None = None
    also: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether seeds make a difference."""
        return self.scorer in ("ranker", "backbone")


class Experiment(BaseModel):
    """A file under configs/experiments.

    Attributes:
        title: what it is, in a few words.
        about: what it shows, for readers of the file and of the result.
        reference: row that the others are compared with.
        seeds: of each row's last training; what it stands on (data, language model, for rankers the backbone) has the run's
            own seed.
        set: settings of every row.
        measure: "calibration" bins stated probabilities, "cost" times requests; both for rankers only. "near-duplicates"
            divides the examples by how close the target's text is to that of a click.
        rows: in the order of the table.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    about: str
    reference: str = ""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(1,), min_length=1)
    set: dict[str, Value] = {}
    measure: tuple[Literal["calibration", "cost", "near-duplicates"], ...] = ()
    rows: tuple[Row, ...] = Field(alias="row", min_length=1)

    @model_validator(mode="after")
    def _names_fit(self) -> Experiment:
        names = [row.name for row in self.rows]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rows are called {name}")
        for row in self.rows:
            for reference in filter(None, (self.reference_of(row), *row.also)):
                if reference not in names:
                    raise ValueError(f"row {row.name} is compared with {reference}, which is no row")
            if row.name in row.also:
                raise ValueError(f"row {row.name} is compared with itself")
            if row.sweep and row.scorer != "backbone":
                raise ValueError(f"row {row.name} has a sweep but is no backbone")
            if not row.transitions and row.scorer != "ranker":
                raise ValueError(f"row {row.name} leaves out the transition term but is no ranker")
            if row.stale and (row.scorer != "ranker" or row.variant == "id-only"):
                raise ValueError(f"row {row.name} has stale vectors but is no ranker with text")
        return self

    @model_validator(mode="after")
    def _settings_belong_to_rows(self) -> Experiment:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"the seeds {list(self.seeds)} are not different ones")
        for where, values in [("set", self.set), *((f"row {row.name}", row.set) for row in self.rows)]:
            for key in values:
                if key.partition(".")[0] == "evaluate":
                    raise ValueError(
                        f"{where}: {key} holds for all rows alike; give it on the command line, with --set or --config"
                    )
        return self

    def reference_of(self, row: Row) -> str:
        """Name of the row that this one is compared with, "" for none."""
        reference = self.reference if row.reference is None else row.reference
        return "" if reference == row.name else reference

    def select(self, only: tuple[str, ...]) -> list[Row]:
        """The rows with these names and those they are compared with; all of them for none.

        Raises:
            InputError: no row has such a name; the message names the nearest.
        """
        if not only:
            return list(self.rows)
        names = [row.name for row in self.rows]
        for name in only:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                raise InputError(
                    f"the experiment has no row {name!r}", f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
                )
        chosen = [row for row in self.rows if row.name in only]
        wanted = set(only) | {name for row in chosen for name in (self.reference_of(row), *row.also)}
        return [row for row in self.rows if row.name in wanted]


def find_experiment(name: str) -> tuple[str, Experiment]:
    """Read an experiment by its name (configs/experiments/NAME.toml, here or in the project's checkout) or by its path.

    Returns:
        Its name, and what it says.

    Raises:
        InputError: there is none, or it cannot be read; the message names the nearest one or the key.
    """
    folders = [FOLDER, Path(llmgr_core.__file__).resolve().parent.parent / FOLDER]
    path = Path(name)
    if path.suffix != ".toml":
        places = [folder / f"{name}.toml" for folder in folders]
        path = next((place for place in places if place.is_file()), places[0])
        known = sorted({one.stem for folder in folders for one in folder.glob("*.toml")})
        if not path.is_file():
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
            raise InputError(f"no experiment {name!r} ({path})", hint)
    return path.stem, read_toml(path, Experiment)


def as_overrides(values: Mapping[str, Value]) -> tuple[str, ...]:
    """The settings as ``--set`` takes them; JSON writes texts, numbers, booleans and lists as TOML reads them."""
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())

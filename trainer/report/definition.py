"""What each generated block of the results page is made from: data beside the page, not code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from llmgr_core.errors import InputError
from llmgr_core.evaluation import METRICS
from llmgr_core.settings.toml_model import read_toml


def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"there is no metric {name!r}; there are {', '.join(METRICS)}")
    return name


Masking = Literal["masked", "unmasked"]
Metric = Annotated[str, AfterValidator(_known_metric)]


class Part(BaseModel):
    """Base of everything here: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LevelRow(Part):
    """A scorer's metrics. ``split`` and ``file`` default to those of its block."""

    label: str
    scorer: str
    file: str = ""
    split: str = ""
    bold: bool = False


class ChangeRow(Part):
    """Relative differences of a scorer from its reference, as the file holds them."""

    label: str
    scorer: str


class LevelsBlock(Part):
    """Rows of scorers, columns of metrics; a last row of relative changes where ``change`` is set."""

    kind: Literal["levels"]
    file: str
    split: str = "test"
    masking: Masking = "masked"
    metrics: tuple[Metric, ...] = ("HR@5", "HR@10", "HR@20", "NDCG@10", "NDCG@20", "MRR@20")
    rows: tuple[LevelRow, ...] = Field(min_length=1)
    change: ChangeRow | None = None


class BucketRow(Part):
    """One metric of one scorer in every bucket; a difference is one from the reference, or ``against`` a further row."""

    label: str
    scorer: str
    metric: Metric
    against: str = ""


class BucketsBlock(Part):
    """Columns of buckets: metrics of scorers, then differences from the reference with their intervals.

    Attributes:
        by: training clicks of the target, or how close its text is to that of a click.
        shares: of the whole difference, which part falls on each bucket; only by "near-duplicates".
    """

    kind: Literal["buckets"]
    file: str
    split: str = "test"
    masking: Masking = "masked"
    by: Literal["clicks", "near-duplicates"] = "clicks"
    levels: tuple[BucketRow, ...] = ()
    differences: tuple[BucketRow, ...] = ()
    shares: tuple[BucketRow, ...] = ()

    @model_validator(mode="after")
    def _shares_are_measured(self) -> BucketsBlock:
        if self.shares and self.by == "clicks":
            raise ValueError('shares of a difference are measured by = "near-duplicates" alone')
        return self


class Figure(Part):
    """Numbers of a JSON file as text.

    Attributes:
        text: a format with a place for each number, for example "{:.2f} ms".
        of: where each number stands: keys one after another; a table of keys and values picks the list entry that has them.
        file: where it differs from the row's file.
        factor: every number is multiplied by it.
    """

    text: str
    of: tuple[tuple[str | int | dict[str, Any], ...], ...] = ()
    file: str = ""
    factor: float = 1.0


class FigureRow(Part):
    """One line of a table of figures: its label, then a cell for each column but the last, which names the file."""

    label: str
    file: str
    cells: tuple[Figure, ...]


class FiguresBlock(Part):
    """Figures picked from many files; the last column names each row's file."""

    kind: Literal["figures"]
    columns: tuple[str, ...]
    rows: tuple[FigureRow, ...]


Place = tuple[str | int | dict[str, Any], ...]


class TargetRow(Part):
    """Something that was aimed at.

    Attributes:
        of: where the measured number stands, or the table of a difference, a share or a ratio with its interval.
        minus: where a number stands that is taken from it.
        measure: how it is written, and of a difference whether it is judged as such or as a "change" relative to its reference.
        aim: what it should reach, in the unit of the measure: 0.12 for +12 %.
        judged_by: what has to reach it: the "value"; the lower bound, "low", where something is to be shown; the upper
            bound, "high", where nothing is to be lost that the interval shows.
    """

    label: str
    file: str
    of: Place
    minus: Place = ()
    measure: Literal["level", "change", "difference", "share", "ratio"] = "level"
    aim: float
    judged_by: Literal["value", "low", "high"] = "value"

    @model_validator(mode="after")
    def _bounds_are_there(self) -> TargetRow:
        if self.judged_by != "value" and (self.minus or self.measure == "level"):
            raise ValueError(f"{self.label!r}: a level has no interval, so its {self.judged_by!r} bound judges nothing")
        return self


class TargetsBlock(Part):
    """What was aimed at, beside what was measured."""

    kind: Literal["targets"]
    rows: tuple[TargetRow, ...] = Field(min_length=1)


class ExperimentBlock(Part):
    """The table of an experiment's result; until the file exists, the command that makes it."""

    kind: Literal["experiment"]
    file: str
    command: str
    split: str = "test"
    masking: Masking = "masked"
    metrics: tuple[Metric, ...] = ("HR@10", "HR@20", "NDCG@10", "NDCG@20")
    difference: Metric = "NDCG@20"
    bucket: str = "all"
    extra: tuple[Literal["seeds", "spread", "calibration", "cost", "budget"], ...] = ("seeds",)


class PictureBlock(Part):
    """A drawing of a result; it is a file of its own under ``pictures/``. An optional one may lack its result.

    Only "rows" is of one metric; "buckets" and "differences" show HR@20 and NDCG@20, seen items masked.
    """

    kind: Literal["picture"]
    file: str
    draw: Literal["buckets", "differences", "rows", "reliability"]
    alt: str
    split: str = "test"
    masking: Masking = "masked"
    metric: Metric = "NDCG@20"
    optional: bool = False

    @model_validator(mode="after")
    def _is_read(self) -> PictureBlock:
        read = {"rows": {"metric", "masking"}, "reliability": {"masking"}}.get(self.draw, set())
        ignored = sorted({"metric", "masking"} & self.model_fields_set - read)
        if ignored:
            raise ValueError(f"draw = {self.draw!r} does not read {' and '.join(ignored)}; leave it out")
        return self


class FilesBlock(Part):
    """Every result file with its command, commit, seeds and machine."""

    kind: Literal["files"]


Block = Annotated[
    LevelsBlock | BucketsBlock | FiguresBlock | TargetsBlock | ExperimentBlock | PictureBlock | FilesBlock,
    Field(discriminator="kind"),
]


class Exemption(Part):
    """A result file that cannot say all it should, and why."""

    missing: tuple[str, ...]
    reason: str


class ReportDefinition(Part):
    """All blocks of the page, and the result files that lack a fact which nobody knows any more."""

    block: dict[str, Block]
    exempt: dict[str, Exemption] = {}


def read_definition(path: Path) -> ReportDefinition:
    """Read the TOML file beside the page.

    Raises:
        InputError: missing, not TOML, or not a definition; the message names the key.
    """
    if not path.is_file():
        raise InputError(f"no definition {path}", "it stands beside the page, with its name and .toml")
    return read_toml(path, ReportDefinition)

"""What a row stands on: artefacts of the run itself where the row leaves them alone, else its own, found by content."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmgr_core.artefacts import Artefact, Manifest, open_artefact
from llmgr_core.artefacts.directory import finished_artefact, lineage_of
from llmgr_core.artefacts.manifest import MANIFEST_NAME, hash_value
from llmgr_core.errors import ArtefactError, SettingsError
from llmgr_core.run_directory import RunDirectory
from llmgr_core.settings import Settings, load_settings
from llmgr_core.settings.ranker_keys import settings_without_text
from trainer.commands import distil, pretrain, tune
from trainer.experiments.definition import Experiment, Row, as_overrides

KEY_DIGITS = 16
STORE_MARK = "embedded.json"
# What is read beside the artefacts: rankings of the teacher, kept by content.
SHARED_CACHE = "cache"


@dataclass(frozen=True)
class Link:
    """One artefact of a row's chain.

    Attributes:
        kind: "dataset", "backbone", "tuned", "store" or "ranker".
        path: of the artefact.
        key: what it is made of; equal keys, equal artefacts.
        own: it is the run's own and taken as it stands.
        needs: what it is made from.
        command: what makes it, run in ``directory``; () for the run's own.
    """

    kind: str
    path: Path
    key: str
    own: bool
    needs: tuple[Link, ...] = ()
    command: tuple[str, ...] = field(default=())

    @property
    def directory(self) -> Path:
        """The run directory that the command works in."""
        return self.path.parent

    def finished(self) -> bool:
        """Whether it is there. Its place is named by its content, so that what stands there is the right one."""
        return (self.path / (STORE_MARK if self.kind == "store" and not self.own else MANIFEST_NAME)).is_file() or (
            self.own and self.kind == "store" and self.path.is_dir()
        )

    def pending(self) -> list[Link]:
        """What is still to be made, in order, this one last."""
        if self.finished():
            return []
        before: list[Link] = []
        for need in self.needs:
            before += [one for one in need.pending() if one not in before]
        return [*before, self]


class Links:
    """Finds or places what the rows of an experiment stand on.

    Args:
        run: the run the experiment is about.
        base: settings from the command line.
        config, overrides: what they were read from; handed on to the steps.
    """

    def __init__(self, run: RunDirectory, base: Settings, config: Path | None, overrides: tuple[str, ...]) -> None:
        self.run, self.base, self.config, self.overrides = run, base, config, overrides
        self.steps = run.experiments / "steps"

    def dataset(self, experiment: Experiment, row: Row) -> Link:
        """The data of a row."""
        settings, overrides = self._settings(experiment, row)
        if (settings.data, settings.text) == (self.base.data, self.base.text):
            return Link("dataset", self.run.dataset, self._digest(self.run.dataset), True)
        made = {"seed": settings.seed, "data": settings.data.model_dump(), "text": settings.text.shaping()}
        return self._placed("dataset", made, (), ("prepare",), overrides)

    def of(self, experiment: Experiment, row: Row, seed: int) -> Link | None:
        """What is ranked: a ranker or a backbone; None for a row without training."""
        if not row.trained:
            return None
        dataset = self.dataset(experiment, row)
        if row.sweep:
            return self._swept(experiment, row, dataset, seed)
        if row.scorer == "backbone":
            return self._backbone(experiment, row, dataset, seed)
        return self._ranker(experiment, row, dataset, seed)

    def stale_vectors(self, experiment: Experiment, row: Row) -> tuple[Link, Link | None] | None:
        """Store, and model, of the vectors that a row's stale items have; None where they have none."""
        if row.stale is None or row.stale.vectors == "none":
            return None
        variant = "frozen-text" if row.stale.vectors == "untuned" else "fused"
        other = row.model_copy(update={"variant": variant, "set": {**row.set, **row.stale.set}})
        settings, overrides = self._settings(experiment, other)
        dataset = self.dataset(experiment, other)
        backbone = self._backbone(experiment, other, dataset, settings.seed)
        tuned = self._tuned(settings, overrides, dataset, backbone) if variant == "fused" else None
        needs = [dataset, backbone, *([tuned] if tuned else [])]
        return self._store(other, settings, overrides, dataset, needs), tuned

    def settings_of(self, experiment: Experiment, row: Row) -> Settings:
        """Settings of a row.

        Raises:
            SettingsError: a key or a value that there is not; the message names the row.
        """
        return self._settings(experiment, row)[0]

    def settings_of_stale(self, experiment: Experiment, row: Row) -> Settings:
        """Settings of the model that made them."""
        assert row.stale is not None
        return self._settings(experiment, row.model_copy(update={"set": {**row.set, **row.stale.set}}))[0]

    def store_of(self, ranker: Link) -> Path:
        """Where a ranker's text vectors are."""
        return next((link.path for link in ranker.needs if link.kind == "store"), self.run.store)

    def _ranker(self, experiment: Experiment, row: Row, dataset: Link, seed: int) -> Link:
        settings, overrides = self._settings(experiment, row, seed)
        plain, plain_overrides = self._settings(experiment, row)
        backbone = self._backbone(experiment, row, dataset, plain.seed)
        needs, inputs = [dataset, backbone], [dataset, backbone]
        if row.variant == "fused":
            tuned = self._tuned(plain, plain_overrides, dataset, backbone)
            needs, inputs = [*needs, tuned], [*inputs, tuned]
        if row.variant != "id-only":
            needs.append(self._store(row, plain, plain_overrides, dataset, needs))
        made = distil.shaping_settings(settings, row.variant)
        if all(link.own for link in needs):
            for root in (self.run.root, self.run.root.with_name(f"{self.run.root.name}-seed-{seed}")):
                path = RunDirectory(root).ranker(row.variant)
                if path.is_dir() and _is_result(path, "ranker", inputs, made):
                    return Link("ranker", path, self._digest(path), True, tuple(needs))
        name = RunDirectory(Path()).ranker(row.variant).name
        if row.variant == "fused" and settings.distil.teacher and settings.distil.teacher_model == "ranker":
            untaught = {key: value for key, value in row.set.items() if key != "distil.teacher_model"}
            teacher = row.model_copy(update={"set": {**untaught, "distil.teacher": False}})
            needs.append(self._ranker(experiment, teacher, dataset, seed))
        return self._placed("ranker", made, needs, ("distil", "--variant", row.variant), overrides, name)

    def _backbone(self, experiment: Experiment, row: Row, dataset: Link, seed: int) -> Link:
        settings, overrides = self._settings(experiment, row, seed)
        same = (settings.encoder, settings.pretrain) == (self.base.encoder, self.base.pretrain)
        if dataset.own and same and seed == self.base.seed:
            return Link("backbone", self.run.backbone, self._digest(self.run.backbone), True, (dataset,))
        made = pretrain.shaping_settings(settings)
        if dataset.own:
            path = self.run.root.with_name(f"{self.run.root.name}-backbone-{seed}") / "backbone"
            if path.is_dir() and _is_result(path, "backbone", [dataset], made):
                return Link("backbone", path, self._digest(path), True, (dataset,))
        return self._placed("backbone", made, [dataset], ("pretrain",), overrides)

    def _swept(self, experiment: Experiment, row: Row, dataset: Link, seed: int) -> Link:
        sweep = self.run.root / "sweeps" / row.sweep
        config = sweep / "best.toml"
        if not config.is_file() or not (sweep / "best" / MANIFEST_NAME).is_file():
            raise ArtefactError(
                f"{sweep} holds no result of a sweep",
                f"run `llmgr tune-backbone --run {self.run.root} --model {row.sweep}` first",
            )
        given = {**experiment.set, **row.set}
        if not given and load_settings(config).seed == seed:
            return Link("backbone", sweep / "best", self._digest(sweep / "best"), True, (dataset,))
        host = (one for one in self.overrides if one.startswith("threads"))
        overrides = (*host, *as_overrides(given), f"seed={seed}")
        made = pretrain.shaping_settings(load_settings(config, overrides))
        return self._placed("backbone", made, [dataset], ("pretrain",), overrides, config=config)

    def _tuned(self, settings: Settings, overrides: tuple[str, ...], dataset: Link, backbone: Link) -> Link:
        made = tune.shaping_settings(settings)
        if dataset.own and backbone.own and made == tune.shaping_settings(self.base):
            return Link("tuned", self.run.tuned, self._digest(self.run.tuned), True, (dataset, backbone))
        return self._placed("tuned", made, [dataset, backbone], ("tune",), overrides)

    def _store(self, row: Row, settings: Settings, overrides: tuple[str, ...], dataset: Link, needs: list[Link]) -> Link:
        made = {"engine": settings.engine.model_dump(exclude=tune.HOST), "untuned": row.variant == "frozen-text"}
        same = settings.engine == self.base.engine
        if same and all(link.own for link in needs if link.kind in ("dataset", "tuned")):
            return Link("store", self.run.store, "", True, tuple(needs))
        used = [link for link in needs if link.kind != "backbone" or row.variant == "fused"]
        command = ("embed", "--untuned") if row.variant == "frozen-text" else ("embed",)
        return self._placed("store", made, used, command, overrides)

    def _placed(
        self,
        kind: str,
        made: dict[str, Any],
        needs: list[Link] | tuple[()],
        step: tuple[str, ...],
        overrides: tuple[str, ...],
        name: str = "",
        config: Path | None = None,
    ) -> Link:
        key = hash_value({"kind": kind, "settings": made, "needs": [need.key for need in needs]})
        directory = self.steps / f"{kind}-{key[:KEY_DIGITS]}"
        source = config or self.config
        command = [*step, "--run", str(directory), "--json"]
        command += ["--config", str(source)] if source else []
        for override in overrides:
            command += ["--set", override]
        return Link(kind, directory / (name or kind), key, False, tuple(needs), tuple(command))

    def _settings(self, experiment: Experiment, row: Row, seed: int | None = None) -> tuple[Settings, tuple[str, ...]]:
        overrides = (*self.overrides, *as_overrides(experiment.set), *as_overrides(row.set))
        if seed is not None:
            overrides = (*overrides, f"seed={seed}")
        try:
            return load_settings(self.config, overrides), overrides
        except SettingsError as error:
            raise SettingsError(f"row {row.name}: {error.args[0]}", error.hint) from None

    def _digest(self, path: Path) -> str:
        return Manifest.read(path).digest if (path / MANIFEST_NAME).is_file() else f"missing {path}"


def program() -> list[str]:
    """How to start ``llmgr`` again: the script beside this interpreter, else the module itself."""
    script = Path(sys.executable).with_name("llmgr")
    if script.is_file():
        return [str(script)]
    return [sys.executable, "-c", "from llmgr_core.command_line.main import main; main()"]


def costs(link: Link) -> dict[str, float]:
    """CPU seconds and wall seconds that making a link took, over all its attempts; empty for the run's own."""
    try:
        found: dict[str, float] = json.loads((link.directory / "cost.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if not link.own else {}


def _is_result(path: Path, kind: str, inputs: list[Link], made: dict[str, Any]) -> bool:
    """Whether the finished artefact at a place is the one that these inputs and settings give."""
    artefacts: list[Artefact] = []
    try:
        artefacts = [open_artefact(link.path, link.kind) for link in inputs]
        if finished_artefact(path, kind, artefacts, made) is not None:
            return True
        return made.get("variant") == "id-only" and _ranks_alike(open_artefact(path, kind), artefacts, made)
    except ArtefactError:
        return False


def _ranks_alike(ranker: Artefact, inputs: list[Artefact], made: dict[str, Any]) -> bool:
    """Whether a ranker without text was made with other settings for text alone, or before there were some of them."""
    try:
        alike = settings_without_text(ranker.manifest.settings) == settings_without_text(made)
    except (ValidationError, KeyError):
        return False
    return alike and ranker.manifest.inputs == lineage_of(inputs) and ranker.whole()

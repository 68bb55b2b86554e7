"""The tuning recipe, top to bottom: align text with items first, learn behaviour second (paper, section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llmgr_core.data import Dataset
from llmgr_core.encoders import Backbone
from llmgr_core.engine import SemanticEngine
from llmgr_core.engine.adapter import add_adapter
from llmgr_core.engine.bridge import Bridge
from llmgr_core.engine.hybrid_model import HybridModel
from llmgr_core.engine.prompt_batches import PromptBatches
from llmgr_core.engine.tuned_model import save_tuned
from llmgr_core.progress import Reporter
from llmgr_core.settings import Settings
from trainer.catalogue_training.log import TrainingLog
from trainer.tune.catalogue_vectors import catalogue_vectors
from trainer.tune.checkpoint import Position, read_checkpoint, write_checkpoint
from trainer.tune.cost import report_cost
from trainer.tune.early_stopping import EarlyStopping, Figures
from trainer.tune.matmul_rate import matmul_rate
from trainer.tune.measures import (
    backbone_quality,
    best_text_gate,
    candidate_accuracy,
    teacher_figures,
    teacher_quality,
    text_neighbour_quality,
)
from trainer.tune.model_flops import ModelFlops
from trainer.tune.optimization import choose_trainable
from trainer.tune.pace import Pace
from trainer.tune.processes import Processes
from trainer.tune.scalars import Scalars
from trainer.tune.stage_examples import ItemsToLearn, StageExamples, Work, mixed
from trainer.tune.starting_values import mean_readout, start_bridge, start_text_rows
from trainer.tune.training_loop import train_stage

Tensors = Mapping[str, torch.Tensor]
Measure = Callable[[], Figures]


class TwoStageTuning:
    """Stage 1 on items, stage 2 on session prefixes; resumes from its last checkpoint.

    ``tune.order`` may have them the other way round, or both at once.

    Args:
        dataset, backbone: what to tune on; the backbone's weights are changed as ``tune.thaw`` says.
        settings: all sections; [engine], [tune] and the seed are used.
        directory: where adapter, bridge and log go.
        checkpoints: where checkpoints and the catalogue's vectors are kept until the end.
        reporter: where to report.
        processes: who else takes part.
        curves: where event files for TensorBoard go; None writes none.
    """

    def __init__(
        self,
        dataset: Dataset,
        backbone: Backbone,
        settings: Settings,
        *,
        directory: Path,
        checkpoints: Path,
        reporter: Reporter,
        processes: Processes | None = None,
        curves: Path | None = None,
    ) -> None:
        self.dataset, self.settings, self.tune = dataset, settings, settings.tune
        self.directory, self.checkpoints, self.reporter = directory, checkpoints, reporter
        self.processes = processes or Processes()
        torch.manual_seed(settings.seed)
        self.engine = SemanticEngine.load(self.processes.place(settings.engine))
        model = self.engine.language_model
        tune = settings.tune
        add_adapter(model, max(tune.lora_rank, 1), tune.lora_alpha, tune.lora_dropout, tune.lora_targets)
        if tune.gradient_checkpointing:
            # Re-entrant checkpointing would ask the input vectors themselves for a gradient.
            model.transformer.gradient_checkpointing_enable({"use_reentrant": False})
        bridge = Bridge(self.engine.hidden_size, backbone.settings.dimension, tune)
        self.model = HybridModel(self.engine, backbone, bridge, tune, known=torch.from_numpy(dataset.train_counts > 0))
        self.batches = PromptBatches(self.engine, dataset.texts, dataset.titles, tune, backbone.settings.max_clicks)
        self.examples = StageExamples(dataset, self.batches, tune, settings.seed)
        self.measured: dict[str, Any] = {}
        self.validation: Figures = {}
        self._beside: dict[str, torch.Tensor] = {}
        self.log: TrainingLog | None = None
        self.curves = curves
        self.scalars: Scalars | None = None

    def run(self) -> tuple[dict[str, object], dict[str, Any]]:
        """Tune; returns details and metrics for the manifest."""
        found = read_checkpoint(self.checkpoints)
        position, tensors = found if found else (Position(2 if self.tune.order == "swapped" else 1, 0, 0, {}), {})
        self.measured, self.validation = dict(position.measured), position.validation
        if self.processes.first:
            self.log = TrainingLog(self.directory, position.log_bytes)
            self.scalars = Scalars(self.curves, anew=not found) if self.curves else None
        if found:
            self.reporter.event("resumed", stage=position.stage, step=position.step)
        self.peak = self._measure_peak()
        untuned = self._vectors("untuned")
        self._start_bridge(untuned)
        trainable = sum(parameter.numel() for parameter in choose_trainable(self.model, 2).values())
        base = sum(parameter.numel() for parameter in self.engine.language_model.parameters())
        self.reporter.event("parameters", trained=trainable, language_model=base)
        orders = {"in-order": self._in_order, "swapped": self._swapped, "joint": self._both_stages}
        orders[self.tune.order](position, tensors, untuned)
        self._measure_teacher()
        details: dict[str, object] = {}
        if self.processes.first:
            details = save_tuned(self.directory, self.model, self.engine, self.settings.engine)
        if self.log is not None:
            self.log.flush()
            self.log.close()
        return {**details, "trainable_parameters": trainable}, self.measured

    def _in_order(self, position: Position, tensors: Tensors, untuned: npt.NDArray[np.float32]) -> None:
        if position.stage == 1:
            self._stage_1(position.step, tensors, untuned)
            self._checkpoint(2, 0, self._learned_weights())
            position, tensors = Position(2, 0, 0, {}), {}
        elif position.step == 0:
            self._load_weights(tensors)
        if self.tune.text_rows:
            self._start_text_rows(self._vectors("stage-1"))
        self._stage_2(position.step, tensors)

    def _swapped(self, position: Position, tensors: Tensors, untuned: npt.NDArray[np.float32]) -> None:
        """Stage 2 first; what only it trains stays as it left it."""
        if self.tune.text_rows:
            self._start_text_rows(untuned)
        if position.stage == 2:
            self._stage_2(position.step, tensors)
            self._checkpoint(1, 0, self._learned_weights())
            position, tensors = Position(1, 0, 0, {}), {}
        else:
            self._load_weights(tensors)
        self._beside = self._learned_weights()
        self._stage_1(position.step, tensors, untuned)
        # The finished model is asked the prompts of stage 2, which are read relative to their own mean.
        self._start_prompt_mean(2, Work([], lambda *_: None, np.empty(0, dtype=np.int64)))

    def _stage_1(self, first_step: int, tensors: Tensors, untuned: npt.NDArray[np.float32]) -> None:
        learn = self.examples.items_to_learn(untuned)
        self._start_prompt_mean(1, learn.work)
        if first_step == 0:
            self._measure("text_neighbours_ndcg20_before", text_neighbour_quality(untuned, self.dataset))
            self._measure("stage1_accuracy_before", self._accuracy(learn))
        self._train(1, learn.work, first_step, tensors, self._item_figures(learn))
        self._measure("stage1_accuracy_after", self._accuracy(learn))
        if self.tune.text_rows:
            tuned = self._vectors("stage-1")
            self._measure("text_neighbours_ndcg20_after", text_neighbour_quality(tuned, self.dataset))

    def _stage_2(self, first_step: int, tensors: Tensors) -> None:
        if first_step == 0:
            self._measure("backbone_ndcg20", backbone_quality(self.model.backbone, self.dataset.validation))
        self._train(2, self.examples.prefixes_to_learn(), first_step, tensors, self._prefix_figures())

    def _both_stages(self, position: Position, tensors: Tensors, untuned: npt.NDArray[np.float32]) -> None:
        """The steps of both stages in one random order; what learns, and the number of the stage, are those of stage 2."""
        learn = self.examples.items_to_learn(untuned)
        work = mixed(learn.work, self.examples.prefixes_to_learn(), self.settings.seed)
        if self.tune.text_rows:
            self._start_text_rows(untuned)
        if position.step == 0:
            self._measure("backbone_ndcg20", backbone_quality(self.model.backbone, self.dataset.validation))
        self._train(2, work, position.step, tensors, self._prefix_figures())
        self._measure("stage1_accuracy_after", self._accuracy(learn))

    def _measure_peak(self) -> float:
        """Operations a second that the steps' share of the peak refers to."""
        model = self.engine.language_model
        peak = matmul_rate(model.device, model.transformer.get_input_embeddings().weight.dtype)
        self.measured.setdefault("matmul_flops_per_second", round(peak))
        self.reporter.event("peak", matmul_gflops_per_second=round(peak / 1e9, 1))
        return peak

    def _accuracy(self, learn: ItemsToLearn) -> float:
        return candidate_accuracy(self.model, self.batches, learn.hard, learn.heldout, self.settings.seed)

    def _measure_teacher(self) -> None:
        quality = teacher_quality(self.model, self.batches, self.engine.settings.batch_tokens, self.dataset.validation)
        self._measure("teacher_ndcg20", quality)

    def _item_figures(self, learn: ItemsToLearn) -> Measure | None:
        """What early stopping of stage 1 goes by; None where no item was kept out."""
        items = learn.heldout[: self.tune.validation_examples]
        seed = self.settings.seed
        if not len(items):
            return None
        return lambda: {"accuracy": candidate_accuracy(self.model, self.batches, learn.hard, items, seed)}

    def _prefix_figures(self) -> Measure | None:
        """What early stopping of stage 2 goes by; None where no example validates."""
        some = self.dataset.validation.evenly_spread(self.tune.validation_examples)
        some = some.select(some.ends > some.starts)
        if not len(some):
            return None
        return lambda: teacher_figures(self.model, self.batches, self.engine.settings.batch_tokens, some)

    def _train(self, stage: int, work: Work, first_step: int, tensors: Tensors, measure: Measure | None) -> None:
        self._start_prompt_mean(stage, work)
        parameters = choose_trainable(self.model, stage)
        pace = Pace(self.peak)
        if self.processes.alone:
            cost = report_cost(self.model, stage, work.steps[first_step:], work.build, self.reporter, self.peak)
            self.measured[f"stage{stage}_cost"] = self.measured.get(f"stage{stage}_cost", cost)
        optimization = self.processes.optimization(self.model, parameters, self.tune)
        if first_step:
            optimization.load_state(tensors, first_step)
        stopping = None
        if self.tune.patience and measure is not None:
            stopping = EarlyStopping.of(self.tune, self.model, parameters, measure, self.processes)
            if first_step:
                stopping.load(self.validation, tensors)
        ended = train_stage(
            stage,
            work.steps,
            work.build,
            optimization,
            settings=self.tune,
            seed=self.settings.seed,
            first_step=first_step,
            log=self.log,
            checkpoint=lambda step: self._checkpoint(stage, step, {**self._beside, **optimization.state()}, stopping),
            reporter=self.reporter,
            pace=pace,
            flops=ModelFlops.of(self.engine.language_model),
            stopping=stopping,
            scalars=self.scalars,
        )
        optimization.finish()
        self.measured |= {f"stage{stage}_{name}": value for name, value in pace.figures(optimization.world).items()}
        if stopping is not None:
            self.measured |= {f"stage{stage}_steps": ended, **stopping.restore(stage)}

    def _vectors(self, name: str) -> npt.NDArray[np.float32]:
        """The catalogue's vectors under the model as it stands, or as it stood then; computed by the first process."""
        cache = self.checkpoints / f"{name}-vectors.npy"
        if self.processes.first:
            catalogue_vectors(self.engine, self.dataset.texts, cache, self.reporter, f"embed catalogue, {name}")
        self.processes.barrier()
        return catalogue_vectors(self.engine, self.dataset.texts, cache, self.reporter, f"embed catalogue, {name}")

    def _start_bridge(self, untuned: npt.NDArray[np.float32]) -> None:
        start_bridge(self.model, self.engine, untuned, self.examples.items)

    def _start_prompt_mean(self, stage: int, work: Work) -> None:
        """Mean readout of some prompts before the stage's first step; a resumed run takes the very same one."""
        cache = self.checkpoints / f"stage-{stage}-prompt-mean.npy"
        if not cache.is_file() and self.processes.first:
            np.save(cache.with_suffix(".writing.npy"), mean_readout(self.model, work), allow_pickle=False)
            cache.with_suffix(".writing.npy").replace(cache)
        self.processes.barrier()
        self.model.bridge.prompt_mean.copy_(torch.from_numpy(np.load(cache, allow_pickle=False)))

    def _start_text_rows(self, vectors: npt.NDArray[np.float32]) -> None:
        start_text_rows(self.model, vectors, self.examples.items)
        if self.tune.graph_residual and self.model.bridge.text_gate is not None:
            gate = best_text_gate(self.model, self.dataset.validation)
            self.model.bridge.text_gate.data.fill_(gate)
            self._measure("text_gate", gate)

    def _learned_weights(self) -> dict[str, torch.Tensor]:
        """Copies of all that either stage trains."""
        return {f"weight.{name}": value.detach().clone() for name, value in choose_trainable(self.model, 2).items()}

    def _checkpoint(self, stage: int, step: int, tensors: Tensors, stopping: EarlyStopping | None = None) -> None:
        # Under ZeRO every process must take part in gathering the tensors; only one writes them.
        if self.processes.first and self.log is not None:
            if self.scalars is not None:
                self.scalars.flush()
            validation = stopping.position() if stopping else {}
            best = stopping.tensors() if stopping else {}
            position = Position(stage, step, self.log.flush(), self.measured, validation)
            write_checkpoint(self.checkpoints, position, {**tensors, **best})
        self.processes.barrier()

    def _load_weights(self, tensors: Tensors) -> None:
        for name, parameter in self.model.named_parameters():
            if f"weight.{name}" in tensors:
                parameter.data.copy_(tensors[f"weight.{name}"].reshape(parameter.shape))

    def _measure(self, name: str, value: float) -> None:
        if math.isnan(value):  # nothing to measure it on
            return
        self.measured[name] = round(value, 4)
        self.reporter.event(name, value=self.measured[name])

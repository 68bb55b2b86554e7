"""The tuning recipe, top to bottom: align text with items first, learn behaviour second (paper, section 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from llmgr_core.engine.bridge_start import start_projection, whitening
from llmgr_core.engine.hybrid_model import HybridModel
from llmgr_core.engine.prompt_batches import PromptBatches
from llmgr_core.engine.tuned_model import save_tuned
from llmgr_core.progress import Reporter
from llmgr_core.settings import Settings
from trainer.catalogue_training.log import TrainingLog
from trainer.tune.catalogue_vectors import catalogue_vectors
from trainer.tune.checkpoint import Position, read_checkpoint, write_checkpoint
from trainer.tune.cost import report_cost
from trainer.tune.measures import backbone_quality, best_text_gate, candidate_accuracy, teacher_quality, text_neighbour_quality
from trainer.tune.optimization import choose_trainable
from trainer.tune.processes import Processes
from trainer.tune.stage_examples import ItemsToLearn, StageExamples
from trainer.tune.training_loop import train_stage

MEAN_BATCHES = 6
Tensors = Mapping[str, torch.Tensor]


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
        self._beside: dict[str, torch.Tensor] = {}
        self.log: TrainingLog | None = None

    def run(self) -> tuple[dict[str, object], dict[str, Any]]:
        """Tune; returns details and metrics for the manifest."""
        found = read_checkpoint(self.checkpoints)
        position, tensors = found if found else (Position(2 if self.tune.order == "swapped" else 1, 0, 0, {}), {})
        self.measured = dict(position.measured)
        if self.processes.first:
            self.log = TrainingLog(self.directory, position.log_bytes)
        if found:
            self.reporter.event("resumed", stage=position.stage, step=position.step)
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
        self._start_prompt_mean(2, [], None)

    def _stage_1(self, first_step: int, tensors: Tensors, untuned: npt.NDArray[np.float32]) -> None:
        learn = self.examples.items_to_learn(untuned)
        self._start_prompt_mean(1, *learn.work)
        if first_step == 0:
            self._measure("text_neighbours_ndcg20_before", text_neighbour_quality(untuned, self.dataset))
            self._measure("stage1_accuracy_before", self._accuracy(learn))
        self._train(1, *learn.work, first_step, tensors)
        self._measure("stage1_accuracy_after", self._accuracy(learn))
        if self.tune.text_rows:
            tuned = self._vectors("stage-1")
            self._measure("text_neighbours_ndcg20_after", text_neighbour_quality(tuned, self.dataset))

    def _stage_2(self, first_step: int, tensors: Tensors) -> None:
        if first_step == 0:
            self._measure("backbone_ndcg20", backbone_quality(self.model.backbone, self.dataset.validation))
        self._train(2, *self.examples.prefixes_to_learn(), first_step, tensors)

    def _both_stages(self, position: Position, tensors: Tensors, untuned: npt.NDArray[np.float32]) -> None:
        """The steps of both stages in one random order; what learns, and the number of the stage, are those of stage 2."""
        learn = self.examples.items_to_learn(untuned)
        item_steps, build_items = learn.work
        prefix_steps, build_prefixes = self.examples.prefixes_to_learn()
        if self.tune.text_rows:
            self._start_text_rows(untuned)
        # Items are told from prefixes by their sign.
        steps = [-1 - places for places in item_steps] + prefix_steps
        order = np.random.default_rng([self.settings.seed, 3]).permutation(len(steps))

        def build(places: npt.NDArray[np.int64], draw: np.random.Generator) -> Any:
            return build_items(-1 - places, draw) if places[0] < 0 else build_prefixes(places, draw)

        if position.step == 0:
            self._measure("backbone_ndcg20", backbone_quality(self.model.backbone, self.dataset.validation))
        self._train(2, [steps[place] for place in order], build, position.step, tensors)
        self._measure("stage1_accuracy_after", self._accuracy(learn))

    def _accuracy(self, learn: ItemsToLearn) -> float:
        return candidate_accuracy(self.model, self.batches, learn.hard, learn.heldout, self.settings.seed)

    def _measure_teacher(self) -> None:
        quality = teacher_quality(self.model, self.batches, self.engine.settings.batch_tokens, self.dataset.validation)
        self._measure("teacher_ndcg20", quality)

    def _train(self, stage: int, steps: list[Any], build: Any, first_step: int, tensors: Tensors) -> None:
        self._start_prompt_mean(stage, steps, build)
        parameters = choose_trainable(self.model, stage)
        if self.processes.alone:
            cost = report_cost(self.model, stage, steps[first_step:], build, self.reporter)
            self.measured[f"stage{stage}_cost"] = self.measured.get(f"stage{stage}_cost", cost)
        optimization = self.processes.optimization(self.model, parameters, self.tune)
        if first_step:
            optimization.load_state(tensors, first_step)
        train_stage(
            stage,
            steps,
            build,
            optimization,
            settings=self.tune,
            seed=self.settings.seed,
            first_step=first_step,
            log=self.log,
            checkpoint=lambda step: self._checkpoint(stage, step, {**self._beside, **optimization.state()}),
            reporter=self.reporter,
        )
        optimization.finish()

    def _vectors(self, name: str) -> npt.NDArray[np.float32]:
        """The catalogue's vectors under the model as it stands, or as it stood then; computed by the first process."""
        cache = self.checkpoints / f"{name}-vectors.npy"
        if self.processes.first:
            catalogue_vectors(self.engine, self.dataset.texts, cache, self.reporter, f"embed catalogue, {name}")
        self.processes.barrier()
        return catalogue_vectors(self.engine, self.dataset.texts, cache, self.reporter, f"embed catalogue, {name}")

    def _start_bridge(self, untuned: npt.NDArray[np.float32]) -> None:
        model, items = self.model, torch.from_numpy(self.examples.items)
        token_vectors = self.engine.language_model.transformer.get_input_embeddings().weight
        token_norm = float(token_vectors.detach().float().norm(dim=1).mean())
        ids = model.backbone.item_table.detach().cpu()[items]
        random = self.tune.projection == "random-frozen"
        start_projection(model.bridge, torch.from_numpy(untuned)[items], ids, token_norm, random=random)

    @torch.no_grad()
    def _start_prompt_mean(self, stage: int, steps: list[Any], build: Any) -> None:
        """Mean readout of some prompts before the stage's first step; a resumed run takes the very same one."""
        cache = self.checkpoints / f"stage-{stage}-prompt-mean.npy"
        mean = self.model.bridge.prompt_mean
        if not cache.is_file() and self.processes.first:
            self.model.eval()
            mean.zero_()
            picked = [steps[round(place)] for place in np.linspace(0, len(steps) - 1, MEAN_BATCHES)] if steps else []
            read = [self.model.read(build(chosen, np.random.default_rng(0))) for chosen in picked]
            if read:
                mean.copy_(torch.cat(read).mean(dim=0))
            np.save(cache.with_suffix(".writing.npy"), mean.cpu().numpy(), allow_pickle=False)
            cache.with_suffix(".writing.npy").replace(cache)
        self.processes.barrier()
        mean.copy_(torch.from_numpy(np.load(cache, allow_pickle=False)))

    def _start_text_rows(self, vectors: npt.NDArray[np.float32]) -> None:
        """t_v: whitened text vectors of unit length; the text head starts as the same map."""
        bridge = self.model.bridge
        assert bridge.text_head is not None
        texts = torch.from_numpy(vectors)
        mean, weights = whitening(texts[torch.from_numpy(self.examples.items)], self.tune.text_rows)
        bridge.text_head.weight.data.zero_()
        bridge.text_head.weight.data[: len(weights)].copy_(weights)
        rows = torch.nn.functional.normalize((texts - mean) @ bridge.text_head.weight.data.cpu().T, dim=1)
        has_text = texts.abs().amax(dim=1, keepdim=True) > 0
        self.model.text_rows.copy_(rows * has_text)
        if self.tune.graph_residual and bridge.text_gate is not None:
            gate = best_text_gate(self.model, self.dataset.validation)
            bridge.text_gate.data.fill_(gate)
            self._measure("text_gate", gate)

    def _learned_weights(self) -> dict[str, torch.Tensor]:
        """Copies of all that either stage trains."""
        return {f"weight.{name}": value.detach().clone() for name, value in choose_trainable(self.model, 2).items()}

    def _checkpoint(self, stage: int, step: int, tensors: Tensors) -> None:
        # Under ZeRO every process must take part in gathering the tensors; only one writes them.
        if self.processes.first and self.log is not None:
            write_checkpoint(self.checkpoints, Position(stage, step, self.log.flush(), self.measured), tensors)
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

"""What the two stages learn from: the steps of each, and what makes a batch of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmgr_core.data import Dataset
from llmgr_core.engine.prompt_batches import PromptBatches
from llmgr_core.errors import InputError
from llmgr_core.sessions import Examples
from llmgr_core.settings.tune import TuneSettings
from trainer.tune.candidates import HardCandidates, random_candidates
from trainer.tune.shuffled_texts import items_of_other_texts
from trainer.tune.training_loop import BuildBatch, Places, steps_of

MIN_ITEMS = 20


@dataclass(frozen=True)
class Work:
    """What a stage has to do.

    Attributes:
        steps: places of the examples of every step.
        build: makes a batch of them.
        lengths: int64 [n], about how many tokens the prompt of each example has.
    """

    steps: list[Places]
    build: BuildBatch
    lengths: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemsToLearn:
    """Stage 1.

    Attributes:
        work: its steps.
        heldout: int64 [h], items kept out of it to measure it by, whatever texts it is taught with.
        hard: draws the candidates of both.
    """

    work: Work
    heldout: npt.NDArray[np.int64]
    hard: HardCandidates


class StageExamples:
    """Chooses the examples of both stages; the same ones at each call.

    Args:
        dataset: items and sessions.
        batches: builds prompts.
        settings: section [tune].
        seed: of the run.

    Attributes:
        items: int64 [n], items with both text and clicks in training.

    Raises:
        InputError: too few such items.
    """

    def __init__(self, dataset: Dataset, batches: PromptBatches, settings: TuneSettings, seed: int) -> None:
        self._dataset, self._batches, self._settings, self._seed = dataset, batches, settings, seed
        clicked = np.flatnonzero(dataset.train_counts > 0)
        self.items = np.array([item for item in clicked if batches.has_text(int(item))], dtype=np.int64)
        if len(self.items) < max(MIN_ITEMS, settings.candidates):
            raise InputError(
                f"{len(self.items)} items have both text and clicks in training: too few to tune a language model on",
                "check `llmgr prepare`'s fit report; the ID-only ranker needs no text",
            )

    def items_to_learn(self, untuned: npt.NDArray[np.float32]) -> ItemsToLearn:
        """Stage 1.

        Args:
            untuned: float32 [V, D], text vectors by which candidates are near.
        """
        settings, seed = self._settings, self._seed
        shuffled = np.random.default_rng([seed, 1]).permutation(self.items)
        held = min(settings.heldout_items, len(shuffled) // 10)
        heldout, learned = shuffled[:held], shuffled[held:]
        if settings.stage1_examples:
            learned = learned[: settings.stage1_examples]
        shown = learned
        if settings.stage1_texts == "shuffled":
            shown = items_of_other_texts(learned, self._dataset.texts, np.random.default_rng([seed, 4]))
        pool = np.flatnonzero(self._dataset.train_counts > 0)
        hard = HardCandidates(pool, self._dataset.brand_codes, self._dataset.category_codes, untuned[pool])

        def build(places: npt.NDArray[np.int64], draw: np.random.Generator) -> Any:
            items = learned[places]
            return self._batches.auxiliary(items, hard.draw(items, settings.candidates, draw), shown[places])

        lengths = self._batches.item_lengths(shown)
        steps = steps_of(lengths, settings.stage1_epochs, settings, seed, 1)
        return ItemsToLearn(Work(steps, build, lengths), heldout, hard)

    def prefixes_to_learn(self) -> Work:
        """Stage 2."""
        settings, seed = self._settings, self._seed
        examples = Examples.every_prefix(self._dataset.train)
        if settings.stage2_examples and len(examples) > settings.stage2_examples:
            rng = np.random.default_rng([seed, 2])
            examples = examples.select(np.sort(rng.permutation(len(examples))[: settings.stage2_examples]))
        with_texts, count = settings.following_weight > 0, settings.stage2_candidates

        def build(places: npt.NDArray[np.int64], draw: np.random.Generator) -> Any:
            chosen = examples.select(places)
            targets = chosen.targets.astype(np.int64)
            among = random_candidates(targets, self._dataset.num_items, count, draw) if count else None
            return self._batches.main(chosen, with_texts, among)

        lengths = self._batches.main_lengths(examples)
        return Work(steps_of(lengths, settings.stage2_epochs, settings, seed, 2), build, lengths)


def mixed(items: Work, prefixes: Work, seed: int) -> Work:
    """The steps of both stages in one random order."""
    # Items are told from prefixes by their sign.
    steps = [-1 - places for places in items.steps] + prefixes.steps
    order = np.random.default_rng([seed, 3]).permutation(len(steps))

    def build(places: npt.NDArray[np.int64], draw: np.random.Generator) -> Any:
        return items.build(-1 - places, draw) if places[0] < 0 else prefixes.build(places, draw)

    # Place -1 - i reads the i-th entry from the end.
    lengths = np.concatenate([prefixes.lengths, items.lengths[::-1]])
    return Work([steps[place] for place in order], build, lengths)

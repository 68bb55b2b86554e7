"""The ranker of a run with everything around it that an explanation names: titles, texts, language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmgr_core.artefacts import Artefact, open_artefact
from llmgr_core.data import Dataset
from llmgr_core.data.item import Item
from llmgr_core.errors import ArtefactError, InputError
from llmgr_core.explanation.attention import AttentionReader
from llmgr_core.explanation.item_search import nearest_ids, with_words
from llmgr_core.explanation.word_effects import Embed, ItemText
from llmgr_core.progress import Reporter
from llmgr_core.ranker import RankerRuntime, RowChange
from llmgr_core.ranker.snapshot import UNKNOWN
from llmgr_core.ranker.stored import StoredRanker
from llmgr_core.run_directory import RunDirectory
from llmgr_core.settings.engine import EngineSettings
from llmgr_core.text import TextCleaner
from llmgr_core.text.cleaner import CHARACTERS_PER_TOKEN
from llmgr_core.text.fields import item_parts
from trainer.distil.controls import controlled_text
from trainer.distil.evaluated_ranker import controls_of
from trainer.distil.inputs import read_text_vectors

if TYPE_CHECKING:
    from llmgr_core.store import EmbeddingStore

VARIANTS = ("fused", "frozen-text", "id-only")
Indices = npt.NDArray[np.int64]


@dataclass
class ExplainedRun:
    """A ranker as it would be served from a run.

    Attributes:
        run: its directory.
        artefact: the ranker's.
        stored: the ranker.
        dataset: what it was trained on.
        runtime: ranks as a server does.
        vectors, present: text vectors e_v, float16 [V, D], and who has one; None for a ranker without text.
    """

    run: RunDirectory
    artefact: Artefact
    stored: StoredRanker
    dataset: Dataset
    runtime: RankerRuntime
    vectors: npt.NDArray[np.float16] | None
    present: npt.NDArray[np.bool_] | None

    def __post_init__(self) -> None:
        self._inserted: dict[int, tuple[Item, npt.NDArray[np.float16]]] = {}

    @classmethod
    def open(cls, run: RunDirectory, variant: str | None) -> ExplainedRun:
        """Open a run's ranker.

        Args:
            variant: "fused", "frozen-text" or "id-only"; None for the first of them that is there.

        Raises:
            LlmgrError: no such ranker, other data, or text vectors that are missing.
        """
        if variant is None:
            variant = next((one for one in VARIANTS if run.ranker(one).is_dir()), VARIANTS[0])
        artefact = open_artefact(run.ranker(variant), "ranker")
        dataset = Dataset.open(open_artefact(run.dataset, "dataset"))
        artefact.require_same_lineage(dataset.artefact)
        stored = StoredRanker.read(artefact.path)
        vectors, present = None, None
        if stored.transform is not None:
            text = read_text_vectors(run.store, dataset, stored.description.fingerprint, stored.description.text_below)
            text = controlled_text(text, controls_of(artefact).text_vectors)
            vectors, present = text.vectors, text.present
        runtime = RankerRuntime(stored.parts(artefact.digest, dataset.item_ids), vectors, present)
        return cls(run, artefact, stored, dataset, runtime, vectors, present)

    @cached_property
    def attention(self) -> AttentionReader:
        return AttentionReader(self.stored)

    @cached_property
    def cleaner(self) -> TextCleaner:
        return TextCleaner.from_state(self.dataset.cleaner_state)

    def indices(self, item_ids: Sequence[str]) -> Indices:
        """Indices of items; one that only the store knows (inserted since) is taken into the ranker.

        Raises:
            InputError: an id that neither knows; the message names known ones that it may have been meant for.
        """
        found = [self._index(item_id) for item_id in item_ids]
        return np.array(found, dtype=np.int64)

    def item_id(self, index: int) -> str:
        return self.runtime.snapshot.item_id(index)

    def title(self, index: int) -> str:
        """Title of an item, "" where it has none."""
        if index in self._inserted:
            return self._inserted[index][0].title or ""
        return self.dataset.titles[index] or ""

    def training_clicks(self, index: int) -> int:
        return int(self.dataset.train_counts[index]) if index < self.dataset.num_items else 0

    def text(self, index: int) -> ItemText:
        """What the language model reads of an item."""
        inserted = self._inserted.get(index)
        item = inserted[0] if inserted else self.dataset.item(index)
        text = self.cleaner.clean(item) if inserted else self.dataset.texts[index]
        settings = self.cleaner.settings
        attributes = item_parts(item, CHARACTERS_PER_TOKEN * settings.max_tokens, settings.attributes)[0]
        return ItemText(text, tuple(attributes))

    def vector(self, index: int) -> npt.NDArray[np.float16] | None:
        """e_v of an item, float16 [D], or None."""
        if index in self._inserted:
            return self._inserted[index][1]
        if self.vectors is None or self.present is None or not self.present[index]:
            return None
        vector: npt.NDArray[np.float16] = self.vectors[index]
        return vector

    def all_vectors(self) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]] | None:
        """e_v of every item that the ranker knows by now, and who has one; None for a ranker without text."""
        if self.vectors is None or self.present is None:
            return None
        added = [self._inserted[index][1][None] for index in sorted(self._inserted)]
        present = np.append(self.present, np.ones(len(added), dtype=np.bool_))
        return np.concatenate([self.vectors, *added]), present

    def language_model(self, settings: EngineSettings, reporter: Reporter) -> Embed:
        """The engine that made the ranker's text vectors, batched, under a progress bar.

        Raises:
            LlmgrError: the ranker has no text of its own, or this machine has another engine.
        """
        from llmgr_core.engine import SemanticEngine
        from llmgr_core.store.records import half_precision

        control = controls_of(self.artefact).text_vectors
        if self.stored.transform is None or control != "own":
            raise InputError(
                f"the ranker in {self.artefact.path} reads no text" if control == "own" else f"its text vectors are {control}",
                "leave --words out, or choose a ranker with text: --variant fused",
            )
        tuned = self.stored.description.variant == "fused"
        engine = SemanticEngine.from_tuned(open_artefact(self.run.tuned, "tuned"), settings) if tuned else None
        engine = engine or SemanticEngine.load(settings)
        if engine.fingerprint(self.cleaner.digest) != self.stored.description.fingerprint:
            raise ArtefactError(
                f"the language model here is not the one whose vectors {self.artefact.path} was trained with",
                "give the settings of the run with --config",
            )

        def embed(texts: list[str]) -> npt.NDArray[np.float16]:
            vectors = np.empty((len(texts), engine.hidden_size), dtype=np.float16)
            with reporter.bar("texts without a word", len(texts)) as advance:
                for places, part in engine.embed_batches(texts):
                    vectors[places] = [half_precision(vector) for vector in part]
                    advance(len(places))
            return vectors

        return embed

    def _index(self, item_id: str) -> int:
        index = self.runtime.snapshot.index_of(item_id)
        if index == UNKNOWN:
            index = self._insert_from_store(item_id)
        if index == UNKNOWN:
            raise InputError(
                f"no item {item_id!r} among the {self.dataset.num_items:,} of {self.run.root}", self._meant(item_id)
            )
        return index

    def _insert_from_store(self, item_id: str) -> int:
        from llmgr_core.store import EmbeddingStore
        from llmgr_core.store.item_record import decode_item

        if self.stored.transform is None or not item_id:
            return UNKNOWN
        with EmbeddingStore.open(self.run.store) as store:
            vector = self._stored_vector(store, item_id)
            found = store.get_item(item_id)
        if vector is None or found is None:
            return UNKNOWN
        self.runtime.apply([RowChange(item_id, vector)])
        index = self.runtime.snapshot.index_of(item_id)
        if index != UNKNOWN:
            self._inserted[index] = decode_item(item_id, found.record), vector
        return index

    def _stored_vector(self, store: EmbeddingStore, item_id: str) -> npt.NDArray[np.float16] | None:
        vectors, present = store.read_vectors([item_id], self.stored.description.fingerprint)
        return vectors[0] if present[0] else None

    def _meant(self, wanted: str) -> str:
        near = nearest_ids(wanted, self.dataset.item_ids)
        titled = with_words(wanted, self.dataset.titles)
        named = [f"{one} ({self.title(self.runtime.snapshot.index_of(one))[:60]})" for one in near]
        named += [f"{self.item_id(index)} ({self.title(index)[:60]})" for index in titled]
        if not named:
            return "ids are those of the item file; `llmgr explain item 'WORDS OF A TITLE'` names items with these words"
        return "did you mean " + ", ".join(named) + "?"

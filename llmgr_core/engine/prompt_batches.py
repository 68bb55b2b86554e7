"""Batches of both prompt families, ready for the hybrid model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from llmgr_core.engine.hybrid import HybridInput
from llmgr_core.engine.prompts import PromptWords, auxiliary_row, main_row
from llmgr_core.engine.semantic_engine import SemanticEngine
from llmgr_core.graphs import SessionBatch
from llmgr_core.sessions import Examples
from llmgr_core.settings.tune import TuneSettings


@dataclass(frozen=True)
class AuxiliaryBatch:
    """Stage 1: descriptions and candidates.

    Attributes:
        prompts: B auxiliary prompts; entry i of row b refers to ``candidates.flatten()[i]``.
        candidates: int64 [B, C], items to choose from.
        answers: int64 [B], which candidate is described.
        texts: token rows of the item text prompt of each described item, B of them.
    """

    prompts: HybridInput
    candidates: torch.Tensor
    answers: torch.Tensor
    texts: HybridInput

    @property
    def tokens(self) -> int:
        return self.prompts.tokens + self.texts.tokens

    def __len__(self) -> int:
        return len(self.answers)


@dataclass(frozen=True)
class MainBatch:
    """Stage 2: session graphs and what followed.

    Attributes:
        prompts: B main prompts; their entries refer to the N node vectors and, after those, the B session vectors.
        sessions: the sessions as the backbone takes them.
        targets: int64 [B], items that followed.
        candidates: int64 [B, 1 + N], the items that the loss is over, the target first; None takes the whole catalogue.
        last_texts: token rows of the item text prompt of last clicks that have text; None where they are not asked for.
        last_owner: int64 [n], the example each of those rows belongs to.
    """

    prompts: HybridInput
    sessions: SessionBatch
    targets: torch.Tensor
    last_texts: HybridInput | None
    last_owner: torch.Tensor
    candidates: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.prompts.tokens + (self.last_texts.tokens if self.last_texts else 0)

    def __len__(self) -> int:
        return len(self.targets)


class PromptBatches:
    """Builds batches; tokenizes each text once.

    Args:
        engine: tokenizer, device, item text prompt.
        texts: cleaned text of each item, None where it has none.
        titles: title of each item; the cleaned text stands in where there is none.
        settings: section [tune].
        max_clicks: clicks of a session that the backbone sees.
    """

    def __init__(
        self,
        engine: SemanticEngine,
        texts: Sequence[str | None],
        titles: Sequence[str | None],
        settings: TuneSettings,
        max_clicks: int,
    ) -> None:
        self.settings = settings
        self.max_clicks = max_clicks
        self.words = PromptWords(engine.language_model)
        self._engine, self._texts, self._titles = engine, texts, titles
        self._item_rows: dict[int, list[int] | None] = {}
        self._title_tokens: dict[int, list[int]] = {}

    def has_text(self, item: int) -> bool:
        text = self._texts[item]
        return text is not None and bool(text.strip())

    def auxiliary(
        self,
        items: npt.NDArray[np.int64],
        candidates: npt.NDArray[np.int64],
        described: npt.NDArray[np.int64] | None = None,
    ) -> AuxiliaryBatch:
        """Prompts that describe items and ask for them.

        Args:
            items: int64 [B], the right answers.
            candidates: int64 [B, C], each row holds its item exactly once.
            described: int64 [B], items with text whose texts are shown; by default those asked for.
        """
        device, width = self._engine.language_model.device, candidates.shape[1]
        texts = [self._item_row(int(item)) or [] for item in (items if described is None else described)]
        opening, closing = len(self._engine.opening), len(self._engine.closing)
        prompts = [
            auxiliary_row(
                self.words,
                text[opening : len(text) - closing][: self.settings.description_tokens],
                range(place * width, (place + 1) * width),
            )
            for place, text in enumerate(texts)
        ]
        answers = (candidates == items[:, None]).argmax(axis=1)
        return AuxiliaryBatch(
            prompts=HybridInput.from_rows(prompts, device),
            candidates=torch.from_numpy(candidates).to(device),
            answers=torch.from_numpy(answers).to(device),
            texts=HybridInput.from_rows(texts, device),
        )

    def main(self, examples: Examples, with_last_texts: bool, candidates: npt.NDArray[np.int64] | None = None) -> MainBatch:
        """Prompts for the prefixes of these examples.

        Args:
            with_last_texts: also token rows of the last clicks' texts.
            candidates: see MainBatch.
        """
        device = self._engine.language_model.device
        sessions = SessionBatch.from_sessions(examples.prefixes(self.max_clicks))
        offsets, nodes_of = sessions.graph.node_offsets.tolist(), sessions.click_nodes.tolist()
        click_offsets, node_items = sessions.click_offsets.tolist(), sessions.node_items.tolist()
        prompts, last_rows, last_owner = [], [], []
        for place in range(sessions.num_sessions):
            path = nodes_of[click_offsets[place] : click_offsets[place + 1]]
            # A dictionary keeps order: distinct edges and nodes, latest first.
            edges = list(dict.fromkeys(zip(path[-2::-1], path[:0:-1], strict=True)))[: self.settings.prompt_edges]
            latest = list(dict.fromkeys(reversed(path)))
            shown = latest[: max(self.settings.prompt_titles, 1)]
            titles = [(node, self._title(node_items[node])) for node in shown]
            if self.settings.prompt_titles == 0:
                titles = [(node, []) for node, _ in titles]
            nodes = range(offsets[place], offsets[place + 1])
            prompts.append(main_row(self.words, nodes, edges[::-1], titles, sessions.graph.num_nodes + place))
            row = self._item_row(node_items[latest[0]]) if with_last_texts and latest else None
            if row is not None:
                last_rows.append(row)
                last_owner.append(place)
        return MainBatch(
            prompts=HybridInput.from_rows(prompts, device, nodes=sessions.graph.num_nodes),
            sessions=sessions.to(device),
            targets=torch.from_numpy(examples.targets.astype(np.int64)).to(device),
            last_texts=HybridInput.from_rows(last_rows, device) if last_rows else None,
            last_owner=torch.tensor(last_owner, dtype=torch.int64, device=device),
            candidates=None if candidates is None else torch.from_numpy(candidates).to(device),
        )

    def item_lengths(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64 [n], tokens of the item text prompt; 0 for an item without text."""
        return np.array([len(self._item_row(int(item)) or []) for item in items], dtype=np.int64)

    def main_lengths(self, examples: Examples) -> npt.NDArray[np.int64]:
        """int64 [n], about how long each main prompt will be, without building it."""
        clicks = np.minimum(examples.ends - examples.starts, self.max_clicks)
        comma, edge = 1 + len(self.words.between), 2 + len(self.words.between) + len(self.words.to)
        lengths: npt.NDArray[np.int64] = clicks * comma + np.clip(clicks - 1, 0, self.settings.prompt_edges) * edge
        return lengths

    def _item_row(self, item: int) -> list[int] | None:
        if item not in self._item_rows:
            text = self._texts[item]
            self._item_rows[item] = self._engine.item_tokens([text])[0] if text is not None and text.strip() else None
        return self._item_rows[item]

    def _title(self, item: int) -> list[int]:
        if item not in self._title_tokens:
            title = self._titles[item] or self._texts[item] or ""
            found = self._engine.language_model.tokens([title], self.settings.prompt_text_tokens)[0] if title.strip() else []
            self._title_tokens[item] = found
        return self._title_tokens[item]

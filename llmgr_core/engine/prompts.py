"""The words around items and sessions: the item text prompt and the paper's two prompt families.

A change here changes what every vector means: raise PROMPT_VERSION with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmgr_core.engine.hybrid import HybridRow, vector_place
from llmgr_core.engine.language_model import LanguageModel

PROMPT_VERSION = "1"

# The item text prompt, whose pooled hidden state is the stored vector e_v. An encoder was trained on bare sentences; a causal
# model is told what it reads, so that the first tokens, which see nothing before them, are not the item's own.
ITEM_TEXT_BEFORE_CAUSAL = "Product description: "


class PromptWords:
    """The fixed words of both families, tokenized once for one model."""

    def __init__(self, model: LanguageModel) -> None:
        self.opening, self.closing = model.opening, model.closing

        def tokens(text: str) -> list[int]:
            return model.tokens([text], 64)[0]

        self.description = tokens("Description: ")
        self.which_item = tokens(". Which of these items is described? ")
        self.between = tokens(", ")
        self.answer = tokens(". Answer:")
        self.graph = tokens("Session graph. Items: ")
        self.edges = tokens(". Clicks: ")
        self.to = tokens(" to ")
        self.last = tokens(". Last clicked: ")
        self.before = tokens(". Before that: ")
        self.session = tokens(". Session: ")
        self.next_item = tokens(". Next item:")


def auxiliary_row(words: PromptWords, description: Sequence[int], candidates: Sequence[int]) -> HybridRow:
    """Stage 1: "which of these items does this text describe?" (auxiliary prompt).

    Args:
        description: tokens of the item's text.
        candidates: numbers of the candidates' ID vectors within the batch.
    """
    row = [*words.opening, *words.description, *description, *words.which_item]
    for place, candidate in enumerate(candidates):
        row += [*(words.between if place else ()), vector_place(candidate)]
    return [*row, *words.answer, *words.closing]


def main_row(
    words: PromptWords,
    nodes: Sequence[int],
    edges: Sequence[tuple[int, int]],
    titles: Sequence[tuple[int, Sequence[int]]],
    session: int,
) -> HybridRow:
    """Stage 2: nodes, edges and last click of a session graph; "which item comes next?" (main prompt).

    Args:
        nodes: numbers of the node vectors within the batch, in order of first click.
        edges: (source, target) pairs of such numbers, the last ones of the session.
        titles: (node, title tokens) of the last clicks, latest first.
        session: number of the session vector z_s within the batch.
    """
    row = [*words.opening, *words.graph]
    for place, node in enumerate(nodes):
        row += [*(words.between if place else ()), vector_place(node)]
    for place, (source, target) in enumerate(edges):
        row += [*(words.between if place else words.edges), vector_place(source), *words.to, vector_place(target)]
    for place, (node, title) in enumerate(titles):
        row += [*(words.before if place else words.last), vector_place(node), *title]
    return [*row, *words.session, vector_place(session), *words.next_item, *words.closing]

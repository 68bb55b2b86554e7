"""The teacher's top of the catalogue for some training prefixes, computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llmgr_core.artefacts.manifest import hash_value
from llmgr_core.errors import InputError
from llmgr_core.evaluation import Scorer
from llmgr_core.progress import Reporter
from llmgr_core.sessions import Examples

BLOCK = 512
SCORED_AT_ONCE = 128


@dataclass(frozen=True)
class TeacherRankings:
    """What the student imitates.

    Attributes:
        examples: int64 [n], ascending; places among all training prefixes.
        items: int32 [n, K], the teacher's best items, best first.
        logits: float16 [n, K], their logits, each row shifted so that its best is 0.
        target_ranks: int32 [n], the teacher's rank of the target, 1 is best.
    """

    examples: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    logits: npt.NDArray[np.float16]
    target_ranks: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def ndcg20(self) -> float:
        """NDCG@20 of the teacher on these training prefixes; far above its validation figure, it has memorised them."""
        ranks = self.target_ranks.astype(np.float64)
        return float(((ranks <= 20) / np.log2(1.0 + ranks)).mean())


def choose_examples(count: int, limit: int, seed: int) -> npt.NDArray[np.int64]:
    """int64, ascending: which training prefixes the teacher ranks, drawn at random; all of them for limit 0."""
    if limit == 0 or limit >= count:
        return np.arange(count, dtype=np.int64)
    return np.sort(np.random.default_rng([seed, 7]).choice(count, size=limit, replace=False))


def teacher_rankings(
    teacher: Scorer,
    examples: Examples,
    chosen: npt.NDArray[np.int64],
    *,
    top: int,
    cache: Path,
    key: dict[str, Any],
    reporter: Reporter,
) -> TeacherRankings:
    """Let the teacher rank the chosen prefixes; blocks that the cache directory already holds are read, not computed.

    Args:
        teacher: scores all items after a prefix.
        examples: all training prefixes.
        chosen: places in ``examples``.
        top: K.
        cache: directory for the blocks; one safetensors file each, written whole or not at all.
        key: everything that decides the logits (digests of model and data); another key never finds the same files.
        reporter: shows a bar and, in it, how long the rest will take.

    Raises:
        InputError: the teacher gave NaN.
    """
    cache.mkdir(parents=True, exist_ok=True)
    blocks = []
    with reporter.bar("teacher ranks training prefixes", len(chosen)) as advance:
        for start in range(0, len(chosen), BLOCK):
            part = chosen[start : start + BLOCK]
            name = hash_value({**key, "top": top, "examples": part.tolist()})
            path = cache / f"{name}.safetensors"
            block = _read(path, part)
            if block is None:
                block = _rank(teacher, examples, part, top)
                _write(path, block)
            blocks.append(block)
            advance(len(part))
    return TeacherRankings(
        np.concatenate([block.examples for block in blocks]),
        np.concatenate([block.items for block in blocks]),
        np.concatenate([block.logits for block in blocks]),
        np.concatenate([block.target_ranks for block in blocks]),
    )


@torch.inference_mode()
def _rank(teacher: Scorer, examples: Examples, part: npt.NDArray[np.int64], top: int) -> TeacherRankings:
    items, logits, ranks = [], [], []
    for start in range(0, len(part), SCORED_AT_ONCE):
        places = part[start : start + SCORED_AT_ONCE]
        batch = examples.select(places)
        scores = teacher.scores(batch).float()
        if torch.isnan(scores).any():
            raise InputError(f"the teacher gave NaN for training prefix {int(places[0])} or one of the {len(places)} after it")
        values, best = scores.topk(min(top, scores.shape[1]), dim=1)
        target = scores.gather(1, torch.from_numpy(batch.targets.astype(np.int64))[:, None])
        # float16 keeps 3 digits: more than a distribution over 100 items shows.
        logits.append((values - values[:, :1]).clamp(min=-1e4).to(torch.float16).numpy())
        items.append(best.to(torch.int32).numpy())
        ranks.append((1 + (scores > target).sum(dim=1)).to(torch.int32).numpy())
    return TeacherRankings(part, np.concatenate(items), np.concatenate(logits), np.concatenate(ranks))


def _write(path: Path, block: TeacherRankings) -> None:
    temporary = path.with_suffix(".new")
    save_file({"items": block.items, "logits": block.logits, "target_ranks": block.target_ranks}, temporary)
    temporary.replace(path)


def _read(path: Path, part: npt.NDArray[np.int64]) -> TeacherRankings | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as stream:
            block = TeacherRankings(part, *(stream.get_tensor(name) for name in ("items", "logits", "target_ranks")))
    except (OSError, SafetensorError, ValueError):
        return None
    return block if len(block.items) == len(part) else None

"""Ranking on a device: ids in, top-k out, one captured CUDA graph for each size of request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import kernels
from kernels.dispatch import chosen_path
from llmgr_core.encoders.build import build_encoder
from llmgr_core.errors import LlmgrError
from llmgr_core.ranker.device_rows import DeviceRows
from llmgr_core.ranker.online import ResidualHead
from llmgr_core.ranker.ranking import Ranking
from llmgr_core.ranker.runtime import RankerRuntime
from llmgr_core.ranker.session_buffers import LONGEST_SESSION, SessionBuffers, Sizes
from llmgr_core.ranker.snapshot import UNKNOWN, Scan, Snapshot
from llmgr_core.ranker.stored import StoredRanker

CLICK_SIZES = (8, 16, 32, LONGEST_SESSION)
RANKING_SIZES = (20, 128, 1000)
SMALLEST_LIST = 256
SMALLEST_CANDIDATES = 32
WIDEST = 64
SMALLEST_NORM = 1e-6
WARM_UP_RUNS = 2
# Capturing a graph and allocating memory must not meet, whichever ranker of the process does either.
CAPTURING = threading.RLock()
LOG = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DeviceSnapshot(Snapshot):
    """A snapshot that ranks on a device.

    Attributes:
        state: the snapshot it stands for.
        ranking: where it is ranked.
    """

    state: Snapshot
    ranking: GraphedRanking

    def rank(
        self,
        clicks: Indices,
        k: int = 20,
        exclude: Indices | None = None,
        candidates: Indices | None = None,
        include_seen: bool | None = None,
        between: Callable[[], None] | None = None,
        scan: Scan | None = None,
    ) -> Ranking:
        """As ``Snapshot.rank``; a replay is one piece of work: ``between`` is called before it alone, ``scan`` never."""
        if between is not None:
            between()
        return self.ranking.rank(self.state, clicks, k, exclude, candidates, include_seen)


class GraphedRanking:
    """Ranks sessions as ``Snapshot.rank`` does, on a device.

    Rows and masks of the newest state stay on the device and are changed in place. Each size of request (clicks, lists,
    candidates and k, all rounded up) has input tensors that stay where they are, and on CUDA a graph captured on its first
    use: a request is one copy there, one replay and one copy back, and waits once. Graphs are captured again when the rows
    outgrow their memory.

    The host ranks what does not fit: a session without a known click, of more than 63 encoded clicks, k over 1,000, and a
    state that is no longer the newest.

    Args:
        stored: weights of the encoder and the head.
        runtime: follows the changes.
        device: "cuda", or "cpu" for the same without capture.

    Raises:
        LlmgrError: there is no CUDA device, or the encoder is wider than the kernels take.
    """

    def __init__(self, stored: StoredRanker, runtime: RankerRuntime, device: str) -> None:
        require_device(device)
        self._device = torch.device(device)
        settings = stored.description.encoder
        if self._device.type == "cuda" and settings.dimension > WIDEST:
            raise LlmgrError(
                f"a ranker of dimension {settings.dimension} cannot be ranked on {device}, which takes up to {WIDEST}",
                'set serve.device to "cpu"',
            )
        with CAPTURING:
            self._load(stored, runtime)

    def _load(self, stored: StoredRanker, runtime: RankerRuntime) -> None:
        settings = stored.description.encoder
        self._encoder = build_encoder(settings)
        width = stored.description.head_hidden
        self._head = ResidualHead(settings.dimension, width) if width else torch.nn.Identity()
        for name, module in (("encoder.", self._encoder), ("head.", self._head)):
            tensors = {key.removeprefix(name): value for key, value in stored.tensors.items() if key.startswith(name)}
            module.load_state_dict({key: torch.from_numpy(value) for key, value in tensors.items()})
            module.eval().requires_grad_(False).to(self._device)
        self._encoder.freeze()
        self._weighted = settings.edges == "multiplicity"
        self._runtime = runtime
        self._rows = DeviceRows(runtime.snapshot, self._device)
        self._programs: dict[Sizes, _Program] = {}
        # The torch paths of the kernels wait for the device on their way, which a graph cannot.
        captured = self._device.type == "cuda" and chosen_path("ranking", ("torch", "triton"), self._rows.table) == "triton"
        self._pool = torch.cuda.graph_pool_handle() if captured else None
        self._turn = threading.Lock()
        self._view = self._on_device(runtime.snapshot)

    def snapshot(self) -> DeviceSnapshot:
        """The newest state, ranked here."""
        newest, view = self._runtime.snapshot, self._view
        if view.state is not newest:
            # Another thread may be about to set an older one: what is returned is what was asked for.
            view = self._view = self._on_device(newest)
        return view

    def warm_up(self) -> None:
        """Rank every usual size of request once, so that nobody waits for a capture or a compiler."""
        snapshot = self.snapshot()
        items = np.arange(snapshot.num_items, dtype=np.int64)
        for size in CLICK_SIZES:
            clicks = items[: min(size, snapshot.parts.max_clicks)]
            for k in RANKING_SIZES if len(clicks) else ():
                snapshot.rank(clicks, k)
            if len(clicks):
                snapshot.rank(clicks, RANKING_SIZES[0], candidates=items[:SMALLEST_CANDIDATES])

    def rank(
        self,
        snapshot: Snapshot,
        clicks: Indices,
        k: int = 20,
        exclude: Indices | None = None,
        candidates: Indices | None = None,
        include_seen: bool | None = None,
    ) -> Ranking:
        """As ``snapshot.rank``; scores agree within float32 rounding, and so does the order."""
        known = clicks[clicks != UNKNOWN]
        encoded = snapshot.encoded_clicks(known)
        if not 0 < len(encoded) <= LONGEST_SESSION or k > RANKING_SIZES[-1]:
            return snapshot.rank(clicks, k, exclude, candidates, include_seen)
        hidden = np.zeros(0, dtype=np.int64) if exclude is None else exclude[exclude != UNKNOWN]
        if not (snapshot.parts.scoring.include_seen if include_seen is None else include_seen):
            hidden = np.concatenate([hidden, known])
        hidden = np.unique(hidden)
        items, terms = snapshot.transition_terms(known)
        chosen = None if candidates is None else np.unique(candidates[candidates != UNKNOWN])
        sizes = Sizes(
            clicks=next(size for size in CLICK_SIZES if len(encoded) <= size),
            listed=_rounded(max(len(hidden), len(items)), SMALLEST_LIST),
            candidates=0 if chosen is None else _rounded(len(chosen), SMALLEST_CANDIDATES),
            k=next(size for size in RANKING_SIZES if k <= size),
        )
        with self._turn, torch.inference_mode():
            if not self._holds(snapshot):
                return snapshot.rank(clicks, k, exclude, candidates, include_seen)
            program = self._programs.get(sizes) or self._programs.setdefault(sizes, self._program(sizes))
            program.buffers.fill(encoded, hidden, items, terms, chosen, self._rows.spare)
            try:
                ids, scores, lse = program.run()
            except RuntimeError:
                LOG.exception("a request of %s could not be ranked on %s; the host ranks it", sizes, self._device)
                self._programs.pop(sizes, None)
                return snapshot.rank(clicks, k, exclude, candidates, include_seen)
        count = min(k, int(np.count_nonzero(ids >= 0)))
        best = scores[:count]
        return Ranking(ids[:count], best, np.exp(best - lse))

    def _holds(self, snapshot: Snapshot) -> bool:
        """Whether the device holds this state, having taken it in if it is the newest."""
        if self._rows.snapshot is snapshot:
            return True
        if self._runtime.snapshot is not snapshot:
            return False
        with CAPTURING:
            if self._rows.outgrown_by(snapshot):
                # Graphs read the old memory; they go before it does.
                self._programs.clear()
            self._rows.follow(snapshot)
        return True

    def _on_device(self, snapshot: Snapshot) -> DeviceSnapshot:
        values = {field.name: getattr(snapshot, field.name) for field in fields(Snapshot)}
        return DeviceSnapshot(**values, state=snapshot, ranking=self)

    def _program(self, sizes: Sizes) -> _Program:
        with CAPTURING:
            buffers = SessionBuffers(sizes, self._device, self._weighted)
        return _Program(buffers, lambda: self._compute(buffers), self._pool)

    def _compute(self, buffers: SessionBuffers) -> torch.Tensor:
        """Ids as pairs of 32 bits, scores and log-sum-exp: float32 [3k + 1]."""
        rows, parts = self._rows, self._runtime.parts
        batch = buffers.batch()
        vector = self._head(self._encoder(rows.vectors(batch.node_items), batch))[:1]
        factor = 1.0 / parts.scoring.temperature
        if parts.cosine:
            norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True).clamp(min=SMALLEST_NORM)
            vector = vector * (parts.logit_scale / norm)
        ids, scores, lse = kernels.score_topk(
            vector * factor,
            rows.table,
            buffers.sizes.k,
            buffers.excluded(),
            buffers.candidates(),
            buffers.extra(),
            rows.rankable,
        )
        return torch.cat([ids[0].view(torch.float32), scores[0], lse])


class _Program:
    """One size of request: its input, its work, its output; on CUDA a graph of them.

    Args:
        buffers: input.
        work: from the buffers to float32 [3k + 1].
        pool: memory that graphs share, for they never run at the same time; None runs the work as it is.
    """

    def __init__(self, buffers: SessionBuffers, work: Callable[[], torch.Tensor], pool: Any) -> None:
        self.buffers = buffers
        self._work = work
        self._pool = pool
        self._captured: tuple[torch.cuda.CUDAGraph, torch.Tensor] | None = None

    def run(self) -> tuple[Indices, npt.NDArray[np.float32], np.float32]:
        """(ids int64 [k], scores float32 [k], log-sum-exp) of the session in the buffers."""
        k = self.buffers.sizes.k
        answer: npt.NDArray[np.float32] = (self._work().cpu() if self._pool is None else self._replayed()).numpy()
        return answer[: 2 * k].view(np.int64), answer[2 * k : 3 * k], answer[3 * k]

    def _replayed(self) -> torch.Tensor:
        if self._captured is None:
            with CAPTURING:
                self._captured = self._capture()
        graph, out = self._captured
        graph.replay()
        # The copy back is the one wait of a request.
        return out.cpu()

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        for _ in range(WARM_UP_RUNS):
            self._work()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out = self._work()
        return graph, out


def require_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        LlmgrError: with the way out.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise LlmgrError('serve.device is "cuda", but this machine has no CUDA device', 'set serve.device to "cpu"')


def _rounded(count: int, smallest: int) -> int:
    return max(smallest, 1 << max(count - 1, 0).bit_length())

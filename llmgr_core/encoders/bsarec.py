"""BSARec (Shin et al. 2024): self-attention beside a frequency filter over the clicks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import kernels
from llmgr_core.encoders.click_attention import ClickAttention, ClickPositions
from llmgr_core.encoders.encoder import SessionEncoder
from llmgr_core.encoders.ragged_rows import PaddedSessions, last_rows, zero_where_empty
from llmgr_core.graphs import SessionBatch
from llmgr_core.settings.encoder import EncoderSettings

FEED_FORWARD_FACTOR = 4
INITIAL_DEVIATION = 0.02


class BSARec(SessionEncoder):
    """z_s = the last row after ``attention_layers`` blocks over LayerNorm(x_i + p_i) (eq. 6-12).

    Block, with LN(x + Dropout(.)) around each of the three parts, post-norm:
    X' = alpha LN(X + Filter(X)) + (1 - alpha) LN(X + Attention(X))
    F = LN(X' + W_2 GELU(W_1 X' + b_1) + b_2)
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings)
        d = settings.dimension
        self.positions = ClickPositions(settings.max_clicks, d) if settings.positions else None
        self.norm = nn.LayerNorm(d)
        self.blocks = nn.ModuleList(BSARecBlock(settings) for _ in range(settings.attention_layers))
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, node_vectors: Tensor, batch: SessionBatch) -> Tensor:
        if len(node_vectors) == 0:
            return node_vectors.new_zeros(batch.num_sessions, self.settings.dimension)
        rows = kernels.item_rows(node_vectors, batch.click_nodes)
        if self.positions is not None:
            rows = rows + self.positions(batch)
        rows = self.dropout(self.norm(rows))
        sessions = PaddedSessions(batch, self.settings.max_clicks)
        for number, block in enumerate(self.blocks, start=1):
            rows = block(rows, batch, sessions, last_only=number == len(self.blocks))
        return zero_where_empty(rows, batch)


class BSARecBlock(nn.Module):
    """One block."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        d = settings.dimension
        self.share = settings.filter_share
        self.filter = FrequencyFilter(d, settings.max_clicks, settings.frequencies)
        self.filter_norm = nn.LayerNorm(d)
        self.attention = ClickAttention(d, settings.attention_heads, settings.dropout)
        self.output = nn.Linear(d, d)
        self.attention_norm = nn.LayerNorm(d)
        self.inner = nn.Linear(d, FEED_FORWARD_FACTOR * d)
        self.outer = nn.Linear(FEED_FORWARD_FACTOR * d, d)
        self.feed_forward_norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, rows: Tensor, batch: SessionBatch, sessions: PaddedSessions, last_only: bool) -> Tensor:
        """[T, d] -> [T, d]; with ``last_only`` the last row of each session, [B, d]."""
        own = last_rows(rows, batch) if last_only else rows
        filtered = self.filter_norm(own + self.dropout(self.filter(own, rows, sessions, last_only)))
        attended = self.output(self.attention(own, rows, sessions, last_only))
        attended = self.attention_norm(own + self.dropout(attended))
        mixed = self.share * filtered + (1.0 - self.share) * attended
        fed = self.outer(functional.gelu(self.inner(mixed)))
        normed: Tensor = self.feed_forward_norm(mixed + self.dropout(fed))
        return normed


class FrequencyFilter(nn.Module):
    """LFC(X) + beta^2 * (X - LFC(X)), beta learned for each column (eq. 7-9).

    LFC keeps the c lowest of the N = ``max_clicks`` frequencies of the clicks, zeros before the first click: F^-1 M F X with
    the discrete Fourier transform F of N steps and the 0/1 mask M of frequencies -c/2 .. c/2 rounded down (an even c counts
    as c + 1, as in the authors' code). That is a circular convolution, whose kernel is made once; clicks aligned at the last
    meet each other at the same distances in a block of any width, so no session is padded to N.

    Args:
        dimension: d.
        max_clicks: N.
        frequencies: c.
    """

    kernel: Tensor

    def __init__(self, dimension: int, max_clicks: int, frequencies: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.randn(dimension))
        place = torch.arange(max_clicks)
        frequency = torch.minimum(place, max_clicks - place)
        passed = (frequency <= frequencies // 2).double()
        # kernel[i, j] = g((i - j) mod N), g the inverse transform of the mask.
        g = torch.fft.ifft(passed).real
        self.register_buffer("kernel", g[(place[:, None] - place) % max_clicks].float(), persistent=False)

    def forward(self, own: Tensor, rows: Tensor, sessions: PaddedSessions, last_only: bool) -> Tensor:
        """Filter the rows of clicks, float [T, d]; ``own`` are those to return, [B, d] with ``last_only``."""
        blocks = sessions.padded(rows)
        widths = [block.shape[1] for block in blocks]
        if last_only:
            low = sessions.by_session([self.kernel[w - 1, :w] @ block for w, block in zip(widths, blocks, strict=True)])
        else:
            low = sessions.flat([self.kernel[:w, :w] @ block for w, block in zip(widths, blocks, strict=True)])
        return low + self.beta.square() * (own - low)

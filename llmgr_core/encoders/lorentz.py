"""The Lorentz model of hyperbolic space: one sheet of a hyperboloid in R^{d+1}, curvature -1.

H^d = {x : <x, x>_L = -1, x_0 > 0} with <x, y>_L = -x_0 y_0 + sum_i x_i y_i (Nickel & Kiela 2018). A point is given by the
tangent vector v in R^d at the origin o = (1, 0, ..., 0) that leads to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# -<x, y>_L loses about cosh(r)^2 of its 1.2e-7 in float32: 0.0007 at this radius. Two points can be 10 apart.
LARGEST_RADIUS = 5.0
_SMALLEST_SQUARE = 1e-14


def within_reach(tangents: Tensor) -> Tensor:
    """Shorten tangent vectors at the origin, float [..., d], to LARGEST_RADIUS; shorter ones stay as they are."""
    return tangents * (LARGEST_RADIUS / _norm(tangents)).clamp(max=1.0)


def from_origin(tangents: Tensor) -> Tensor:
    """exp_o(v) = (cosh |v|, sinh |v| v / |v|): float [..., d] -> [..., d + 1]; v is first brought within reach."""
    length = _norm(tangents)
    space = tangents * (torch.sinh(length.clamp(max=LARGEST_RADIUS)) / length)
    # Equal to cosh |v|, and on the hyperboloid to the last bit of ``space``.
    time = torch.sqrt(1.0 + space.square().sum(dim=-1, keepdim=True))
    return torch.cat([time, space], dim=-1)


def mirrored(points: Tensor) -> Tensor:
    """(-x_0, x_1, ..., x_d): <x, y>_L is the plain inner product of x with the mirrored y."""
    return torch.cat([-points[..., :1], points[..., 1:]], dim=-1)


def distance(x: Tensor, y: Tensor) -> Tensor:
    """d_L(x, y) = arcosh(-<x, y>_L) between points that broadcast: float [..., d + 1] twice -> [...]."""
    apart = x - y
    return distance_from_square(apart[..., 1:].square().sum(dim=-1) - apart[..., 0].square())


def distance_from_square(square: Tensor) -> Tensor:
    """d_L from <x - y, x - y>_L = -2 - 2 <x, y>_L, which is 4 sinh^2(d_L / 2); rounding below zero counts as zero."""
    return 2.0 * torch.asinh(0.5 * square.clamp(min=_SMALLEST_SQUARE).sqrt())


def _norm(vectors: Tensor) -> Tensor:
    """Length of each vector, [..., 1]; tiny instead of zero, where the gradient of a root is infinite."""
    return vectors.square().sum(dim=-1, keepdim=True).clamp(min=_SMALLEST_SQUARE).sqrt()

"""Hyperbolic maps: inverse to each other, on the hyperboloid, finite everywhere."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgr_core.encoders import EncoderSettings, ItemLogits, lorentz

RADII = [0.0, 1e-20, 1e-8, 1e-4, 0.1, 1.0, 3.0, 4.99, 5.0, 5.01, 100.0, 1e18]


def directions(count: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def log_o(points: torch.Tensor) -> torch.Tensor:
    """arcosh(x_0) x_{1:} / |x_{1:}|, the inverse of the exponential map; arcosh(x_0) = arsinh |x_{1:}| near the origin too."""
    length = points[..., 1:].norm(dim=-1, keepdim=True).clamp(min=1e-30)
    return points[..., 1:] * (torch.asinh(length) / length)


def inner(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """<x, y>_L, written out."""
    return -x[..., 0] * y[..., 0] + (x[..., 1:] * y[..., 1:]).sum(dim=-1)


@settings(max_examples=25, deadline=None)
@given(radius=st.floats(0.0, lorentz.LARGEST_RADIUS - 0.01), seed=st.integers(0, 100))
def test_maps_at_the_origin_undo_each_other(radius, seed):
    tangents = directions(5, seed=seed) * radius
    points = lorentz.from_origin(tangents)
    torch.testing.assert_close(log_o(points), tangents, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(lorentz.from_origin(log_o(points)), points, rtol=1e-9, atol=1e-12)


def test_the_map_is_the_formula_of_the_exponential_map():
    tangents = directions(4) * 2.0
    time = torch.full((4, 1), math.cosh(2.0), dtype=torch.float64)
    expected = torch.cat([time, math.sinh(2.0) * tangents / 2.0], dim=1)
    torch.testing.assert_close(lorentz.from_origin(tangents), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_stand_on_the_upper_sheet(dtype):
    points = lorentz.from_origin(torch.cat([directions(7) * radius for radius in RADII]).to(dtype))
    assert (points[:, 0] >= 1).all()
    # Two squares of about cosh(r)^2 cancel.
    rounding = 8 * torch.finfo(dtype).eps * points[:, 0].square()
    assert ((inner(points, points) + 1).abs() <= rounding).all()


def test_the_distance_to_the_origin_is_the_length_up_to_the_largest():
    radii = torch.tensor([0.0, 0.01, 0.5, 2.0, 5.0, 50.0], dtype=torch.float64)
    points = lorentz.from_origin(directions(6) * radii[:, None])
    found = lorentz.distance(points, lorentz.from_origin(torch.zeros(6, dtype=torch.float64)))
    torch.testing.assert_close(found, radii.clamp(max=lorentz.LARGEST_RADIUS), rtol=1e-6, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), radius=st.floats(0.1, 3.0))
def test_the_distance_is_a_metric_and_the_formula(seed, radius):
    x, y, z = (lorentz.from_origin(directions(8, seed=3 * seed + k) * radius) for k in range(3))
    torch.testing.assert_close(lorentz.distance(x, y), torch.acosh(-inner(x, y)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(lorentz.distance(x, y), lorentz.distance(y, x))
    assert (lorentz.distance(x, z) <= lorentz.distance(x, y) + lorentz.distance(y, z) + 1e-9).all()
    assert (lorentz.distance(x, x) < 1e-6).all()


@pytest.mark.parametrize("radius", RADII)
def test_values_and_gradients_are_finite_at_zero_and_far_away(radius):
    tangents = (directions(3) * radius).float().requires_grad_()
    points = lorentz.from_origin(tangents)
    other = lorentz.from_origin(directions(3, seed=1).float() * 5)
    values = [points, lorentz.distance(points, other), lorentz.distance(points, points)]
    for value in values:
        assert torch.isfinite(value).all()
    torch.stack([value.sum() for value in values]).sum().backward()
    assert torch.isfinite(tangents.grad).all()


def test_lorentz_logits_rank_as_the_geodesic_distance_and_their_loss_is_the_cross_entropy():
    logits = ItemLogits(EncoderSettings(logits="lorentz", scale=3.0, learn_scale=True))
    generator = torch.Generator().manual_seed(2)
    sessions = torch.randn(4, 8, generator=generator, requires_grad=True)
    items = torch.randn(30, 8, generator=generator, requires_grad=True)
    scores = logits(sessions, items)
    x, y = lorentz.from_origin(sessions).detach(), lorentz.from_origin(items).detach()
    apart = torch.acosh(-inner(x[:, None].double(), y[None].double()))
    assert scores.argsort(dim=1, descending=True).tolist() == apart.argsort(dim=1).tolist()
    torch.testing.assert_close(scores.double(), -1.5 * 4 * torch.sinh(apart / 2) ** 2, rtol=1e-4, atol=1e-3)
    targets = torch.tensor([3, 7, 7, 29])
    loss = logits.loss(sessions, items, targets)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, targets), rtol=1e-5, atol=1e-5)
    loss.backward()
    for tensor in (sessions, items, logits.log_scale):
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0

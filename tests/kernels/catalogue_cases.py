"""Batches of sessions against a catalogue, and the loss and gradients that the definition gives them in float64."""

from __future__ import annotations

import torch

from kernels.catalogue_cross_entropy.reference import catalogue_cross_entropy_reference

# Largest error over the largest value, and root mean squares: research on such kernels in the interpreter asks no more.
BOUNDS = {torch.float64: (1e-12, 1e-13), torch.float32: (1e-5, 1e-6), torch.float16: (4e-3, 2e-3)}


def draw(sessions, items, dimension=5, dtype=torch.float64, scale=3.0, seed=0, size=1.0):
    """Inputs of the function: (z, table, target, scale), the floats asking for gradients."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(sessions, dimension, dtype=torch.float64, generator=generator).mul(size).to(dtype)
    table = torch.randn(items, dimension, dtype=torch.float64, generator=generator).to(dtype)
    target = torch.randint(0, items, (sessions,), generator=generator)
    factor = torch.tensor(scale, dtype=torch.promote_types(dtype, torch.float32))
    return z.requires_grad_(), table.requires_grad_(), target, factor.requires_grad_()


def gradients(function, z, table, target, scale, cosine, reduction="mean", pull=1.0):
    """Loss and gradients with respect to z, table and scale."""
    loss = function(z, table, target, scale, cosine, reduction)
    return [loss, *torch.autograd.grad((loss * pull).sum(), [z, table, scale])]


def definition(z, table, target, scale, cosine, reduction="mean", pull=1.0):
    """The same by the definition in float64."""
    wide = [tensor.detach().double().requires_grad_() for tensor in (z, table, scale)]
    return gradients(catalogue_cross_entropy_reference, wide[0], wide[1], target, wide[2], cosine, reduction, pull)


def assert_close(found, expected, dtype):
    """Both measures of error within the bounds of the dtype."""
    largest, mean_square = BOUNDS[dtype]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert not one.isnan().any()
        error, size = (one.double() - other).detach(), other.detach()
        assert float(error.abs().max()) <= largest * float(size.abs().max().clamp(min=1e-3))
        assert float(error.square().mean().sqrt()) <= mean_square * float(size.square().mean().sqrt().clamp(min=1e-3))

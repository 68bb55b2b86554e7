"""Cross-entropy over the catalogue in plain torch operations."""

from kernels.catalogue_cross_entropy.reference import catalogue_cross_entropy_reference as catalogue_cross_entropy_torch

__all__ = ["catalogue_cross_entropy_torch"]

"""GC-SAN's self-attention block in plain torch operations."""

from kernels.session_attention.reference import session_attention_reference as session_attention_torch

__all__ = ["session_attention_torch"]

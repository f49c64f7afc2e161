"""Attention in Triton: the kernels, and what launches them."""

from lorentz_kernels.attention.triton.launch import backward, forward

__all__ = ["backward", "forward"]

"""Attention in Triton: the kernels, and what launches them."""

from lorentz_kernels.attention.triton.launch import backward, forward, tile, tile_backward

__all__ = ["backward", "forward", "tile", "tile_backward"]

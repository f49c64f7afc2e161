"""The specification of `scaled_direction`: a vector brought to a given length."""

from __future__ import annotations

import torch
from torch import Tensor

from lorentz_kernels.precision import widen


def scaled_direction(v: Tensor, radius: Tensor) -> Tensor:
    """Return radius v / |v|, (..., n), in the dtype of v; `radius` is (..., 1)."""
    return (radius * unit(v)).to(v.dtype)


def unit(v: Tensor) -> Tensor:
    """Return v / |v| along the last dimension, in float32 or better; a zero vector stays zero, with gradient one.

    Exact at every length whose square root can be represented; below it (1e-19 in float32) the vector counts as zero,
    because the gradient 1 / |v| would overflow.
    """
    v = widen(v)
    largest = v.detach().abs().amax(-1, keepdim=True)
    zero = largest < torch.finfo(v.dtype).tiny ** 0.5
    v = v / torch.where(zero, 1.0, largest)  # so that no square underflows
    squared = (v * v).sum(-1, keepdim=True)
    return v / torch.where(zero, 1.0, squared).sqrt()

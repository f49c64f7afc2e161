"""`scaled_direction` without Triton: the length once, and one pass over the rows."""

from __future__ import annotations

import torch
from torch import Tensor

SHORT = 1e-12  # squares of lengths from here to 1 / SHORT keep all digits in float32


def forward(v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Return the result and `lengths`."""
    length = lengths(v)
    return (v * (radius / length.abs())).to(v.dtype).contiguous(), length


def backward(grad: Tensor, v: Tensor, radius: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of v, (N, n), and of the radius, (N, 1)."""
    zero, length = length < 0, length.abs()
    seen, wide = v.float(), grad.float()
    along = torch.linalg.vecdot(wide, seen).unsqueeze(-1) / length
    ratio = radius / length
    share = torch.where(zero, 0.0, ratio * (along / length))
    return (wide * ratio).addcmul_(seen, share, value=-1).to(v.dtype).contiguous(), along


def lengths(v: Tensor) -> Tensor:
    """Return |v|, (N, 1) in float32: 1, and negative as a sign, where v counts as zero."""
    length = _length(v)
    return torch.where(length < torch.finfo(torch.float32).tiny ** 0.5, -1.0, length)


def _length(v: Tensor) -> Tensor:
    """Return |v|, (N, 1) in float32, from squares in float64, which do not underflow, unless none in float32 would."""
    if v.device.type == "cpu" and type(v) is Tensor:  # whose values nobody waits for
        length = torch.linalg.vector_norm(v, dim=-1, keepdim=True, dtype=torch.float32)
        if bool(((length > SHORT) & (length < 1 / SHORT)).all()):
            return length
    return torch.linalg.vector_norm(v, dim=-1, keepdim=True, dtype=torch.float64).float()

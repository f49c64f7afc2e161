"""Which dtype a formula runs in: times and distances are formed in float32 or better, whatever the coordinates are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

Curvature = float | Tensor
"""The curvature is `-c`. `c` is a float, or a tensor of shape (), (1,) or (..., 1) that broadcasts against rows."""


def widen(x: Tensor) -> Tensor:
    """Return `x` in float32 or better: times and distances are never formed in 16 bits."""
    return x.float() if x.dtype.itemsize < 4 else x


def curvature(c: Curvature, like: Tensor) -> Curvature:
    """Return `c` so that it changes no dtype: a float stays a float, a tensor takes the dtype of `like`."""
    return c.to(like.dtype) if isinstance(c, Tensor) else c


def on_device(value: float | Tensor, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a number as a tensor where `like` is; a float is written there, not copied: CUDA graphs record no copy."""
    if isinstance(value, Tensor):
        return value.to(like.device, dtype)
    return torch.full((), value, dtype=dtype, device=like.device)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Keep autocast from rounding a product, whose terms cancel, to 16 bits."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)

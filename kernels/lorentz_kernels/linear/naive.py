"""The specification of `linear` and `linear_with_time`: a linear map of ambient coordinates, activation and time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lorentz_kernels.linear.activation import apply

Curvature = float | Tensor


def linear(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    bias: Tensor | None = None,
    c: Curvature = 1.0,
    *,
    activation: str | None = None,
    x0: Tensor | None = None,
) -> Tensor:
    """Return f(W x + w_t x0 + b): (..., in) to (..., out), in the dtype of `torch.nn.functional.linear`."""
    space = F.linear(x, weight, bias)
    return apply(activation or "", (space + (time(x, c) if x0 is None else x0) * time_weight).to(space.dtype))


def linear_with_time(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    bias: Tensor | None = None,
    c: Curvature = 1.0,
    *,
    activation: str | None = None,
    x0: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the same, y, and its time y0 = sqrt(1/c + |y|^2), (..., 1)."""
    y = linear(x, weight, time_weight, bias, c, activation=activation, x0=x0)
    return y, time(y, c)


def time(x: Tensor, c: Curvature = 1.0) -> Tensor:
    """Return x0 = sqrt(1/c + |x|^2), (..., 1), in float32 or better."""
    x = x.float() if x.dtype.itemsize < 4 else x
    inverse = 1 / (c.to(x.dtype) if isinstance(c, Tensor) else c)
    return (inverse + (x * x).sum(-1, keepdim=True)).sqrt()

"""The specification of `gated_linear`: two linear maps of the same ambient coordinates, and a length."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lorentz_kernels.linear import naive as linear
from lorentz_kernels.linear.naive import Curvature
from lorentz_kernels.precision import widen
from lorentz_kernels.scaled_direction import naive as scaled_direction

Radius = Callable[..., Tensor]
"""radius(logit, c, *parameters), by row: (..., 1) to (..., 1)."""


class Map(NamedTuple):
    """W x + w_t x0 + b."""

    weight: Tensor  # (out, in)
    time_weight: Tensor  # (out)
    bias: Tensor | None  # (out)


def gated_linear(
    x: Tensor, direction: Map, gate: Map, radius: Radius, c: Curvature = 1.0, *parameters: float | Tensor
) -> Tensor:
    """Return r z / |z|, (..., out), for z = W x + w_t x0 + b and r = radius(v.x + w x0 + b', c, ...)."""
    length = radius(widen(linear.linear(x, *gate, c)), c, *parameters)
    return scaled_direction.scaled_direction(linear.linear(x, *direction, c), length)

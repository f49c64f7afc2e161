"""A state of Riemannian Adam on its way: what its tests step from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lorentz_kernels.riemannian_adam import adam_step

STEP = 4  # the number of the step that comes next


class Problem(NamedTuple):
    """Points, the gradient there, and moments."""

    x: Tensor
    grad: Tensor
    w: Tensor
    v: Tensor
    v_max: Tensor

    def to(self, dtype: torch.dtype) -> Problem:
        return Problem(*(tensor.to(dtype) for tensor in self))

    def clone(self) -> Problem:
        return Problem(*(tensor.clone() for tensor in self))


def problem(*shape: int, c: float = 1.0, radius: float = 1.0) -> Problem:
    """Points of float64 around `radius`, after three steps with gradients of any size from 1e-2 to 10."""
    generator = torch.Generator().manual_seed(sum(shape))

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, w = radius * normal() / max(1, shape[-1]) ** 0.5, torch.zeros(shape, dtype=torch.float64)
    v = v_max = torch.zeros(*shape[:-1], 1, dtype=torch.float64)
    sizes = torch.logspace(-2, 1, shape[0], dtype=torch.float64).view(-1, *[1] * (len(shape) - 1))
    for step in range(1, STEP):
        x, w, v, v_max = adam_step(x, sizes * normal(), w, v, step, lr=0.1, c=c, v_max=v_max)
    return Problem(x, sizes * normal(), w, v, 1.5 * v_max)

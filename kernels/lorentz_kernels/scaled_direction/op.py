r"""`scaled_direction` for callers: one pass forward and one backward.

With :math:`n = |v|` and upstream gradient g, :math:`y = \frac{r}{n} v`,

.. math::
    dr = \frac{g \cdot v}{n}, \qquad dv = \frac{r}{n} \left( g - \frac{g \cdot v}{n^2} v \right).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.dispatch import choose, composes
from lorentz_kernels.registry import operator
from lorentz_kernels.scaled_direction import closed, naive

WIDEST = 16384  # a row is held in the registers of one block


def scaled_direction(v: Tensor, radius: Tensor, *, backend: str | None = None) -> Tensor:
    """Return radius v / |v|; a zero vector stays zero, with gradient `radius`.

    Args:
        v: (..., n).
        radius: (..., 1), in float32 or better.
        backend: "triton" or "torch" instead of what `dispatch.choose` picks. Triton takes up to 16384 numbers a row.

    Returns:
        (..., n) in the dtype of v, differentiable in both, at any order and in forward mode.

    Raises:
        ValueError: the shapes do not fit, or the backend cannot run.
    """
    if radius.shape != (*v.shape[:-1], 1):
        raise ValueError(f"expected radius {(*v.shape[:-1], 1)}, got {tuple(radius.shape)}")
    chosen = choose(v, radius, backend=backend) if v.shape[-1] <= WIDEST else "torch"
    compiled = chosen == "torch" and torch.compiler.is_compiling()  # the compiler fuses more than a closed form does
    if compiled or composes(v, radius) or v.dtype == torch.float64:
        return naive.scaled_direction(v, radius)  # in float64 there is no wider dtype for the squares
    rows = v.reshape(-1, v.shape[-1]), radius.reshape(-1, 1).float()
    result: Tensor = _ScaledDirection.apply(*rows, chosen == "triton")
    return result.view(v.shape)


class _ScaledDirection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, radius: Tensor, triton: bool) -> Tensor:
        y, length = (_forward if triton else closed.forward)(v, radius)
        ctx.save_for_backward(v, radius, length)
        ctx.triton = triton
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        v, radius, length = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: the composition knows it
            y = naive.scaled_direction(v, radius)
            of_v, of_radius = torch.autograd.grad(y, (v, radius), grad, create_graph=True)
        else:
            of_v, of_radius = (_backward if ctx.triton else closed.backward)(grad, v, radius, length)
        return of_v, of_radius, None


def _launch(v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    from lorentz_kernels.scaled_direction import triton

    return triton.forward(v, radius)


def _launch_backward(grad: Tensor, v: Tensor, radius: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    from lorentz_kernels.scaled_direction import triton

    return triton.backward(grad, v, radius, length)


_forward = operator(
    "scaled_direction(Tensor v, Tensor radius) -> (Tensor, Tensor)",
    triton=_launch,
    torch_path=closed.forward,
    fake=lambda v, radius: (v.new_empty(v.shape), radius.new_empty(radius.shape)),
)
_backward = operator(
    "scaled_direction_backward(Tensor grad, Tensor v, Tensor radius, Tensor length) -> (Tensor, Tensor)",
    triton=_launch_backward,
    torch_path=closed.backward,
    fake=lambda grad, v, radius, length: (v.new_empty(v.shape), radius.new_empty(radius.shape)),
)

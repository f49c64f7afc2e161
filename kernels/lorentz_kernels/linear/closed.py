"""`linear` without Triton: three products and what fits beside them, the time term riding in the product's output.

A product that adds to its output costs no more than one that overwrites it, so b + w_t x0 is written there first, in
one pass, and in the backward r x, the part of the gradient that comes through the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz_kernels.linear.activation import FROM_OUTPUT, Epilogue, apply, gradient
from lorentz_kernels.linear.naive import Curvature


class Result(NamedTuple):
    """What a forward gives: for rows (N, in) the output (N, out), and what the backward needs."""

    y: Tensor
    x0: Tensor  # (N, 1)
    kept: Tensor | None  # see `Epilogue`; none where it is y
    y0: Tensor | None  # (N, 1), where it was asked for


class Gradients(NamedTuple):
    r"""Gradients, none where nobody needs it, given that before the epilogue, g (N, out).

    .. math::
        r = \frac{g \cdot w_t}{x_0}, \quad dx = W^T g + r\,x, \quad dW = \sum g x^T, \quad dw_t = \sum x_0 g, \quad
        db = \sum g, \quad dc = - \frac{1}{2 c^2} \Bigl(\sum r + \sum \frac{dy_0}{y_0}\Bigr).

    Where the time is given, dx = W^T g and dx0 = g . w_t.
    """

    x: Tensor | None
    weight: Tensor | None
    time_weight: Tensor | None
    bias: Tensor | None
    c: Tensor | None
    x0: Tensor | None


def forward(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    bias: Tensor | None,
    c: Curvature,
    x0: Tensor | None,
    dtype: torch.dtype,
    activation: str,
    timed: bool,
) -> Result:
    """Return the result in `dtype` for x (N, in); no gradient."""
    x0 = time(x, c) if x0 is None else x0
    if dtype.itemsize < 4:
        space = F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
        before = (space + x0 * time_weight).to(dtype)
    else:
        before = x0 * time_weight if bias is None else torch.addcmul(bias, x0, time_weight)
        before = before.addmm_(x, weight.mT)
    if activation in FROM_OUTPUT:  # in the place of what came in
        y, kept = {"": lambda y: y, "relu": torch.relu_, "tanh": torch.tanh_}[activation](before), None
    else:
        y, kept = apply(activation, before), before
    return Result(y, x0, kept, time(y, c) if timed else None)


def backward(
    grad: Tensor,
    x: Tensor,
    x0: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    c: Curvature,
    derived: bool,
    epilogue: Epilogue,
    needed: Sequence[bool],
) -> Gradients:
    """Return the gradients that are needed for that of the output, (N, out); `derived`: x0 is that of x."""
    grad = gradient(grad, epilogue)
    wide = grad.to(x0.dtype)
    slope = (wide @ time_weight.to(x0.dtype)).unsqueeze(-1)
    ratio = slope / x0 if derived else None
    sums = None
    if needed[3]:
        sums = torch.cat([x0, torch.ones_like(x0)], dim=1).mT @ wide
    elif needed[2]:
        sums = x0.mT @ wide
    return Gradients(
        x=_through_product(grad, weight, x, ratio) if needed[0] else None,
        weight=(grad.mT @ x.to(grad.dtype)).to(weight.dtype) if needed[1] else None,
        time_weight=None if sums is None else sums[0].to(time_weight.dtype),
        bias=sums[1] if needed[3] and sums is not None else None,
        c=of_curvature(ratio, epilogue, c) if needed[4] else None,
        x0=slope if needed[5] else None,
    )


def of_curvature(ratio: Tensor | None, epilogue: Epilogue, c: Curvature) -> Tensor | None:
    """Return the gradient in c through the times that are derived, none where none is."""
    through = [] if ratio is None else [ratio.sum()]
    if epilogue.y0 is not None and epilogue.to_y0 is not None:
        through.append((epilogue.to_y0 / epilogue.y0).sum())
    return torch.stack(through).sum() / (-2 * c * c) if through else None


def time(x: Tensor, c: Curvature) -> Tensor:
    """Return sqrt(1/c + |x|^2), (N, 1), in float32 or better, in one pass."""
    wide = x.float() if x.dtype.itemsize < 4 else x
    return torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().add_(1 / c).sqrt_()


def _through_product(grad: Tensor, weight: Tensor, x: Tensor, ratio: Tensor | None) -> Tensor:
    """Return grad weight + ratio x, in the place of the second where dtypes agree."""
    if ratio is None:
        return (grad @ weight.to(grad.dtype)).to(x.dtype)
    start = ratio * x
    if start.dtype == grad.dtype == weight.dtype:
        return start.addmm_(grad, weight)
    return (start + grad @ weight.to(grad.dtype)).to(x.dtype)

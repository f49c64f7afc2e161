"""`linear` without Triton: three products and what fits beside them, the time term riding in the product's output.

A product that adds to its output costs no more than one that overwrites it, so b + w_t x0 is written there first, in
one pass, and in the backward r x, the part of the gradient that comes through the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz_kernels.linear.naive import Curvature, Gradients


def forward(
    x: Tensor, weight: Tensor, time_weight: Tensor, bias: Tensor | None, c: Curvature, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the result in `dtype`, (N, out), and the time of x, (N, 1), for x (N, in); no gradient."""
    wide = x.float() if x.dtype.itemsize < 4 else x
    x0 = (torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_() + 1 / c).sqrt_().to(wide.dtype)
    if dtype.itemsize < 4:
        space = F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
        return (space + x0 * time_weight).to(dtype), x0
    start = x0 * time_weight if bias is None else torch.addcmul(bias, x0, time_weight)
    return start.addmm_(x, weight.mT), x0


def backward(
    grad: Tensor,
    x: Tensor,
    x0: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    c: Curvature,
    needed: Sequence[bool],
) -> Gradients:
    """Return the gradients that are needed, in the order of `Gradients`, for a gradient of rows, (N, out)."""
    wide = grad.to(x0.dtype)
    ratio = (wide @ time_weight.to(x0.dtype)).unsqueeze(-1).div_(x0)
    sums = torch.cat([x0, torch.ones_like(x0)], dim=1).mT @ wide if needed[2] or needed[3] else None
    return Gradients(
        x=_add_product(ratio * x, grad, weight).to(x.dtype) if needed[0] else None,
        weight=(grad.mT @ x.to(grad.dtype)).to(weight.dtype) if needed[1] else None,
        time_weight=None if sums is None else sums[0].to(time_weight.dtype),
        bias=None if sums is None else sums[1],
        c=ratio.sum() / (-2 * c * c) if needed[4] else None,
    )


def _add_product(start: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Return start + grad weight, in the place of `start` where dtypes agree."""
    if start.dtype == grad.dtype == weight.dtype:
        return start.addmm_(grad, weight)
    return start + grad @ weight.to(grad.dtype)

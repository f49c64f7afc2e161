r"""`gated_linear` on a CPU in float32: blocks of rows, of which only the result is ever there whole.

With :math:`n = |z|`, upstream gradient g, the gradient :math:`\ell` of the gate's logit and
:math:`r' = g \cdot y / r`, that of the radius,

.. math::
    dz = \frac{r}{n} g - \frac{r'}{n} y, \qquad s = \frac{dz \cdot w_t + \ell w}{x_0}, \qquad
    dx = W^T dz + \ell v + s x, \qquad dW = \sum dz\,x^T, \qquad dv = \sum \ell x, \qquad dc = - \frac{\sum s}{2 c^2}.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lorentz_kernels.gated_linear.naive import Map
from lorentz_kernels.linear.closed import time
from lorentz_kernels.linear.naive import Curvature
from lorentz_kernels.scaled_direction.closed import lengths

BLOCK = 1 << 17
"""Numbers of a block of rows for each thread."""


class Gradients(NamedTuple):
    """Gradients of x, of both maps and of c through the time; none where nobody needs it."""

    x: Tensor | None
    direction: tuple[Tensor | None, Tensor, Tensor]
    gate: tuple[Tensor, Tensor, Tensor]
    c: Tensor | None


def times_and_logits(x: Tensor, gate: Map, c: Curvature) -> tuple[Tensor, Tensor]:
    """Return x0 and v.x + w x0 + b', both (N, 1), for rows x (N, in)."""
    x0 = time(x, c)
    logit = (x @ gate.weight.mT).addcmul_(x0, gate.time_weight)
    return x0, logit if gate.bias is None else logit.add_(gate.bias)


def forward(y: Tensor, x: Tensor, x0: Tensor, direction: Map, radius: Tensor) -> Tensor:
    """Write the result into y (N, out); return |z|, (N, 1): 1, and negative as a sign, where z counts as zero."""
    weight, time_weight, bias = direction
    length = torch.empty_like(x0)
    for rows in _blocks(x, y):
        z = torch.mul(x0[rows], time_weight, out=y[rows])
        if bias is not None:
            z.add_(bias)
        torch.addmm(z, x[rows], weight.mT, out=z)
        length[rows] = lengths(z)
        z.mul_(radius[rows] / length[rows].abs())
    return length


def of_radius(grad: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Return the gradient of the radius, (N, 1): along y, and none where the radius is 0."""
    along = torch.empty_like(radius)
    for rows in _blocks(grad, y):  # the product of the two is made whole
        along[rows] = torch.linalg.vecdot(grad[rows], y[rows]).unsqueeze(-1)
    return torch.where(radius == 0, 0.0, along / radius)


def backward(
    grad: Tensor,
    to_radius: Tensor,
    to_logit: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    maps: tuple[Map, Map],
    c: Curvature,
    needed: Sequence[bool],
) -> Gradients:
    """Return the gradients; `saved` is x, x0, y, the radius and |z|, `needed` says whether x, W and c want theirs."""
    x, x0, y, radius, length = saved
    direction, gate = maps
    of_x = torch.empty_like(x) if needed[0] else None
    of_weight = torch.zeros_like(direction.weight) if needed[1] else None
    sums, to_x0 = x.new_zeros(2, y.shape[1]), torch.empty_like(x0)
    columns = torch.cat([x0, torch.ones_like(x0)], dim=1)
    factor, share = radius / length.abs(), torch.where(length < 0, 0.0, to_radius / length)
    for rows in _blocks(x, y):
        to_z = (grad[rows] * factor[rows]).addcmul_(y[rows], share[rows], value=-1)
        sums.addmm_(columns[rows].mT, to_z)
        torch.addmm(to_logit[rows] * gate.time_weight, to_z, direction.time_weight[:, None], out=to_x0[rows])
        if of_weight is not None:
            of_weight.addmm_(to_z.mT, x[rows])
        if of_x is not None:
            block = torch.mul(x[rows], to_x0[rows] / x0[rows], out=of_x[rows])
            block.addcmul_(to_logit[rows], gate.weight)
            torch.addmm(block, to_z, direction.weight, out=block)
    return Gradients(
        of_x,
        (of_weight, sums[0], sums[1]),
        (to_logit.mT @ x, (to_logit * x0).sum(0), to_logit.sum(0)),
        (to_x0 / x0).sum() / (-2 * c * c) if needed[2] else None,
    )


def _blocks(x: Tensor, y: Tensor) -> Iterator[slice]:
    rows = max(1, BLOCK * torch.get_num_threads() // max(x.shape[1], y.shape[1], 1))
    yield from (slice(start, start + rows) for start in range(0, len(x), rows))

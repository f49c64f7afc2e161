"""The plain torch form of `pairwise_dist`: the specification by blocks of rows, and its gradient in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lorentz_kernels.pairwise_dist.naive import from_square, sqdist, time

NUMBERS = 1 << 17  # of each pair and coordinate in a block: half a MiB in float32


def forward(x: Tensor, y: Tensor, squared_radius: Tensor, geodesic: bool) -> Tensor:
    """Return distances of points (B, N, n) and (B, M, n), (B, N, M): geodesic, or squared Lorentzian."""
    out = x.new_empty(*x.shape[:2], y.shape[1])
    for batch, block in _blocks(x, y):
        s = sqdist(x[batch, block], y[batch], squared_radius)
        out[batch, block] = from_square(s, squared_radius) if geodesic else s
    return out


def backward(weight: Tensor, x: Tensor, y: Tensor, squared_radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of sum_ij w_ij |x_i - y_j|_L^2 in x (B, N, n), y (B, M, n) and 1/c ().

    In x_i it is 2 (sum_j w_ij d_ij - x_i / x_i0 sum_j w_ij delta_ij), in y_j the same with its own point and the other
    sign, in 1/c it is sum_ij w_ij delta_ij^2 / (x_i0 y_j0).
    """
    x0, y0 = time(x, squared_radius), time(y, squared_radius)
    of_x, of_y = torch.zeros_like(x), torch.zeros_like(y)
    of_square = x.new_zeros(())
    for batch, block in _blocks(x, y):
        w, here, there = weight[batch, block], x[batch, block, None], y[batch]
        gap = here - there
        delta = (gap * (here + there)).sum(-1) / (x0[batch, block] + y0[batch].mT)
        pulled = w * delta
        of_square += ((pulled / x0[batch, block]) * (delta / y0[batch].mT)).sum()
        ratio_x, ratio_y = x[batch, block] / x0[batch, block], there / y0[batch]
        of_x[batch, block] = 2 * (torch.bmm(w.unsqueeze(1), gap).squeeze(1) - ratio_x * pulled.sum(1, keepdim=True))
        of_y[batch] -= 2 * (gap.mul_(w.unsqueeze(-1)).sum(0) - ratio_y * pulled.sum(0).unsqueeze(-1))
    return of_x, of_y, of_square


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield batches and blocks of rows of x whose pairs with all rows of y have few numbers."""
    size = max(1, NUMBERS // max(1, y.shape[1] * y.shape[2]))
    for batch in range(len(x)):
        for start in range(0, x.shape[1], size):
            yield batch, slice(start, start + size)

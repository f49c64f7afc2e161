"""The plain torch form of `pairwise_dist`: the specification by blocks of rows, and its gradient in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lorentz_kernels.pairwise_dist.naive import from_square, split, sqdist, time

ON_CPU, ON_GPU = 1 << 17, 1 << 25  # numbers of a block, of each pair and coordinate: half a MiB in float32, and 128


def forward(x: Tensor, y: Tensor, squared_radius: Tensor, geodesic: bool) -> Tensor:
    """Return distances of points (B, N, n) and (B, M, n), (B, N, M): geodesic, or squared Lorentzian."""
    out = x.new_empty(*x.shape[:2], y.shape[1])
    for batch, block in _blocks(x, y):
        s = sqdist(x[batch, block], y[batch], squared_radius)
        out[batch, block] = from_square(s, squared_radius) if geodesic else s
    return out


def backward(weight: Tensor, x: Tensor, y: Tensor, squared_radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of sum_ij w_ij |x_i - y_j|_L^2 in x (B, N, n), y (B, M, n) and 1/c ().

    With turn, delta and near as in `naive.py`,

        of_x_i =  2 (sum_j w near0 / x0 turn + x / x0^2 sum_j w slack)
        of_y_j = -2 (sum_i w near0 / y0 turn + y / y0^2 sum_i w slack)
        of_1/c = sum_ij w delta^2 / (near0 far0)

    where slack = delta / (c near0) - turn . near +- |x - y|_L^2 / 2, plus if x is near, is zero but for the rounding of
    turn along the radius, which it takes out again.
    """
    x0, y0 = time(x, squared_radius), time(y, squared_radius)
    of_x, of_y = x.new_zeros(x.shape), y.new_zeros(y.shape)
    of_square = x.new_zeros(())
    for batch, block in _blocks(x, y):
        pair, w = split(x[batch, block], y[batch], squared_radius), weight[batch, block].unsqueeze(-1)
        along = (pair.turn * pair.near).sum(-1, keepdim=True)
        half = torch.where(pair.inward, pair.square, -pair.square) / 2
        slack = w * (squared_radius * pair.delta / pair.near0 - along + half)
        turn = pair.turn.mul_(w * pair.near0)
        here, here0, there, there0 = x[batch, block], x0[batch, block], y[batch], y0[batch]
        of_x[batch, block] = 2 * (turn.sum(1) + here / here0 * slack.sum(1)) / here0
        of_y[batch] -= 2 * (turn.sum(0) + there / there0 * slack.sum(0)) / there0
        of_square += (w * (pair.delta / pair.near0) * (pair.delta / pair.far0)).sum()
    return of_x, of_y, of_square


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield batches and blocks of rows of x whose pairs with all rows of y have few numbers."""
    size = max(1, (ON_CPU if x.device.type == "cpu" else ON_GPU) // max(1, y.shape[1] * y.shape[2]))
    for batch in range(len(x)):
        for start in range(0, x.shape[1], size):
            yield batch, slice(start, start + size)

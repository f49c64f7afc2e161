"""The launches of `pairwise_dist` that are compiled ahead of time."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lorentz_kernels.ahead import Launch
from lorentz_kernels.pairwise_dist.triton import backward, forward

NARROW = frozenset({"distance_tiles"})  # one coordinate of 64 points is half a number for each thread
BATCH, ROWS, COLUMNS = 2, 4096, 2048


def launches() -> list[Launch]:
    """Return the launches of the forward, geodesic and squared, and of the backward."""
    return [
        Launch("geodesic-n64", partial(_forward, 64, True), narrow=NARROW),
        Launch("squared-n64", partial(_forward, 64, False), narrow=NARROW),
        Launch("backward-n64", partial(_backward, 64), narrow=NARROW),
        Launch("backward-n128", partial(_backward, 128), narrow=NARROW),
    ]


def _points(size: int) -> tuple[Tensor, Tensor, Tensor]:
    x, y = (torch.empty(BATCH, length, size, device="cuda") for length in (ROWS, COLUMNS))
    return x, y, torch.ones((), device="cuda")


def _forward(size: int, geodesic: bool) -> None:
    forward(*_points(size), geodesic)


def _backward(size: int) -> None:
    backward(torch.empty(BATCH, ROWS, COLUMNS, device="cuda"), *_points(size))

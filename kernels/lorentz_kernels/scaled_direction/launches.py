"""The launches of `scaled_direction` that are compiled ahead of time: every rule of its table."""

from __future__ import annotations

from functools import partial

import torch

from lorentz_kernels.ahead import Launch
from lorentz_kernels.scaled_direction import triton

ROWS = 32768
SIZES = (
    (32, torch.bfloat16),
    (128, torch.float32),
    (512, torch.bfloat16),
    (4096, torch.bfloat16),
    (8192, torch.float32),
)


def launches() -> list[Launch]:
    """Return the launches, forward and backward in one."""
    return [
        Launch(f"n{width}-{str(dtype).removeprefix('torch.')}", partial(_run, width, dtype)) for width, dtype in SIZES
    ]


def _run(width: int, dtype: torch.dtype) -> None:
    v = torch.empty(ROWS, width, dtype=dtype, device="cuda")
    radius = torch.empty(ROWS, 1, device="cuda")
    triton.forward(v, radius)
    triton.backward(v, v, radius, radius)

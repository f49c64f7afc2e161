"""The launches of `riemannian_adam` that are compiled ahead of time: each width of the table, dense and row-sparse."""

from __future__ import annotations

from functools import partial

import torch

from lorentz_kernels.ahead import Launch
from lorentz_kernels.riemannian_adam.triton import step_rows

WIDTHS = (16, 32, 64, 128, 256, 1024, 4096)
ROWS = 65536


def launches() -> list[Launch]:
    """Return the launches: the table's rules by width, then what else changes the code, at the width of 128."""
    widths = [Launch(f"n{width}", partial(_step, width)) for width in WIDTHS]
    variants = {"amsgrad": True, "sparse": True, "device": True}
    return [*widths, *(Launch(f"n128-{name}", partial(_step, 128, **{name: on})) for name, on in variants.items())]


def _step(width: int, amsgrad: bool = False, sparse: bool = False, device: bool = False) -> None:
    x, grad, w = (torch.empty(ROWS, width, device="cuda") for _ in range(3))
    v = torch.empty(ROWS, device="cuda")
    v_max = torch.empty(ROWS, device="cuda") if amsgrad else None
    rows = torch.empty(ROWS, dtype=torch.int64, device="cuda") if sparse else None
    settings = torch.empty(3, device="cuda") if device else None
    step_rows(x, grad, w, v, v_max, rows, settings, 1e-3, 1e-3, 1.0, (0.9, 0.999), 1e-8)

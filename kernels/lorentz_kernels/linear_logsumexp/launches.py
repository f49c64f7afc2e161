"""The launches of `linear_logsumexp` that are compiled: each rule of its table, with a side and without."""

from __future__ import annotations

from functools import partial

import torch

from lorentz_kernels.ahead import Launch
from lorentz_kernels.linear_logsumexp.triton import moments, table_gradient
from lorentz_kernels.score import Score

ROWS, MANY, ENTRIES = 4096, 65536, 65536
KINDS = [
    *((torch.bfloat16, *kind) for kind in ((32, "lorentz"), (100, "euclid"), (256, "lorentz"))),
    *((torch.float32, *kind) for kind in ((64, "lorentz"), (100, "euclid"), (128, "lorentz"))),
]


def launches() -> list[Launch]:
    """Return the launches of the forward, with and without mean, and of the backward."""
    few = [
        Launch(f"{kind}-{name_of(dtype)}-d{columns}-{score}", partial(call, dtype, columns, score == "lorentz"))
        for kind, call in (("forward", _forward), ("mean", _mean), ("backward", _backward))
        for dtype, columns, score in KINDS
    ]
    return [*few, Launch("forward-bfloat16-d100-many", partial(_forward, torch.bfloat16, 100, False, MANY))]


def name_of(dtype: torch.dtype) -> str:
    """Return "bfloat16" and the like."""
    return str(dtype).removeprefix("torch.")


def empty_score(dtype: torch.dtype, columns: int, lorentz: bool, rows: int = ROWS) -> Score:
    """Return a score of tensors without values; a Lorentzian one has a side."""
    query, table = (torch.empty(length, columns, dtype=dtype, device="cuda") for length in (rows, ENTRIES))
    radius = torch.ones((), device="cuda") if lorentz else None
    return Score(query, table, None, torch.ones(rows, device="cuda"), radius)


def _forward(dtype: torch.dtype, columns: int, lorentz: bool, rows: int = ROWS) -> None:
    moments(empty_score(dtype, columns, lorentz, rows), False, "bf16x3")


def _mean(dtype: torch.dtype, columns: int, lorentz: bool) -> None:
    moments(empty_score(dtype, columns, lorentz), True, "bf16x3")


def _backward(dtype: torch.dtype, columns: int, lorentz: bool) -> None:
    rows = torch.ones(ROWS, device="cuda")
    table_gradient(empty_score(dtype, columns, lorentz), rows, rows, "bf16x3")

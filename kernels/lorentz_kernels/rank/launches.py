"""The launches of `linear_rank` that are compiled ahead of time: each rule of its table, with and without a side."""

from __future__ import annotations

from functools import partial

import torch

from lorentz_kernels.ahead import Launch
from lorentz_kernels.linear_logsumexp.launches import KINDS, ROWS, empty_score, name_of
from lorentz_kernels.rank.triton import counts


def launches() -> list[Launch]:
    """Return the launches, with the products that are the default."""
    return [
        Launch(f"{name_of(dtype)}-d{columns}-{score}", partial(_counts, dtype, columns, score == "lorentz"))
        for dtype, columns, score in KINDS
    ]


def _counts(dtype: torch.dtype, columns: int, lorentz: bool) -> None:
    score = empty_score(dtype, columns, lorentz)
    counts(score, torch.empty(ROWS, dtype=torch.int64, device="cuda"), None, None, "bf16x6")

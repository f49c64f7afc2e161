"""`rank` on a GPU: beside the scores in memory, and the plain-torch tiles."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from lorentz_kernels.measure import Benchmark, Check, Work
from lorentz_kernels.rank import linear_rank, naive
from lorentz_kernels.score import euclidean


def benchmarks() -> list[Benchmark]:
    """Return the rows of the table."""
    sizes = ((2048, 112_946, 100), (8192, 1_000_000, 128))
    return [Benchmark("N{} E{} d{} bf16".format(*size), partial(_work, *size)) for size in sizes]


def checks() -> list[Check]:
    """Return the comparisons with the specification, on whole numbers, whose scores are exact and often equal."""
    limits = dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), 0.0)
    return [Check("37x1001x33", partial(_compare, 37, 1001, 33), limits)]


def _compare(n: int, e: int, d: int, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    generator = torch.Generator(device).manual_seed(0)
    query, table = (torch.randint(-3, 4, (size, d), device=device, generator=generator).to(dtype) for size in (n, e))
    target = torch.randint(e, (n,), device=device, generator=generator)
    expected = naive.counts(euclidean(query.double(), table.double(), None, 1.0), target)
    yield from zip(("above", "equal"), expected, linear_rank(query, table, target), strict=True)


def _work(n: int, e: int, d: int, device: torch.device) -> Work:
    query, table = (torch.randn(size, d, device=device, dtype=torch.bfloat16) for size in (n, e))
    target = torch.randint(e, (n,), device=device)
    calls = {
        "ours": lambda: linear_rank(query, table, target),
        "eager": lambda: naive.compare(query @ table.mT, target, None, None),
        "tiles of torch": lambda: linear_rank(query, table, target, backend="torch"),
    }
    return Work(calls, flops=2 * n * e * d)

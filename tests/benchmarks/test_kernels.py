"""The kernels' CPU forms beside torch for the same work, float32; CPU seconds on one thread, memory by process.

Run with `make bench K=kernels`. The bars are those of the project; 15 % is left for noise of shared machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lorentz.functional as LF
from lorentz_kernels.linear_logsumexp import linear_logsumexp, lorentz_logsumexp
from lorentz_kernels.pairwise_dist import pairwise_dist
from lorentz_kernels.rank import linear_rank
from tests.benchmarks.memory import peak_megabytes

pytestmark = pytest.mark.benchmark(timer=time.process_time)
NOISE = 1.15


def leaf(*shape: int) -> Tensor:
    return (torch.randn(*shape) / shape[-1] ** 0.25).requires_grad_()


def training_step(loss: Callable[..., Tensor], *leaves: Tensor) -> Callable[[], None]:
    """Forward and backward of a loss of leaves."""

    def step() -> None:
        loss(*leaves).backward()
        for each in leaves:
            each.grad = None

    return step


def cross_entropy(target: Tensor, function: Callable[..., Any] = linear_logsumexp) -> Callable[..., Tensor]:
    def loss(query: Tensor, table: Tensor) -> Tensor:
        lse, score = function(query, table, target=target)
        return (lse - score).mean()

    return loss


def materialised(target: Tensor) -> Callable[..., Tensor]:
    return lambda query, table: F.cross_entropy(query @ table.mT, target)


@pytest.mark.parametrize("forward", [True, False], ids=["forward", "step"])
def test_log_partition_against_cross_entropy(side_by_side: Callable[..., float], forward: bool) -> None:
    """2048 queries, 100,000 entries, 100 columns: 2.8 times as fast forward, 2 times with the backward."""
    query, table, target = leaf(2048, 100), leaf(100_000, 100), torch.randint(100_000, (2048,))
    losses = cross_entropy(target), materialised(target)
    if forward:
        with torch.no_grad():
            ratio = side_by_side(*(lambda loss=loss: loss(query, table) for loss in losses))
        assert ratio >= 2.8 / NOISE
    else:
        assert side_by_side(*(training_step(loss, query, table) for loss in losses)) >= 2 / NOISE


@pytest.mark.parametrize("entries", [14_541, 112_946])
def test_lorentzian_log_partition_against_the_euclidean(side_by_side: Callable[..., float], entries: int) -> None:
    """500 queries, 32 columns, a training step: at most 1.1 of the time without times."""
    query, table, target = leaf(500, 32), leaf(entries, 32), torch.randint(entries, (500,))
    losses = (cross_entropy(target, function) for function in (lorentz_logsumexp, linear_logsumexp))
    assert side_by_side(*(training_step(loss, query, table) for loss in losses), rounds=9) >= 1 / 1.1 / NOISE


def test_memory_of_a_log_partition_against_cross_entropy(benchmark: Any) -> None:
    """The same step as above holds a fortieth of the memory, each in a process of its own."""
    ours, peer = (step_megabytes(name) for name in ("cross_entropy", "materialised"))
    benchmark.extra_info |= {"ratio": peer / ours, "ours_mb": ours, "peer_mb": peer}
    benchmark.pedantic(lambda: None, rounds=1)
    assert peer / ours >= 40 / NOISE


def step_megabytes(loss: str) -> float:
    """What a training step takes beyond inputs and their gradients."""
    prepare = f"""
from tests.benchmarks.test_kernels import *
target = torch.randint(100_000, (2048,))
query, table = leaf(2048, 100), leaf(100_000, 100)
query.grad, table.grad = torch.zeros_like(query).add_(1), torch.zeros_like(table).add_(1)
training_step({loss}(target[:2] % 600), query[:2].detach().requires_grad_(), table[:600].detach().requires_grad_())()
"""
    return peak_megabytes(prepare, f"{loss}(target)(query, table).backward()")


@pytest.mark.parametrize("forward", [True, False], ids=["forward", "step"])
def test_pairwise_distance_against_its_definition(side_by_side: Callable[..., float], forward: bool) -> None:
    """1000 x 1000 pairs of 32 coordinates: 2.5 times as fast as all at once."""
    x, y = leaf(1000, 32), leaf(1000, 32)
    functions = pairwise_dist, lambda x, y: LF.dist(x[:, None], y[None])
    if forward:
        with torch.no_grad():
            ratio = side_by_side(*(lambda f=f: f(x, y) for f in functions))
    else:
        ratio = side_by_side(*(training_step(lambda x, y, f=f: f(x, y).sum(), x, y) for f in functions))
    assert ratio >= 2.5 / NOISE


def test_ranks_against_comparing_a_block_of_scores(side_by_side: Callable[..., float]) -> None:
    """1000 queries, 14,541 entries, 32 columns: 2.5 times as fast as boolean comparisons."""
    query, table, target = leaf(1000, 32).detach(), leaf(14_541, 32).detach(), torch.randint(14_541, (1000,))

    def peer() -> tuple[Tensor, Tensor]:
        above, equal = [], []
        for rows, index in zip(query.split(100), target.split(100), strict=True):
            scores = rows @ table.mT
            own = scores.gather(1, index[:, None])
            above.append((scores > own).sum(1))
            equal.append((scores == own).sum(1) - 1)
        return torch.cat(above), torch.cat(equal)

    assert all(torch.equal(a, b) for a, b in zip(linear_rank(query, table, target), peer(), strict=True))
    assert side_by_side(lambda: linear_rank(query, table, target), peer, rounds=9) >= 2.5 / NOISE

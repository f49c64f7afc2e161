"""Tuning reaches every kernel whose table has a choice: each of its configurations runs, and changes no result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import triton.testing
from torch import Tensor

from lorentz_kernels import configs
from lorentz_kernels.attention import attention
from lorentz_kernels.linear_logsumexp import linear_logsumexp, linear_logsumexp_mean
from lorentz_kernels.pairwise_dist import pairwise_dist
from lorentz_kernels.rank import linear_rank

ROWS, TARGET = (5, 20), torch.tensor([0, 3, 2, 1, 4])


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def step(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> list[Tensor]:
    parts = leaves(*shapes)
    out = function(*parts, backend="triton")
    return [out.detach(), *torch.autograd.grad(out.sum(), parts)]


CALLS: dict[str, tuple[set[str], Callable[[], Any]]] = {
    "attention": ({"forward", "backward_keys", "backward_queries"}, lambda: step(attention, *[(1, 1, 33, 16)] * 3)),
    "linear_logsumexp": ({"mean", "backward"}, lambda: step(linear_logsumexp, ROWS, (7, 20))),
    "linear_logsumexp forward": ({"forward"}, lambda: linear_logsumexp(*_detached(), backend="triton")),
    "linear_logsumexp mean": ({"mean"}, lambda: linear_logsumexp_mean(*_detached(), backend="triton")),
    "rank": ({"tiles"}, lambda: linear_rank(*_detached(), TARGET, backend="triton")),
    "pairwise_dist": ({"distance", "pull"}, lambda: step(pairwise_dist, ROWS, (7, 20))),
}


def _detached() -> list[Tensor]:
    return [part.detach() for part in leaves(ROWS, (7, 20))]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[object]]:
    """What is timed on a GPU that is not there, on which the last configuration is the fastest."""
    calls: list[object] = []

    def do_bench(work: Callable[[], object], return_mode: str) -> float:
        calls.append(work())
        return -float(len(calls))

    monkeypatch.setattr(configs, "_gpu", lambda device: {"gpu": "a GPU", "capability": "9.0"})
    monkeypatch.setattr(triton.testing, "do_bench", do_bench)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    configs.forget()
    yield calls
    configs.forget()


@pytest.mark.parametrize("name", CALLS)
def test_every_configuration_is_timed_and_gives_the_same_result(
    name: str, timed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels, call = CALLS[name]
    expected = call()
    assert not timed
    monkeypatch.setenv("LORENTZ_KERNELS_TUNE", "1")
    op = name.partition(" ")[0]
    first = call()
    candidates = [list(configs.for_dtype(configs.shipped(op)[kernel], "float32")) for kernel in kernels]
    assert len(timed) == sum(map(len, candidates))
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)
    count = len(timed)
    torch.testing.assert_close(call(), first, rtol=0, atol=0)
    assert len(timed) == count
    assert set(configs._tuned(op)) == kernels

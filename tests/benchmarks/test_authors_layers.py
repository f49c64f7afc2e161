"""Layers beside the formulas of Chen et al., ACL 2022, as the authors ran them; forward and backward, float32.

Run with `make bench K=authors`: CPU seconds on one thread, and memory in a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests.benchmarks import naive_layers
from tests.benchmarks.memory import peak_megabytes
from tests.benchmarks.test_lorentz import NOISE, training_step

pytestmark = pytest.mark.benchmark(timer=time.process_time)
CASES = [(8, 256, False, 1.7), (2, 1024, False, 4.5), (2, 1024, True, 6.0)]
"""Batch, length, causality and by how much attention is to be faster, 8 heads of 64 ambient coordinates."""


class Attention(nn.Module):
    """`LF.attention` with a learned scale, as the authors' has."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.log_scale, self.causal = nn.Parameter(torch.tensor([64.0]).rsqrt().log()), causal

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return LF.attention(query, key, value, is_causal=self.causal, scale=self.log_scale.exp())


def points(*shape: int) -> Tensor:
    return 0.5 * torch.randn(*shape)


@pytest.mark.parametrize(("batch", "length", "causal", "bar"), CASES)
def test_authors_attention(
    side_by_side: Callable[..., float], batch: int, length: int, causal: bool, bar: float
) -> None:
    x = [points(batch, 8, length, 63) for _ in range(3)]
    ours = [each.clone().requires_grad_() for each in x]
    theirs = [LF.to_ambient(each).requires_grad_() for each in x]
    steps = (
        training_step(Attention(causal), *ours),
        training_step(naive_layers.Attention(64, causal), *theirs),
    )
    assert side_by_side(*steps) >= bar / NOISE


def test_authors_attention_is_the_same_function(benchmark: Any) -> None:
    benchmark.pedantic(lambda: None, rounds=1)
    x = [points(1, 2, 5, 63).double() for _ in range(3)]
    theirs = naive_layers.Attention(64).double()(*map(LF.to_ambient, x))
    torch.testing.assert_close(Attention().double()(*x), theirs[..., 1:])


def test_authors_linear(side_by_side: Callable[..., float]) -> None:
    """4096 x 512 to 512: `HyboLinear`, the same function, is to be 1.1 times as fast."""
    x = points(4096, 512)
    steps = (
        training_step(lnn.HyboLinear(512, 512, manifold=Lorentz()), x.clone().requires_grad_()),
        training_step(naive_layers.Linear(512, 512), LF.to_ambient(x).requires_grad_()),
    )
    assert side_by_side(*steps, rounds=9) >= 1.1 / NOISE


@pytest.mark.parametrize(
    ("work", "bar"),
    [("attention 8 256", 3.5), ("attention 2 1024", 8.0), ("linear", 1.9)],
    ids=["attention_256", "attention_1024", "linear"],
)
def test_authors_memory(benchmark: Any, work: str, bar: float) -> None:
    """A step of attention at length 256, of attention at length 1024, and of `HyboLinear`."""
    ours, peer = (peak_megabytes(*statements(work, name)) for name in ("ours", "theirs"))
    benchmark.extra_info |= {"ratio": peer / ours, "ours_mb": ours, "peer_mb": peer}
    benchmark.pedantic(lambda: None, rounds=1)
    assert peer / ours >= bar / NOISE


def statements(work: str, name: str) -> tuple[str, str]:
    """A training step on inputs, with gradients, that are there already."""
    kind, *sizes = work.split()
    head = "from tests.benchmarks.test_authors_layers import *\n"
    if kind == "linear":
        make = {"ours": "lnn.HyboLinear(512, 512)", "theirs": "naive_layers.Linear(512, 512)"}[name]
        inputs, function = f"[x(4096, {512 if name == 'ours' else 513})]", f"{make}"
    else:
        batch, length = sizes
        inputs = f"[x({batch}, 8, {length}, {63 if name == 'ours' else 64}) for _ in range(3)]"
        function = "Attention()" if name == "ours" else "naive_layers.Attention(64)"
    prepare = f"""{head}
x = lambda *shape: points(*shape).requires_grad_()
inputs, function = {inputs}, {function}
slope = torch.randn({"4096, " + ("512" if name == "ours" else "513") if kind == "linear" else "*inputs[0].shape"})
function(*inputs).backward(slope)
"""
    return prepare, "function(*inputs).backward(slope)"

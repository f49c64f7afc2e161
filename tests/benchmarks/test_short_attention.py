"""Attention over short sequences on a CPU, whose weights are held, beside the form for sequences of any length."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lorentz_kernels.attention import attention, short

pytestmark = pytest.mark.benchmark(timer=time.process_time)
NOISE = 1.15


@pytest.mark.parametrize(("batch", "length", "width"), [(64, 16, 16), (16, 32, 64), (8, 64, 64)], ids=str)
def test_short_attention(
    side_by_side: Callable[..., float],
    benchmark: Any,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    length: int,
    width: int,
) -> None:
    """Forward and backward of 4 heads: no slower than the other form."""
    parts = [torch.randn(batch, 4, length, width, requires_grad=True) for _ in range(3)]
    slope = torch.randn(batch, 4, length, width)

    def step(weights: int) -> Callable[[], None]:
        def run() -> None:
            monkeypatch.setattr(short, "WEIGHTS", weights)
            for _ in range(10):
                q, k, v = parts
                torch.autograd.grad(attention(q, k, v, c=1 / (4 * width)), parts, slope)

        return run

    value = 1 / side_by_side(step(short.WEIGHTS), step(0), rounds=9)
    benchmark.extra_info["share_of_peer"] = round(value, 3)
    assert value <= NOISE

"""What products of float32 numbers as three of bfloat16 cost attention: why a causal mask has a limit of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lorentz_kernels.attention import benchmarks, naive
from lorentz_kernels.measure import error_ratio

C = 0.7


def bf16x3(a: Tensor, b: Tensor) -> Tensor:
    """Return a b without the product of what bfloat16 leaves of both, and without what two of them leave of each."""
    high, low = zip(
        *((x.bfloat16().float(), (x - x.bfloat16().float()).bfloat16().float()) for x in (a, b)), strict=True
    )
    pairs = ((high[0], high[1]), (high[0], low[1]), (low[0], high[1]))
    return torch.stack([x.double() @ y.double() for x, y in pairs]).sum(0).float()


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return bf16x3(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return bf16x3(grad, b.mT), bf16x3(a.mT, grad)


def emulated(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention in float32, values seen from their mean, all products emulated."""
    q0, k0, v0 = ((1 / C + x.square().sum(-1, keepdim=True)).sqrt() for x in (q, k, v))
    score = 2 * q.shape[-1] ** -0.5 * (Product.apply(q, k.mT) - q0 * k0.mT)
    if causal:
        score = score.masked_fill(torch.ones(score.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    weight, reference = score.softmax(-1), v.mean(-2, keepdim=True).detach()
    mean = Product.apply(weight, v - reference) + reference
    square = (weight @ v0).square() - mean.square().sum(-1, keepdim=True)
    return mean / (C * square).sqrt()


@pytest.mark.parametrize(("causal", "least", "most"), [(False, 0.0, 2e-5), (True, 2e-5, 1e-4)])
def test_gradients_of_few_keys_keep_more_of_the_rounding(causal: bool, least: float, most: float) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(1, 2, 300, 128, generator=generator).requires_grad_() for _ in range(3)]
    exact = [x.detach().double().requires_grad_() for x in parts]
    slope = torch.randn(1, 2, 300, 128, generator=generator)
    truth = naive.attention(exact[0], exact[1], exact[2], is_causal=causal, c=C)
    wanted = torch.autograd.grad(truth, exact, slope.double())
    found = torch.autograd.grad(emulated(parts[0], parts[1], parts[2], causal), parts, slope)
    errors = [error_ratio(a, b) for a, b in zip(wanted, found, strict=True)]
    assert least < max(errors) < most, errors


def test_the_limits_of_the_checks_are_those_of_the_emulation_with_room_for_another_order_of_sums() -> None:
    for check in benchmarks.checks():
        assert check.limits[torch.float32] == (2e-4 if check.name.endswith("True") else 2e-5)

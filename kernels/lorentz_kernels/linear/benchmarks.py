"""`linear` on a GPU: rows beside a copy, the layer beside torch's, the fused product beside the vendor's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz_kernels.linear import linear, linear_with_time, naive, rows
from lorentz_kernels.measure import Benchmark, Check, Work, kernels

BF16 = torch.bfloat16
PLAIN = "", False, None, 1.0  # no activation, no time


def benchmarks() -> list[Benchmark]:
    """Return the rows of the table."""
    sizes = [(count, width) for count in (4096, 32768) for width in (128, 512, 2048)]
    by_row = [
        Benchmark(f"{name} {count}x{width} bf16", partial(make, count, width))
        for name, make in (("epilogue", _epilogue), ("row gradients", _backward))
        for count, width in sizes
    ]
    layers = [Benchmark(f"layer fwd+bwd {n}x{d} bf16", partial(_layer, n, d)) for n, d in ((4096, 512), (32768, 512))]
    chain = Benchmark("feed-forward fwd+bwd 32768x512x2048 relu bf16", partial(_feed_forward, 32768, 512, 2048))
    fused = [Benchmark(f"layer fwd 32768x{d} bf16", partial(_forward, 32768, d)) for d in (128, 256, 512)]
    calls = [
        Benchmark(f"call {'fwd+bwd' if backward else 'fwd'} {n}x{d} bf16", partial(_call, n, d, backward), by_host=True)
        for n, d, backward in ((256, 64, False), (256, 64, True), (4096, 256, True))
    ]
    return [*by_row, *layers, chain, *fused, *calls]


def checks() -> list[Check]:
    """Return the comparisons with the specification in float64."""
    limits = {torch.float32: 1e-5, torch.float16: 2e-3, BF16: 1.2e-2}
    shapes = [(37, 65, 33), (1000, 512, 512), (8200, 64, 128)]
    return [Check("x".join(map(str, shape)), partial(_compare, *shape), limits) for shape in shapes]


def _compare(
    count: int, inner: int, out: int, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor, Tensor]]:
    generator = torch.Generator(device).manual_seed(0)
    sizes = ((count, inner), (out, inner), (out,), (out,), (count, out))
    *parts, slope = (torch.randn(size, device=device, generator=generator).to(dtype) for size in sizes)
    leaves = [part.requires_grad_() for part in parts]
    exact = [part.detach().double().requires_grad_() for part in parts]
    y, expected = partial(linear, c=0.7, backend=kernels(device))(*leaves), partial(naive.linear, c=0.7)(*exact)
    yield "y", expected, y
    wanted, got = torch.autograd.grad(expected, exact, slope.double()), torch.autograd.grad(y, leaves, slope)
    yield from zip(("dx", "dW", "dw_t", "db"), wanted, got, strict=True)


def _epilogue(count: int, width: int, device: torch.device) -> Work:
    product = torch.randn(count, width, device=device, dtype=BF16)
    x0, time_weight, bias = (torch.rand(size, device=device) for size in ((count, 1), (width,), (width,)))
    calls = {"ours": lambda: rows._epilogue(product, x0, time_weight, bias, *PLAIN)}
    return Work(calls, bytes=2 * product.numel() * 2, share=0.75 if product.numel() > 2**25 else 0.0)


def _backward(count: int, width: int, device: torch.device) -> Work:
    grad = torch.randn(count, width, device=device, dtype=BF16)
    x0, time_weight = torch.rand(count, 1, device=device), torch.rand(width, device=device)
    calls = {"ours": lambda: rows._backward(grad, x0, time_weight, None, None, None, "")}
    return Work(calls, bytes=grad.numel() * 2, share=0.45 if grad.numel() > 2**25 else 0.0)


def _parts(count: int, width: int, device: torch.device) -> list[Tensor]:
    sizes = ((count, width), (width, width), (width,), (width,))
    return [torch.randn(size, device=device, dtype=BF16).requires_grad_() for size in sizes]


def _layer(count: int, width: int, device: torch.device) -> Work:
    parts, slope = _parts(count, width, device), torch.randn(count, width, device=device, dtype=BF16)
    euclidean = [parts[0], parts[1], parts[3]]

    def step(function: Callable[..., Tensor], leaves: list[Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(function(*leaves), leaves, slope)

    calls = {
        "ours": step(linear, parts),
        "eager": step(naive.linear, parts),
        "nn.Linear": step(F.linear, euclidean),
    }
    if count > 4096:
        calls["compile"] = step(torch.compile(naive.linear, dynamic=False), parts)
    goals = {"eager": 4.2, "compile": 1.0, "nn.Linear": 0.7} if count > 4096 else {}
    return Work(calls, flops=6 * count * width**2, goals=goals)


def _feed_forward(count: int, width: int, inner: int, device: torch.device) -> Work:
    """Two maps with an activation between them: in one epilogue with the time, one after the other, and torch's."""
    sizes = (count, width), (inner, width), (inner,), (inner,), (width, inner), (width,), (width,)
    parts = [torch.randn(size, device=device, dtype=BF16).requires_grad_() for size in sizes]
    slope = torch.randn(count, width, device=device, dtype=BF16)

    def fused(x: Tensor, w1: Tensor, t1: Tensor, b1: Tensor, w2: Tensor, t2: Tensor, b2: Tensor) -> Tensor:
        y, y0 = linear_with_time(x, w1, t1, b1, activation="relu")
        return linear(y, w2, t2, b2, x0=y0)

    def apart(x: Tensor, w1: Tensor, t1: Tensor, b1: Tensor, w2: Tensor, t2: Tensor, b2: Tensor) -> Tensor:
        return linear(linear(x, w1, t1, b1).relu(), w2, t2, b2)

    def euclidean(x: Tensor, w1: Tensor, t1: Tensor, b1: Tensor, w2: Tensor, t2: Tensor, b2: Tensor) -> Tensor:
        return F.linear(F.linear(x, w1, b1).relu(), w2, b2)

    def step(function: Callable[..., Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(function(*parts), parts, slope, allow_unused=True)

    calls = {"ours": step(fused), "ours, apart": step(apart), "nn.Linear": step(euclidean)}
    return Work(calls, flops=12 * count * width * inner)


@torch.no_grad()
def _forward(count: int, width: int, device: torch.device) -> Work:
    x, weight, time_weight, bias = (part.detach() for part in _parts(count, width, device))
    x0 = naive.time(x)
    calls = {
        "ours": lambda: rows._product(x, weight, x0, time_weight, bias, *PLAIN),
        "vendor's product, then rows": lambda: rows._epilogue(F.linear(x, weight), x0, time_weight, bias, *PLAIN),
        "nn.Linear": lambda: F.linear(x, weight, bias),
    }
    return Work(calls, flops=2 * count * width**2, bytes=2 * (2 * x.numel() + weight.numel()))


def _call(count: int, width: int, backward: bool, device: torch.device) -> Work:
    """What the host does for few numbers: the kernels are launched from Python, torch's operators are not."""
    parts, slope = _parts(count, width, device), torch.randn(count, width, device=device, dtype=BF16)
    euclidean = [parts[0], parts[1], parts[3]]

    def call(function: Callable[..., Tensor], leaves: list[Tensor]) -> Callable[[], Any]:
        if not backward:
            return lambda: function(*leaves)
        return lambda: torch.autograd.grad(function(*leaves), leaves, slope)

    calls = {
        "ours": call(linear, parts),
        "ours by kernels": call(partial(linear, backend=kernels(device)), parts),
        "nn.Linear": call(F.linear, euclidean),
    }
    return Work(calls)

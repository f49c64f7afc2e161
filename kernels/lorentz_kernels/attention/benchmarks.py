"""`attention` on a GPU: beside the formula as it reads, torch's fused attention, and what other tiles would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz_kernels.attention import attention, naive
from lorentz_kernels.configs import changed
from lorentz_kernels.measure import Benchmark, Call, Check, Work

BF16 = torch.bfloat16
SHAPES = ((8, 8, 512, 64), (8, 8, 2048, 64), (4, 16, 4096, 128))
FORWARD = {"eager": 20.0, "compile": 4.0, "SDPA n+1": 1.6, "SDPA n": 0.75}
BOTH = {"eager": 11.0, "compile": 3.0, "SDPA n+1": 1.3, "SDPA n": 0.65}


def benchmarks() -> list[Benchmark]:
    """Return the rows of the table."""
    cases = [(shape, causal, backward) for shape in SHAPES for backward in (False, True) for causal in (False, True)]
    rows = [Benchmark(_name(*case, BF16), partial(_work, *case, BF16)) for case in cases]
    wide = (SHAPES[1], False, False)
    return [*rows, Benchmark(_name(*wide, torch.float32), partial(_work, *wide, torch.float32))]


def checks() -> list[Check]:
    """Return the comparisons with the specification in float64."""
    limits = {torch.float32: 2e-5, torch.float16: 4e-3, BF16: 3e-2}
    shapes = [(2, 3, 37, 53, 64, False), (1, 2, 300, 300, 128, True), (2, 2, 65, 65, 80, True)]
    return [Check("x".join(map(str, shape)), partial(_compare, *shape), limits) for shape in shapes]


def _name(shape: tuple[int, ...], causal: bool, backward: bool, dtype: torch.dtype) -> str:
    sizes = "B{} H{} L{} D{}".format(*shape)
    kind = {BF16: "bf16", torch.float32: "fp32"}[dtype]
    return f"{'fwd+bwd' if backward else 'fwd'} {sizes}{' causal' if causal else ''} {kind}"


def _compare(
    batch: int, heads: int, queries: int, keys: int, width: int, causal: bool, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor, Tensor]]:
    generator = torch.Generator(device).manual_seed(0)
    parts = [
        torch.randn(batch, heads, length, width, device=device, generator=generator).to(dtype).requires_grad_()
        for length in (queries, keys, keys)
    ]
    exact = [part.detach().double().requires_grad_() for part in parts]
    slope = torch.randn(batch, heads, queries, width, device=device, generator=generator).to(dtype)
    out, expected = (partial(f, is_causal=causal, c=0.7) for f in (attention, naive.attention))
    y, truth = out(parts[0], parts[1], parts[2]), expected(exact[0], exact[1], exact[2])
    yield "points", truth, y
    wanted, got = torch.autograd.grad(truth, exact, slope.double()), torch.autograd.grad(y, parts, slope)
    yield from zip(("dq", "dk", "dv"), wanted, got, strict=True)


def _work(
    shape: tuple[int, int, int, int], causal: bool, backward: bool, dtype: torch.dtype, device: torch.device
) -> Work:
    batch, heads, length, width = shape
    parts = [torch.randn(shape, device=device, dtype=dtype).requires_grad_(backward) for _ in range(3)]
    slope = torch.randn(shape, device=device, dtype=dtype)

    def step(function: Callable[..., Tensor]) -> Call:
        if not backward:
            return lambda: function(*parts, is_causal=causal)
        return lambda: torch.autograd.grad(function(*parts, is_causal=causal), parts, slope)

    calls = {
        "ours": step(attention),
        "eager": step(naive.attention),
        "compile": step(torch.compile(naive.attention, dynamic=False)),
        "SDPA n+1": step(partial(attention, backend="torch")),
        "SDPA n": step(F.scaled_dot_product_attention),
    }
    if dtype == BF16 and not backward and not causal:
        calls |= {f"ours, {name}": _changed(calls["ours"], values) for name, values in _variants(width).items()}
    products = (14 if backward else 4) * batch * heads * length * length * width
    goals = (BOTH if backward else FORWARD) if dtype == BF16 else {}
    return Work(calls, flops=products / (2 if causal else 1), goals=goals)


def _variants(width: int) -> dict[str, dict[str, int | bool]]:
    """Return what is in question about the tiles: how times are multiplied, and one group of warps or two."""
    tiles: dict[str, dict[str, int | bool]] = {"4 warps, 128 x 64": {"BLOCK_K": 64, "num_warps": 4, "num_stages": 3}}
    return {"times as rank 1": {"SIDES": False}, **tiles} if width <= 64 else {}


def _changed(call: Call, values: dict[str, int | bool]) -> Call:
    def run() -> object:
        with changed("attention", "forward", **values):
            return call()

    return run

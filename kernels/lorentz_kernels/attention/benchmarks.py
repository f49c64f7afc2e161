"""`attention` on a GPU: beside the formula as it reads, torch's fused attention, and what other tiles would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz_kernels.attention import attention, naive, operators
from lorentz_kernels.configs import changed
from lorentz_kernels.measure import Accuracy, Benchmark, Call, Check, Work, error_ratio, installed

BF16 = torch.bfloat16
SHAPES = ((8, 8, 512, 64), (8, 8, 2048, 64), (4, 16, 4096, 128))
SENTENCES = (2048, 4, 32, 64)
# Nine tenths of what the slowest row has on an H200, and FlashAttention 3 as it was forecast.
FORWARD = {"authors": 5.5, "compile": 5.3, "SDPA ambient": 2.1, "SDPA n": 0.45, "FA3": 0.75}
BOTH = {"authors": 4.3, "compile": 2.7, "SDPA ambient": 1.8, "SDPA n": 0.38, "FA3": 0.65}


def benchmarks() -> list[Benchmark]:
    """Return the rows of the table."""
    cases = [(shape, causal, backward) for shape in SHAPES for backward in (False, True) for causal in (False, True)]
    rows = [Benchmark(_name(*case, BF16), partial(_work, *case, BF16)) for case in cases]
    wide = (SHAPES[1], False, False)
    single = Benchmark(_name(*wide, torch.float32), partial(_work, *wide, torch.float32))
    call = Benchmark(
        "call fwd+bwd B16 H4 L128 D32 fp32", partial(_work, (16, 4, 128, 32), False, True, torch.float32), True
    )
    short = [
        Benchmark(_name(SENTENCES, False, True, t), partial(_work, SENTENCES, False, True, t))
        for t in (BF16, torch.float32)
    ]
    return [
        *rows,
        *short,
        single,
        call,
        Benchmark(f"times and side rows {_name(*wide, BF16)}", partial(_side_rows, SHAPES[1])),
    ]


def checks() -> list[Check]:
    """Return the comparisons with the specification in float64."""
    limits = {torch.float32: 2e-5, torch.float16: 4e-3, BF16: 3e-2}
    # With few keys gradients are differences of what is nearly equal, which keep more of what bf16x3 rounds:
    # tests/kernels/test_attention_precision.py emulates it.
    causal = {**limits, torch.float32: 2e-4}
    shapes = [(2, 3, 37, 53, 64, False), (1, 2, 300, 300, 128, True), (2, 2, 65, 65, 80, True)]
    shapes += [(2, 3, 17, 29, 64, False), (3, 2, 11, 11, 16, True)]
    return [
        Check("x".join(map(str, shape)), partial(_compare, *shape), causal if shape[-1] else limits) for shape in shapes
    ]


def accuracies() -> list[Accuracy]:
    """Return the errors of clustered points in bf16 beside those of torch's attention on ambient points."""
    goals = {"ours, before it is stored": 1.2e-4}
    far = [Accuracy(f"distance, cluster at {r:g}, bf16", partial(_distances, r), goals) for r in (1.0, 3.0, 10.0)]
    return [*far, *(Accuracy(f"gradient of q, cluster at {r:g}, bf16", partial(_gradients, r)) for r in (1.0, 3.0))]


def _cluster(radius: float, device: torch.device) -> list[Tensor]:
    """Return q, k and v, spread by 1 around one point each, and an upstream gradient."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, generator=generator)

    points = [normal(1, 4, 256, 64) / 8 + radius * F.normalize(normal(64), dim=0) for _ in range(3)]
    return [x.to(BF16) for x in (*points, normal(1, 4, 256, 64))]


def _distances(radius: float, device: torch.device) -> dict[str, float]:
    """Return the largest distances of results from what they should be."""
    q, k, v, _ = _cluster(radius, device)
    truth = naive.attention(q.double(), k.double(), v.double())
    point, rest, *_ = operators.attention(q, k, v, None, None, None, 2 * q.shape[-1] ** -0.5, 1.0, False, 0, False)
    found = {
        "ours": point.double(),
        "ours, before it is stored": point.double() + rest.double(),
        "SDPA ambient": _by_times(q, k, v).double(),
    }
    return {name: _distance(points, truth).max().item() for name, points in found.items()}


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the distances of points in float64, (..., 1)."""
    square = (x - y).square().sum(-1, keepdim=True) - (naive._time(x, 1.0) - naive._time(y, 1.0)).square()
    return 2 * (square.clamp_min(0).sqrt() / 2).asinh()


def _by_times(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the space coordinates of what `ambient_sdpa` makes of points with their times."""
    points = [torch.cat([naive._time(x, 1.0), x], dim=-1).to(x.dtype) for x in (q, k, v)]
    return ambient_sdpa(points[0], points[1], points[2])[..., 1:]


def _gradients(radius: float, device: torch.device) -> dict[str, float]:
    """Return error ratios; the gradient is formed with the sum of the weights as they were rounded."""
    *parts, slope = _cluster(radius, device)
    exact = [x.double().requires_grad_() for x in parts]
    truth = torch.autograd.grad(naive.attention(exact[0], exact[1], exact[2]), exact[0], slope.double())[0]
    leaves = [x.requires_grad_() for x in parts]
    ours = torch.autograd.grad(attention(leaves[0], leaves[1], leaves[2]), leaves[0], slope)[0]
    peer = torch.autograd.grad(_by_times(leaves[0], leaves[1], leaves[2]), leaves[0], slope)[0]
    return {"ours": error_ratio(truth, ours), "SDPA ambient": error_ratio(truth, peer)}


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

    plain = dtype == BF16 and not causal
    calls = {
        "ours": step(attention),
        "authors": _with_times(authors, parts, slope if backward else None, causal),
        "SDPA ambient": _with_times(ambient_sdpa, parts, slope if backward else None, causal),
        "SDPA n": step(F.scaled_dot_product_attention),
    }
    if plain and shape == SHAPES[1]:
        calls["compile"] = step(torch.compile(naive.attention, dynamic=False))
    if plain and not backward:
        calls |= {f"ours, {name}": _changed(calls["ours"], values) for name, values in _variants(width).items()}
    more, absent = installed({"FA3": ("flash_attn_interface", step(_flash))} if dtype == BF16 else {})
    products = (14 if backward else 4) * batch * heads * length * length * width
    goals = (BOTH if backward else FORWARD) if dtype == BF16 and shape in SHAPES else {}
    known = {name: goal for name, goal in goals.items() if name in calls or name in more}
    return Work({**calls, **more}, flops=products / (2 if causal else 1), goals=known, absent=absent)


def authors(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Chen et al., ACL 2022, Eq. 4 to 6 as they read, on ambient points, time first, all scores held."""
    score = (2 + 2 * (_flipped(q) @ k.mT)) / q.shape[-1] ** 0.5
    if is_causal:
        score = score.masked_fill(torch.ones_like(score, dtype=torch.bool).triu(1), -torch.inf)
    return _normalised(score.softmax(-1) @ v)


def ambient_sdpa(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """The same by torch's attention, whose output is rounded before its Minkowski norm is taken."""
    scale = 2 / q.shape[-1] ** 0.5
    return _normalised(F.scaled_dot_product_attention(_flipped(q), k, v, is_causal=is_causal, scale=scale))


def _flipped(x: Tensor) -> Tensor:
    time, space = x.split([1, x.shape[-1] - 1], dim=-1)
    return torch.cat([-time, space], dim=-1)


def _normalised(mean: Tensor) -> Tensor:
    time, space = mean.float().split([1, mean.shape[-1] - 1], dim=-1)
    square = time.square() - space.square().sum(-1, keepdim=True)
    return (mean / square.abs().clamp_min(1e-8).sqrt()).to(mean.dtype)


def _with_times(function: Callable[..., Tensor], parts: list[Tensor], slope: Tensor | None, causal: bool) -> Call:
    """Return a call of a function of ambient points, and of its gradient, on points that have their times already."""
    points = [torch.cat([naive._time(x, 1.0), x], dim=-1).to(x.dtype).detach() for x in parts]
    if slope is None:
        return lambda: function(*points, is_causal=causal)
    leaves, slopes = [x.requires_grad_() for x in points], F.pad(slope, (1, 0))
    return lambda: torch.autograd.grad(function(*leaves, is_causal=causal), leaves, slopes)


def _flash(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Attention of the Euclidean kind by FlashAttention 3, which has heads after rows."""
    from flash_attn_interface import flash_attn_func

    out = flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v)), causal=is_causal)
    first: Tensor = out[0] if isinstance(out, tuple) else out
    return first.transpose(1, 2)


def _side_rows(shape: tuple[int, int, int, int], device: torch.device) -> Work:
    """What the pass over keys and values costs that a producer of them could do as well."""
    k, v = (torch.randn(shape, device=device, dtype=BF16) for _ in range(2))

    def prepare() -> object:
        from lorentz_kernels.attention.triton.launch import _prepare

        return _prepare(k, v, None, 1.0, False, True)

    return Work({"ours": prepare}, bytes=2 * k.numel() * 2 + k.numel() // shape[-1] * (32 + 8))


def _variants(width: int) -> dict[str, dict[str, int | bool]]:
    """Return what is in question about the tiles: how times are multiplied, and one group of warps or two."""
    tiles: dict[str, dict[str, int | bool]] = {"4 warps, 128 x 64": {"BLOCK_K": 64, "num_warps": 4, "num_stages": 3}}
    return {"times as rank 1": {"SIDES": False}, **tiles} if width <= 64 else {}


def _changed(call: Call, values: dict[str, int | bool]) -> Call:
    def run() -> object:
        with changed("attention", "forward", **values):
            return call()

    return run

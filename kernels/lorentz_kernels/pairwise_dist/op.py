"""The public functions and the operators behind them: which implementation runs, and the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.dispatch import choose, transforming
from lorentz_kernels.pairwise_dist import chunked, naive
from lorentz_kernels.precision import full_precision, on_device
from lorentz_kernels.registry import operator


def pairwise_dist(x: Tensor, y: Tensor, c: float | Tensor = 1.0, *, backend: str | None = None) -> Tensor:
    r"""Return the geodesic distance of every pair of points given by their space parts.

        dist_ij = 2 / sqrt(c) asinh(sqrt(c) / 2 |x_i - y_j|_L),  |x - y|_L^2 = |x - y|^2 - (x0 - y0)^2

    Neighbours keep their digits at any radius, and so do their gradients: each pair is the sum of two squares that
    `naive.py` derives. A tile of pairs is held at a time, never a number for each pair and coordinate.

    Args:
        x: (..., N, n).
        y: (..., M, n), with batch dimensions that broadcast against those of x.
        c: the curvature is -c; one number.
        backend: "triton" or "torch", see `lorentz_kernels.dispatch`.

    Returns:
        (..., N, M) in float32 or better, differentiable in all arguments, twice if need be (the second derivative holds
        a number for each pair and coordinate). Zero, with zero gradient, where points coincide.

    Raises:
        ValueError: the shapes do not fit, or `c` is not one number.
    """
    return _every_pair(x, y, c, True, backend)


def pairwise_sqdist(x: Tensor, y: Tensor, c: float | Tensor = 1.0, *, backend: str | None = None) -> Tensor:
    """Return |x_i - y_j|_L^2 = -2/c - 2 <x_i, y_j>, the squared Lorentzian distance, as `pairwise_dist` does."""
    return _every_pair(x, y, c, False, backend)


def _every_pair(x: Tensor, y: Tensor, c: float | Tensor, geodesic: bool, backend: str | None) -> Tensor:
    if min(x.ndim, y.ndim) < 2 or x.shape[-1] != y.shape[-1]:
        raise ValueError(f"expected points (..., N, n) and (..., M, n), got {tuple(x.shape)} and {tuple(y.shape)}")
    if isinstance(c, Tensor) and c.numel() != 1:
        raise ValueError(f"expected c to be one number, got {tuple(c.shape)}")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.to(dtype), y.to(dtype)
    squared_radius = 1 / on_device(c, x, dtype).reshape(())
    with full_precision(x.device):
        if transforming():
            return (naive.dist if geodesic else naive.sqdist)(x, y, squared_radius)
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        flat = [points.expand(*batch, -1, -1).reshape(batch.numel(), *points.shape[-2:]) for points in (x, y)]
        chosen = choose(x, y, squared_radius, backend=backend)
        out: Tensor = _EveryPair.apply(*flat, squared_radius, geodesic, chosen)
    return out.reshape(*batch, x.shape[-2], y.shape[-2])


class _EveryPair(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, squared_radius: Tensor, geodesic: bool, backend: str) -> Tensor:
        out = _forward(x, y, squared_radius, geodesic, backend)
        ctx.save_for_backward(x, y, squared_radius, out)
        ctx.geodesic, ctx.backend = geodesic, backend
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, squared_radius, out = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # a second derivative is wanted: the specification knows it
            value = (naive.dist if ctx.geodesic else naive.sqdist)(x, y, squared_radius)
            inputs = [part for part, needed in zip((x, y, squared_radius), wanted, strict=True) if needed]
            found = iter(torch.autograd.grad(value, inputs, grad, create_graph=True))
            return *(next(found) if needed else None for needed in wanted), None, None
        weight = grad * _derivative(out, squared_radius) if ctx.geodesic else grad
        of_x, of_y, of_square = _backward(weight, x, y, squared_radius, ctx.backend)
        if ctx.geodesic and wanted[2]:
            of_square = of_square + (grad * _derivative_in_square(out, squared_radius)).sum()
        return (
            *(each if needed else None for each, needed in zip((of_x, of_y, of_square), wanted, strict=True)),
            None,
            None,
        )


def _derivative(distance: Tensor, squared_radius: Tensor) -> Tensor:
    """Return d dist / d |x - y|_L^2 = 1 / (2 R sinh(dist / R)), zero at zero."""
    radius = squared_radius.sqrt()
    zero = distance == 0
    return torch.where(zero, 0.0, 1 / (2 * radius * torch.where(zero, radius, distance).div(radius).sinh()))


def _derivative_in_square(distance: Tensor, squared_radius: Tensor) -> Tensor:
    """Return d dist / d(1/c) for a fixed |x - y|_L: (t - tanh t) / R with t = dist / (2 R)."""
    radius = squared_radius.sqrt()
    t = distance / (2 * radius)
    return (t - t.tanh()) / radius


def _run(x: Tensor, y: Tensor, squared_radius: Tensor, geodesic: bool, backend: str) -> Tensor:
    if backend == "triton":
        from lorentz_kernels.pairwise_dist import triton

        return triton.forward(x, y, squared_radius, geodesic)
    return chunked.forward(x, y, squared_radius, geodesic)


def _run_backward(
    weight: Tensor, x: Tensor, y: Tensor, squared_radius: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "triton":
        from lorentz_kernels.pairwise_dist import triton

        return triton.backward(weight, x, y, squared_radius)
    return chunked.backward(weight, x, y, squared_radius)


def _fake(x: Tensor, y: Tensor, squared_radius: Tensor, geodesic: bool, backend: str) -> Tensor:
    return x.new_empty(*x.shape[:2], y.shape[1])


def _fake_backward(
    weight: Tensor, x: Tensor, y: Tensor, squared_radius: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), y.new_empty(y.shape), x.new_empty(())


_forward = operator(
    "pairwise_dist(Tensor x, Tensor y, Tensor squared_radius, bool geodesic, str backend) -> Tensor",
    triton=_run,
    torch_path=_run,
    fake=_fake,
)
_backward = operator(
    "pairwise_dist_backward(Tensor weight, Tensor x, Tensor y, Tensor squared_radius, str backend) "
    "-> (Tensor, Tensor, Tensor)",
    triton=_run_backward,
    torch_path=_run_backward,
    fake=_fake_backward,
)

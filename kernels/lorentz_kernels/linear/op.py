"""`linear` for callers: the products are the vendor library's, what is done by row is fused around them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.dispatch import choose, composes
from lorentz_kernels.linear import closed, naive, rows
from lorentz_kernels.linear.naive import Curvature


def linear(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    bias: Tensor | None = None,
    c: Curvature = 1.0,
    *,
    backend: str | None = None,
) -> Tensor:
    """Return W x + w_t x0 + b, a linear map of ambient coordinates, x0 = sqrt(1/c + |x|^2) in float32 or better.

    Args:
        x: points, (..., in).
        weight: W, (out, in).
        time_weight: w_t, (out).
        bias: b, (out).
        c: the curvature is -c: a float, or a tensor that broadcasts to (..., 1).
        backend: "triton" or "torch" instead of what `dispatch.choose` picks. Triton takes one c
            for all rows and up to 8192 outputs.

    Returns:
        (..., out) in the dtype of `torch.nn.functional.linear`, under autocast too; differentiable in all tensors, at
        any order and in forward mode.

    Raises:
        ValueError: the shapes do not fit, or the backend cannot run.
    """
    _check(x, weight, time_weight, bias)
    chosen = choose(x, weight, time_weight, bias, backend=backend) if len(weight) <= rows.WIDEST else "torch"
    per_row = isinstance(c, Tensor) and c.numel() != 1
    compiled = chosen == "torch" and torch.compiler.is_compiling()  # the compiler fuses more than a closed form does
    if per_row or compiled or composes(x, weight, time_weight, bias, c if isinstance(c, Tensor) else None):
        return naive.linear(x, weight, time_weight, bias, c)
    dtype = torch.get_autocast_dtype(x.device.type) if _casts(x) else x.dtype
    if dtype == x.dtype != weight.dtype:
        return naive.linear(x, weight, time_weight, bias, c)  # whatever torch makes of mixed dtypes
    result: Tensor = _Linear.apply(x, weight, time_weight, bias, c, dtype, rows if chosen == "triton" else closed)
    return result


def _check(x: Tensor, weight: Tensor, time_weight: Tensor, bias: Tensor | None) -> None:
    out = weight.shape[:1]
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:] or time_weight.shape != out:
        shapes = tuple(x.shape), tuple(weight.shape), tuple(time_weight.shape)
        raise ValueError(f"expected x (..., in), weight (out, in), time_weight (out), got {shapes}")
    if bias is not None and bias.shape != out:
        raise ValueError(f"expected bias {tuple(out)} or none, got {tuple(bias.shape)}")


def _casts(x: Tensor) -> bool:
    """Whether autocast is on where x is, and would round it."""
    device = x.device.type
    return x.dtype != torch.float64 and device != "meta" and torch.is_autocast_enabled(device)


def _as_written(x: Tensor) -> AbstractContextManager[object]:
    """Keep autocast out: the implementations cast what is to be cast."""
    return torch.autocast(x.device.type, enabled=False) if _casts(x) else nullcontext()


class _Linear(torch.autograd.Function):
    """The gradient in closed form, from x, its time and the parameters; `module` is `closed` or `rows`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        time_weight: Tensor,
        bias: Tensor | None,
        c: Curvature,
        dtype: torch.dtype,
        module: Any,
    ) -> Tensor:
        with _as_written(x):
            y, x0 = module.forward(x.reshape(-1, x.shape[-1]), weight, time_weight, bias, c, dtype)
        ctx.save_for_backward(x, weight, time_weight, x0, c if isinstance(c, Tensor) else None)
        ctx.number, ctx.module, ctx.bias = c, module, None if bias is None else bias.dtype
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, time_weight, x0, tensor = ctx.saved_tensors
        c = ctx.number if tensor is None else tensor
        with _as_written(x):
            if torch.is_grad_enabled():  # a second derivative is wanted: the composition knows it
                found = naive.gradients(grad, x, weight, time_weight, c)
            else:
                flat, points = (t.reshape(-1, t.shape[-1]) for t in (grad, x))
                found = ctx.module.backward(flat, points, x0, weight, time_weight, c, ctx.needs_input_grad)
        return (
            None if found.x is None else found.x.view(x.shape),
            found.weight,
            found.time_weight,
            None if ctx.bias is None or found.bias is None else found.bias.to(ctx.bias),
            None if tensor is None or found.c is None else found.c.reshape(c.shape).to(c.dtype),
            None,
            None,
        )

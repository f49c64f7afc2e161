"""`linear` for callers: the products are the vendor library's, what is done by row is fused around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorentz_kernels.dispatch import asked, choose, composes
from lorentz_kernels.linear import closed, naive, rows
from lorentz_kernels.linear.activation import Epilogue, check
from lorentz_kernels.linear.naive import Curvature

FEW = 1 << 21
"""Numbers of points or of results for which torch's operators are faster, forward and backward, on an H200.

It is done with them in 0.16 ms; starting them takes Python 0.7 ms, starting the kernels 1.0.
"""


def linear(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    bias: Tensor | None = None,
    c: Curvature = 1.0,
    *,
    activation: str | None = None,
    x0: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Return f(W x + w_t x0 + b), a linear map of ambient coordinates, x0 = sqrt(1/c + |x|^2) in float32 or better.

    Args:
        x: points, (..., in).
        weight: W, (out, in).
        time_weight: w_t, (out).
        bias: b, (out).
        c: the curvature is -c: a float, or a tensor that broadcasts to (..., 1).
        activation: f, of each coordinate: "relu", "gelu", "silu", "tanh", or none for the identity.
        x0: the time of x, (..., 1), where `linear_with_time` has given it; derivatives go through it.
        backend: "triton" or "torch" instead of what `dispatch.choose` picks, which on a GPU is torch for up to `FEW`
            numbers, unless a CUDA graph records them. Triton takes one c for all rows and up to 8192 outputs.

    Returns:
        (..., out) in the dtype of `torch.nn.functional.linear`, under autocast too; differentiable in all tensors, at
        any order and in forward mode.

    Raises:
        ValueError: the shapes do not fit, the activation is none of these, or the backend cannot run.
    """
    found: Tensor = _run(naive.linear, False, x, weight, time_weight, bias, c, activation, x0, backend)
    return found


def linear_with_time(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    bias: Tensor | None = None,
    c: Curvature = 1.0,
    *,
    activation: str | None = None,
    x0: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return y as `linear` does, and its time y0 = sqrt(1/c + |y|^2), (..., 1), in float32 or better.

    y0 is what the next map takes as `x0`: its rows are then read once less forward, and once less backward.
    """
    y, y0 = _run(naive.linear_with_time, True, x, weight, time_weight, bias, c, activation, x0, backend)
    return y, y0


def _run(
    specification: Callable[..., Any],
    timed: bool,
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    bias: Tensor | None,
    c: Curvature,
    activation: str | None,
    x0: Tensor | None,
    backend: str | None,
) -> Any:
    _check(x, weight, time_weight, bias, x0)
    name = check(activation)
    module = implementation(x, weight, time_weight, bias, c, x0, backend=backend)
    if module is None or (module is closed and x.is_cuda and result_dtype(x).itemsize < 4):  # which it would cast often
        return specification(x, weight, time_weight, bias, c, activation=activation, x0=x0)
    found = _Linear.apply(x, weight, time_weight, bias, c, x0, _Form(module, result_dtype(x), name, timed))
    if timed:
        return tuple(rows_of.view(*x.shape[:-1], rows_of.shape[1]) for rows_of in found)
    return found.view(*x.shape[:-1], len(weight))  # out here, so that it may be changed in place


def implementation(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    bias: Tensor | None,
    c: Curvature,
    x0: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Any:
    """Return what has forward and backward for these tensors, `closed` or `rows`, or none: the specification has."""
    tensors = x, weight, time_weight, bias, x0, c if isinstance(c, Tensor) else None
    chosen = "torch" if len(weight) > rows.WIDEST else choose(*tensors[:5], backend=backend)
    few = chosen == "triton" and _few(x, weight) and not asked(backend)
    per_row = isinstance(c, Tensor) and c.numel() != 1
    traced = (chosen == "torch" or few) and torch.compiler.is_compiling()  # a compiler fuses more than a closed form
    mixed = x.dtype != weight.dtype and not _casts(x)  # is whatever torch makes of it
    if per_row or traced or mixed or composes(*tensors):
        return None
    return rows if chosen == "triton" and not few else closed


def result_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of a product of x."""
    return torch.get_autocast_dtype(x.device.type) if _casts(x) else x.dtype


def _few(x: Tensor, weight: Tensor) -> bool:
    """Whether a GPU does torch's own operators before Python has launched kernels of ours; a graph has no Python."""
    numbers = x.numel() // max(1, x.shape[-1]) * max(weight.shape)
    if numbers > FEW or torch.compiler.is_compiling():  # a compiler fuses them, and launches what is left faster
        return numbers <= FEW
    return not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


def _check(x: Tensor, weight: Tensor, time_weight: Tensor, bias: Tensor | None, x0: Tensor | None) -> None:
    out = weight.shape[:1]
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:] or time_weight.shape != out:
        shapes = tuple(x.shape), tuple(weight.shape), tuple(time_weight.shape)
        raise ValueError(f"expected x (..., in), weight (out, in), time_weight (out), got {shapes}")
    if bias is not None and bias.shape != out:
        raise ValueError(f"expected bias {tuple(out)} or none, got {tuple(bias.shape)}")
    if x0 is not None and x0.shape != (*x.shape[:-1], 1):
        raise ValueError(f"expected the times of x, {(*x.shape[:-1], 1)}, got {tuple(x0.shape)}")


def _casts(x: Tensor) -> bool:
    """Whether autocast is on where x is, and would round it."""
    device = x.device.type
    return x.dtype != torch.float64 and device != "meta" and torch.is_autocast_enabled(device)


def as_written(x: Tensor) -> AbstractContextManager[object]:
    """Keep autocast out: the implementations cast what is to be cast."""
    return torch.autocast(x.device.type, enabled=False) if _casts(x) else nullcontext()


class _Form(NamedTuple):
    module: Any  # `closed` or `rows`
    dtype: torch.dtype
    activation: str
    timed: bool  # whether the time of the result is wanted


class _Linear(torch.autograd.Function):
    """Rows (N, out) and their times; the gradient in closed form."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        time_weight: Tensor,
        bias: Tensor | None,
        c: Curvature,
        x0: Tensor | None,
        form: _Form,
    ) -> Tensor | tuple[Tensor, Tensor]:
        module, dtype, activation, timed = form
        given = None if x0 is None else x0.reshape(-1, 1)
        with as_written(x):
            found = module.forward(
                x.reshape(-1, x.shape[-1]), weight, time_weight, bias, c, given, dtype, activation, timed
            )
        kept = found.y if found.kept is None and (activation or timed) else found.kept
        tensor = c if isinstance(c, Tensor) else None
        ctx.save_for_backward(x, weight, time_weight, bias, tensor, x0, found.x0, kept, found.y0)
        ctx.number, ctx.form = c, form
        return (found.y, found.y0) if timed else found.y

    @staticmethod
    def backward(ctx: Any, grad: Tensor, to_y0: Tensor | None = None) -> tuple[Tensor | None, ...]:
        x, weight, time_weight, bias, tensor, x0, time, kept, y0 = ctx.saved_tensors
        c = ctx.number if tensor is None else tensor
        module, _, activation, _ = ctx.form
        with as_written(x):
            if torch.is_grad_enabled():  # a second derivative is wanted: the specification knows it
                inputs = x, weight, time_weight, bias, tensor, x0
                shape = x.shape[:-1]
                upstream = grad.view(*shape, len(weight)), None if to_y0 is None else to_y0.view(*shape, 1)
                found = _composed_gradients(inputs, c, activation, upstream, ctx.needs_input_grad)
                return *found, None
            flat, points = (t.reshape(-1, t.shape[-1]) for t in (grad, x))
            epilogue = Epilogue(activation, kept, y0, None if to_y0 is None else to_y0.reshape(-1, 1))
            found = module.backward(
                flat, points, time, weight, time_weight, c, x0 is None, epilogue, ctx.needs_input_grad
            )
        return (
            None if found.x is None else found.x.view(x.shape),
            found.weight,
            found.time_weight,
            None if bias is None or found.bias is None else found.bias.to(bias.dtype),
            None if tensor is None or found.c is None else found.c.reshape(c.shape).to(c.dtype),
            None if x0 is None or found.x0 is None else found.x0.view(x0.shape).to(x0.dtype),
            None,
        )


def _composed_gradients(
    inputs: Sequence[Tensor | None],
    c: Curvature,
    activation: str,
    upstream: tuple[Tensor, Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Return the gradients with graphs of their own, computed in the dtype of the upstream gradient."""
    leaves: list[Any] = [None if part is None else part.view_as(part) for part in inputs]
    x, weight, time_weight, bias, tensor, x0 = leaves
    cast: list[Any] = [None if part is None else part.to(upstream[0].dtype) for part in (x, weight, bias)]
    y = naive.linear(
        cast[0], cast[1], time_weight, cast[2], c if tensor is None else tensor,
        activation=activation or None, x0=naive.time(x, c if tensor is None else tensor) if x0 is None else x0,
    )  # fmt: skip
    outputs = [y] if upstream[1] is None else [y, naive.time(y, c if tensor is None else tensor)]
    wanted = [leaf for leaf, need in zip(leaves, needed, strict=False) if need]
    found = iter(torch.autograd.grad(outputs, wanted, upstream[: len(outputs)], create_graph=True, allow_unused=True))
    return [next(found) if need else None for _, need in zip(leaves, needed, strict=False)]

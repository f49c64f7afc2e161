"""`linear` with Triton: the kernels as operators, in the order that the forward and the backward call them.

For few outputs in 16 bits one kernel holds whole rows of the result, and the product never leaves the chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz_kernels.linear.activation import FROM_OUTPUT, Epilogue, apply, gradient
from lorentz_kernels.linear.closed import Gradients, Result, of_curvature
from lorentz_kernels.linear.naive import Curvature, time
from lorentz_kernels.registry import operator

FUSED_WIDTH, FUSED_ROWS = 512, 8192  # outputs that fit one program; rows that give every multiprocessor a program
WIDEST = 8192  # outputs up to which the backward holds whole rows


def forward(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    bias: Tensor | None,
    c: Curvature,
    x0: Tensor | None,
    dtype: torch.dtype,
    activation: str,
    timed: bool,
) -> Result:
    """Return the result in `dtype` for x (N, in); no gradient."""
    tensor, number = (c, 0.0) if isinstance(c, Tensor) else (None, c)
    x0 = _time(x, tensor, number) if x0 is None else x0.float()
    x, weight = x.to(dtype), weight.to(dtype)
    options = activation, timed, tensor, number
    if dtype.itemsize < 4 and len(weight) <= FUSED_WIDTH and len(x) >= FUSED_ROWS:
        y, kept, y0 = _product(x, weight, x0, time_weight, bias, *options)
    else:
        y, kept, y0 = _epilogue(F.linear(x, weight), x0, time_weight, bias, *options)
    return Result(y, x0, None if activation in FROM_OUTPUT else kept, y0 if timed else None)


def backward(
    grad: Tensor,
    x: Tensor,
    x0: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    c: Curvature,
    derived: bool,
    epilogue: Epilogue,
    needed: Sequence[bool],
) -> Gradients:
    """Return the gradients that are needed for that of the output, (N, out); `derived`: x0 is that of x."""
    ratio, sums, before = _backward(grad, x0, time_weight, *epilogue[1:], epilogue.activation)
    grad = grad if epilogue.kept is None else before
    to_x = grad @ weight.to(grad.dtype) if needed[0] else None
    return Gradients(
        x=_add_time(to_x, x, ratio) if derived and to_x is not None else to_x,
        weight=(grad.mT @ x.to(grad.dtype)).to(weight.dtype) if needed[1] else None,
        time_weight=sums[0].to(time_weight.dtype),
        bias=sums[1],
        c=of_curvature(ratio if derived else None, epilogue, c) if needed[4] else None,
        x0=ratio * x0 if needed[5] else None,
    )


def _launcher(name: str) -> Any:
    """Return the launcher of that name, whose module imports Triton, found when it is first called."""

    def launch(*arguments: Any) -> Any:
        from lorentz_kernels.linear import triton

        return getattr(triton, name)(*arguments)

    return launch


def _composed_time(x: Tensor, c: Tensor | None, number: float) -> Tensor:
    return time(x, number if c is None else c)


_time = operator(
    "linear_time(Tensor x, Tensor? c, float number) -> Tensor",
    triton=_launcher("time_of"),
    torch_path=_composed_time,
    fake=lambda x, c, number: x.new_empty(len(x), 1, dtype=torch.float32),
)


_OPTIONS = "str activation, bool timed, Tensor? c, float number"


def _finish(
    total: Tensor, like: Tensor, bias: Tensor | None, activation: str, timed: bool, c: Tensor | None, number: float
) -> tuple[Tensor, Tensor, Tensor]:
    before = (total if bias is None else total + bias).to(like.dtype).contiguous()
    y = apply(activation, before)
    kept = like.new_empty(0, len(like)) if activation in FROM_OUTPUT else before
    return y, kept, _composed_time(y, c, number) if timed else total.new_empty(0, 1)


def _fake_finish(
    like: Tensor, columns: int, activation: str, timed: bool, c: Tensor | None, number: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows = like.shape[0]
    kept = (0, rows) if activation in FROM_OUTPUT else (rows, columns)
    y0 = like.new_empty(rows if timed else 0, 1, dtype=torch.float32)
    return like.new_empty(rows, columns), like.new_empty(kept), y0


def _composed_epilogue(
    product: Tensor, x0: Tensor, time_weight: Tensor, bias: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _finish(product.float() + x0 * time_weight, product, bias, *options)


_epilogue = operator(
    f"linear_epilogue(Tensor product, Tensor x0, Tensor time_weight, Tensor? bias, {_OPTIONS})"
    " -> (Tensor, Tensor, Tensor)",
    triton=_launcher("epilogue"),
    torch_path=_composed_epilogue,
    fake=lambda product, x0, time_weight, bias, *options: _fake_finish(product, product.shape[1], *options),
)


def _composed_product(
    x: Tensor, weight: Tensor, x0: Tensor, time_weight: Tensor, bias: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _finish(x.float() @ weight.float().mT + x0 * time_weight, x, bias, *options)


_product = operator(
    f"linear_product(Tensor x, Tensor weight, Tensor x0, Tensor time_weight, Tensor? bias, {_OPTIONS})"
    " -> (Tensor, Tensor, Tensor)",
    triton=_launcher("product"),
    torch_path=_composed_product,
    fake=lambda x, weight, x0, time_weight, bias, *options: _fake_finish(x, weight.shape[0], *options),
)


def _composed_backward(
    grad: Tensor, x0: Tensor, time_weight: Tensor, kept: Tensor | None, y0: Tensor | None, to_y0: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    before = gradient(grad, Epilogue(activation, kept, y0, to_y0)).contiguous()
    wide = before.float()
    ratio = (wide @ time_weight.float()).unsqueeze(-1) / x0
    sums = torch.stack([(wide * x0).sum(0), wide.sum(0)])
    return ratio, sums, grad.new_empty(0, grad.shape[1]) if kept is None else before


_backward = operator(
    "linear_backward(Tensor grad, Tensor x0, Tensor time_weight, Tensor? kept, Tensor? y0, Tensor? to_y0,"
    " str activation) -> (Tensor, Tensor, Tensor)",
    triton=_launcher("backward"),
    torch_path=_composed_backward,
    fake=lambda grad, x0, time_weight, kept, *rest: (
        x0.new_empty(x0.shape),
        x0.new_empty(2, grad.shape[1]),
        grad.new_empty(0 if kept is None else grad.shape[0], grad.shape[1]),
    ),
)


def _composed_add_time(product: Tensor, x: Tensor, ratio: Tensor) -> Tensor:
    return (product.float() + ratio * x.float()).to(x.dtype).contiguous()


_add_time = operator(
    "linear_add_time(Tensor product, Tensor x, Tensor ratio) -> Tensor",
    triton=_launcher("add_time"),
    torch_path=_composed_add_time,
    fake=lambda product, x, ratio: x.new_empty(x.shape),
)

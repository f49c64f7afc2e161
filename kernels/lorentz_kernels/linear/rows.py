"""`linear` with Triton: the kernels as operators, in the order that the forward and the backward call them.

For few outputs in 16 bits one kernel holds whole rows of the result, and the product never leaves the chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz_kernels.linear.naive import Curvature, Gradients, time
from lorentz_kernels.registry import operator

FUSED_WIDTH, FUSED_ROWS = 512, 8192  # outputs that fit one program; rows that give every multiprocessor a program
WIDEST = 8192  # outputs up to which the backward holds whole rows


def forward(
    x: Tensor, weight: Tensor, time_weight: Tensor, bias: Tensor | None, c: Curvature, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the result in `dtype`, (N, out), and the time of x, (N, 1), for x (N, in); no gradient."""
    tensor, number = (c, 0.0) if isinstance(c, Tensor) else (None, c)
    x0 = _time(x, tensor, number)
    x, weight = x.to(dtype), weight.to(dtype)
    if dtype.itemsize < 4 and len(weight) <= FUSED_WIDTH and len(x) >= FUSED_ROWS:
        return _product(x, weight, x0, time_weight, bias), x0
    return _epilogue(F.linear(x, weight), x0, time_weight, bias), x0


def backward(
    grad: Tensor,
    x: Tensor,
    x0: Tensor,
    weight: Tensor,
    time_weight: Tensor,
    c: Curvature,
    needed: Sequence[bool],
) -> Gradients:
    """Return the gradients that are needed, in the order of `Gradients`, for a gradient of rows, (N, out)."""
    ratio, sums = _backward(grad, x0, time_weight)
    return Gradients(
        x=_add_time(grad @ weight.to(grad.dtype), x, ratio) if needed[0] else None,
        weight=(grad.mT @ x.to(grad.dtype)).to(weight.dtype) if needed[1] else None,
        time_weight=sums[0].to(time_weight.dtype),
        bias=sums[1],
        c=ratio.sum() / (-2 * c * c) if needed[4] else None,
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


def _composed_epilogue(product: Tensor, x0: Tensor, time_weight: Tensor, bias: Tensor | None) -> Tensor:
    total = product.float() + x0 * time_weight
    return (total if bias is None else total + bias).to(product.dtype)


_epilogue = operator(
    "linear_epilogue(Tensor product, Tensor x0, Tensor time_weight, Tensor? bias) -> Tensor",
    triton=_launcher("epilogue"),
    torch_path=_composed_epilogue,
    fake=lambda product, x0, time_weight, bias: product.new_empty(product.shape),
)


def _composed_product(x: Tensor, weight: Tensor, x0: Tensor, time_weight: Tensor, bias: Tensor | None) -> Tensor:
    total = x.float() @ weight.float().mT + x0 * time_weight
    return (total if bias is None else total + bias).to(x.dtype)


_product = operator(
    "linear_product(Tensor x, Tensor weight, Tensor x0, Tensor time_weight, Tensor? bias) -> Tensor",
    triton=_launcher("product"),
    torch_path=_composed_product,
    fake=lambda x, weight, x0, time_weight, bias: x.new_empty(len(x), len(weight)),
)


def _composed_backward(grad: Tensor, x0: Tensor, time_weight: Tensor) -> tuple[Tensor, Tensor]:
    wide = grad.float()
    ratio = (wide @ time_weight.float()).unsqueeze(-1) / x0
    return ratio, torch.stack([(wide * x0).sum(0), wide.sum(0)])


_backward = operator(
    "linear_backward(Tensor grad, Tensor x0, Tensor time_weight) -> (Tensor, Tensor)",
    triton=_launcher("backward"),
    torch_path=_composed_backward,
    fake=lambda grad, x0, time_weight: (x0.new_empty(x0.shape), x0.new_empty(2, grad.shape[1])),
)


def _composed_add_time(product: Tensor, x: Tensor, ratio: Tensor) -> Tensor:
    return (product.float() + ratio * x.float()).to(x.dtype)


_add_time = operator(
    "linear_add_time(Tensor product, Tensor x, Tensor ratio) -> Tensor",
    triton=_launcher("add_time"),
    torch_path=_composed_add_time,
    fake=lambda product, x, ratio: x.new_empty(x.shape),
)

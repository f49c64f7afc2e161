"""The specification of `linear`: a linear map of ambient coordinates, and its gradient."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

Curvature = float | Tensor


def linear(x: Tensor, weight: Tensor, time_weight: Tensor, bias: Tensor | None = None, c: Curvature = 1.0) -> Tensor:
    """Return W x + w_t x0 + b: (..., in) to (..., out), in the dtype of `torch.nn.functional.linear`."""
    space = F.linear(x, weight, bias)
    return (space + time(x, c) * time_weight).to(space.dtype)


def time(x: Tensor, c: Curvature = 1.0) -> Tensor:
    """Return x0 = sqrt(1/c + |x|^2), (..., 1), in float32 or better."""
    x = x.float() if x.dtype.itemsize < 4 else x
    inverse = 1 / (c.to(x.dtype) if isinstance(c, Tensor) else c)
    return (inverse + (x * x).sum(-1, keepdim=True)).sqrt()


class Gradients(NamedTuple):
    """Gradients of x, weight, time_weight, bias and c; none where nobody needs it."""

    x: Tensor | None
    weight: Tensor | None
    time_weight: Tensor | None
    bias: Tensor | None
    c: Tensor | None


def gradients(grad: Tensor, x: Tensor, weight: Tensor, time_weight: Tensor, c: Curvature) -> Gradients:
    r"""Return the gradients for one curvature, given that of the result, (..., out).

    .. math::
        r = \frac{g \cdot w_t}{x_0}, \quad dx = W^T g + r\,x, \quad dW = \sum g x^T, \quad dw_t = \sum x_0 g, \quad
        db = \sum g, \quad dc = - \frac{1}{2 c^2} \sum r.
    """
    x0 = time(x, c)
    wide = grad.to(x0.dtype)
    ratio = (wide @ time_weight.to(x0.dtype)).unsqueeze(-1) / x0
    rows, points, times = (t.reshape(-1, t.shape[-1]) for t in (wide, x.to(grad.dtype), x0))
    return Gradients(
        x=(grad @ weight.to(grad.dtype) + ratio * x).to(x.dtype),
        weight=(rows.to(grad.dtype).mT @ points).to(weight.dtype),
        time_weight=(rows * times).sum(0).to(time_weight.dtype),
        bias=rows.sum(0),
        c=ratio.sum() / (-2 * c * c),
    )

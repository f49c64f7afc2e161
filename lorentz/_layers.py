"""The linear map that layers are made of, and the heads that it is cut into."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lorentz._precision import Curvature
from lorentz_kernels.linear import linear as linear_map
from lorentz_kernels.linear.activation import apply, check


def linear(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor | None = None,
    bias: Tensor | None = None,
    c: Curvature = 1.0,
    *,
    activation: str | None = None,
) -> Tensor:
    """Return f(W x + w_t x0 + b), a linear map of ambient coordinates whose time is derived, not computed.

    It contains every isometry: W = R (I + gamma^2 / (1 + gamma) u u^T), w_t = -gamma R u.

    Args:
        x: points, (..., in).
        weight: W, (out, in).
        time_weight: w_t, (out); none is zero, and leaves `torch.nn.functional.linear`.
        bias: b, (out).
        c: the curvature is -c.
        activation: f, of each coordinate: "relu", "gelu", "silu", "tanh", or none for the identity.

    Returns:
        Points, (..., out), in the dtype of `torch.nn.functional.linear`; the time term is formed in float32 or better.

    Raises:
        ValueError: the shapes do not fit, or there is no such activation.

    Source: Chen et al., ACL 2022, Eq. 2, without the row of M that gives the output's time.
    """
    if time_weight is None:
        return apply(check(activation), F.linear(x, weight, bias))
    return linear_map(x, weight, time_weight, bias, c, activation=activation)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Cut the space part into heads, each of them a point: (..., L, n) to (..., heads, L, n / heads).

    Raises:
        ValueError: n is not a multiple of the number of heads.
    """
    if x.shape[-1] % num_heads:
        raise ValueError(f"expected a width that {num_heads} heads divide, got {x.shape[-1]}")
    return x.unflatten(-1, (num_heads, -1)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """Join the heads into one point, the inverse of `split_heads`: (..., heads, L, n) to (..., L, heads * n)."""
    return x.transpose(-2, -3).flatten(-2)

"""The two maps that layers are made of, and the heads between them: linear, attention, split, merge."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lorentz._chart import time
from lorentz._distance import sqdist
from lorentz._mean import drop_to_sheet
from lorentz._precision import Curvature, full_precision, same_width, transforming, widen


def linear(
    x: Tensor,
    weight: Tensor,
    time_weight: Tensor | None = None,
    bias: Tensor | None = None,
    c: Curvature = 1.0,
) -> Tensor:
    """Return W x + w_t x0 + b, a linear map of ambient coordinates whose time is derived, not computed.

    It contains every isometry: W = R (I + gamma^2 / (1 + gamma) u u^T), w_t = -gamma R u.

    Args:
        x: points, (..., in).
        weight: W, (out, in).
        time_weight: w_t, (out); none is zero, and leaves `torch.nn.functional.linear`.
        bias: b, (out).
        c: the curvature is -c.

    Returns:
        Points, (..., out), in the dtype of `torch.nn.functional.linear`; the time term is formed in float32 or better.

    Source: Chen et al., ACL 2022, Eq. 2, without the row of M that gives the output's time.
    """
    space = F.linear(x, weight, bias)
    return space if time_weight is None else (space + time(x, c, keepdim=True) * time_weight).to(space.dtype)


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


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | Tensor | None = None,
    c: Curvature = 1.0,
) -> Tensor:
    r"""Return the centroids of the values, weighted by a softmax over squared Lorentzian distances.

    .. math::
        \operatorname{centroid}_j\bigl(\operatorname{softmax}_j(-s\,|q_i - k_j|_L^2),\; v_j\bigr), \qquad
        \text{scores up to a constant:}\quad 2 s \langle q_i, k_j\rangle = 2 s\,(q_i \cdot k_j - q_{i0} k_{j0}).

    The times enter as one more column, in float32 or better also under autocast, so `scaled_dot_product_attention`
    does the work and memory is linear in the length. Below float64, second derivatives need torch's plain form, as
    they do there: `with torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`. The result is exact to rounding for values
    that lie near one another; for values spread over a radius whose time is t the relative error is eps * t^2.

    Args:
        query: points, (..., L, n).
        key: points, (..., S, n).
        value: points, (..., S, m).
        attn_mask: as in torch: boolean, True takes part, or floats added to the scores; broadcasts to (..., L, S).
            A query that no key may serve gets the origin.
        dropout_p: probability that a weight is dropped. The centroid needs no rescaling.
        is_causal: query i sees the keys up to i, and of those the ones that `attn_mask` lets through.
        scale: s > 0, a float or a tensor that broadcasts to (..., L, 1); by default 1 / sqrt(n).
        c: the curvature is -c: a float, () or (1,).

    Returns:
        Points, (..., L, m), in the dtype of the query.

    Source: Chen et al., ACL 2022.
    """
    same_width(query, key)
    q, k, v = widen(query), widen(key), widen(value)
    q = 2 * (q.shape[-1] ** -0.5 if scale is None else scale) * torch.cat([q, -time(q, c, keepdim=True)], dim=-1)
    k = torch.cat([k, time(k, c, keepdim=True)], dim=-1)
    reference = (v.sum(-2, keepdim=True) / max(v.shape[-2], 1)).detach()
    v = torch.cat([v, _height(v, reference, c)], dim=-1)
    if attn_mask is not None and is_causal:  # torch's implementations differ here: some refuse, some apply both
        attn_mask, is_causal = _add_causal(attn_mask, q.shape[-2], k.shape[-2]), False
    alive, attn_mask = _revive(attn_mask, q.dtype)
    with full_precision(q.device), _differentiable(q.dtype):
        mean = _weighted_mean(q, k, v, attn_mask, dropout_p, is_causal)
    mean, height = mean[..., :-1], mean[..., -1:]
    excess = (height - _height(mean, reference, c)).clamp_min(0)  # the sheet is convex; rounding is not
    points = drop_to_sheet(mean, excess, c)
    return (points if alive is None else torch.where(alive, points, 0.0)).to(query.dtype)


def _height(x: Tensor, reference: Tensor, c: Curvature) -> Tensor:
    r"""Return the height of the sheet over its tangent plane at R, :math:`x_0 - R_0 - R/R_0 \cdot (x - R)`: (..., 1).

    It equals |x - R|_L^2 / (2 R_0), which is exact near R, where differences of times cancel.
    """
    return sqdist(x, reference, c, keepdim=True) / (2 * time(reference, c, keepdim=True))


def _weighted_mean(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool
) -> Tensor:
    """Return the means of v under softmax(q k^T), (..., L, m); a query that dropout leaves without keys gets zeros."""
    if dropout_p == 0:
        return F.scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal, scale=1.0)
    # Dropped weights no longer sum to one: a column of ones carries their sum.
    q, k, v = F.pad(q, (0, 1)), F.pad(k, (0, 1)), F.pad(v, (0, 1), value=1.0)
    mean = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=1.0)
    total = mean[..., -1:]
    return mean[..., :-1] / torch.where(total == 0, 1.0, total)


def _add_causal(attn_mask: Tensor, queries: int, keys: int) -> Tensor:
    causal = torch.ones(queries, keys, dtype=torch.bool, device=attn_mask.device).tril()
    return attn_mask & causal if attn_mask.dtype == torch.bool else torch.where(causal, attn_mask, float("-inf"))


def _revive(attn_mask: Tensor | None, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """Return which rows have a key, and a mask in which the others see all keys, for a softmax without NaN."""
    if attn_mask is None:
        return None, None
    if attn_mask.dtype == torch.bool:
        alive = attn_mask.any(-1, keepdim=True)
        return alive, attn_mask | ~alive
    alive = (attn_mask > float("-inf")).any(-1, keepdim=True)
    return alive, torch.where(alive, attn_mask, 0.0).to(dtype)


def _differentiable(dtype: torch.dtype) -> AbstractContextManager[object]:
    """Choose the form of attention that has every derivative where those are asked for: transforms and float64."""
    plain = dtype == torch.float64 or (not torch.compiler.is_compiling() and transforming())
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()

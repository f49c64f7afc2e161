"""Attention: the centroid of the values under a softmax of squared Lorentzian distances."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lorentz._closed import CLOSED
from lorentz._columns import PLAIN
from lorentz._precision import Curvature, full_precision, same_width, transforming, widen


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
    plain = _wants_all_derivatives(q.dtype)
    columns = PLAIN if plain or torch.compiler.is_compiling() else CLOSED  # a compiler derives and fuses by itself
    reference = (v.sum(-2, keepdim=True) / max(v.shape[-2], 1)).detach()
    if attn_mask is not None and is_causal:  # torch's implementations differ here: some refuse, some apply both
        attn_mask, is_causal = _add_causal(attn_mask, q.shape[-2], k.shape[-2]), False
    alive, attn_mask = _revive(attn_mask, q.dtype)
    with full_precision(q.device), sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        factor = 2 * (q.shape[-1] ** -0.5 if scale is None else scale)
        q = columns.with_time(q, -1, c)
        if isinstance(factor, Tensor):
            q, factor = q * factor, 1.0
        k, v = columns.with_time(k, 1, c), columns.with_height(v, reference, c)
        mean, kept = _weighted_mean(q, k, v, attn_mask, dropout_p, is_causal, factor)
        points = columns.mean_to_point(mean, reference, c)
    for some in (alive, kept):
        points = points if some is None else torch.where(some, points, 0.0)
    return points.to(query.dtype)


def _weighted_mean(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor | None]:
    """Return the means of v under softmax(scale q k^T), (..., L, m), and which rows keep a key, (..., L, 1)."""
    if dropout_p == 0:
        return F.scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal, scale=scale), None
    # Dropped weights no longer sum to one: a column of ones carries their sum.
    q, k, v = F.pad(q, (0, 1)), F.pad(k, (0, 1)), F.pad(v, (0, 1), value=1.0)
    mean = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
    total, kept = mean[..., -1:], mean[..., -1:] > 0
    return mean[..., :-1] / torch.where(kept, total, 1.0), kept


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


def _wants_all_derivatives(dtype: torch.dtype) -> bool:
    """Whether derivatives other than the first backward may follow: float64, transforms, torch's plain form chosen."""
    if dtype == torch.float64:
        return True
    return not torch.compiler.is_compiling() and (transforming() or not torch.backends.cuda.flash_sdp_enabled())

"""Attention on torch's own: times and heights are one more column, and `scaled_dot_product_attention` does the work."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lorentz_kernels.attention.columns import mean_to_point, with_height, with_time
from lorentz_kernels.attention.naive import visible
from lorentz_kernels.dispatch import transforming
from lorentz_kernels.precision import Curvature, full_precision, widen


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
    enable_gqa: bool = False,
    diagonal: int = 0,
    every_derivative: bool | None = None,
) -> Tensor:
    """Return the centroids of `op.attention`, with the derivatives that torch's attention has.

    Its fast forms have the first; with every derivative, by default in float64 and under transforms, all weights are
    held.
    """
    q, k, v = widen(query), widen(key), widen(value)
    reference = (v.sum(-2, keepdim=True) / max(v.shape[-2], 1)).detach()
    if is_causal and (attn_mask is not None or diagonal):  # torch's implementations differ, and align at the first row
        causal = visible(q.shape[-2], k.shape[-2], diagonal, q.device)
        attn_mask, is_causal = _restrict(attn_mask, causal), False
    alive, attn_mask = _revive(attn_mask, q.dtype)
    plain = _wants_all_derivatives(q.dtype) if every_derivative is None else every_derivative
    with full_precision(q.device), sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        q = with_time(q, -1, c, 2 * (q.shape[-1] ** -0.5 if scale is None else scale))
        k, v = with_time(k, 1, c), with_height(v, reference, c)
        if enable_gqa:
            k, v, reference = (_repeat(x, q.shape[-3]) for x in (k, v, reference))
        mean, kept = _weighted_mean(q, k, v, attn_mask, dropout_p, is_causal)
        points = mean_to_point(mean, reference, c)
    for some in (alive, kept):
        points = points if some is None else torch.where(some, points, 0.0)
    return points.to(query.dtype)


def _repeat(x: Tensor, heads: int) -> Tensor:
    return x.repeat_interleave(heads // x.shape[-3], dim=-3)


def _weighted_mean(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the means of v under softmax(q k^T), (..., L, m), and which rows keep a key, (..., L, 1)."""
    if dropout_p == 0:
        return F.scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal, scale=1.0), None
    # Dropped weights no longer sum to one: a column of ones carries their sum.
    q, k, v = F.pad(q, (0, 1)), F.pad(k, (0, 1)), F.pad(v, (0, 1), value=1.0)
    mean = F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=1.0)
    total, kept = mean[..., -1:], mean[..., -1:] > 0
    return mean[..., :-1] / torch.where(kept, total, 1.0), kept


def _restrict(attn_mask: Tensor | None, seen: Tensor) -> Tensor:
    if attn_mask is None:
        return seen
    return attn_mask & seen if attn_mask.dtype == torch.bool else torch.where(seen, attn_mask, float("-inf"))


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

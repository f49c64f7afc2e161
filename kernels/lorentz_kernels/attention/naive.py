"""The specification of `attention`: the centroid of the values under a softmax of squared Lorentzian distances."""

from __future__ import annotations

import torch
from torch import Tensor


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | Tensor | None = None,
    c: float | Tensor = 1.0,
    enable_gqa: bool = False,
    diagonal: int = 0,
    qk_norm: bool = False,
) -> Tensor:
    """Return centroid_j(softmax_j(-scale |q_i - k_j|_L^2 + mask_ij), v_j), (..., L, m); arguments as in `op.attention`.

    With times x0 = sqrt(1/c + |x|^2), |q - k|_L^2 = -2/c - 2 (q.k - q0 k0), and the centroid of weights w is
    m / (sqrt(c) sqrt(m0^2 - |m|^2)), (m0, m) = sum_j w_j (v0_j, v_j).
    """
    if qk_norm:
        query, key = at_one_radius(query), at_one_radius(key)
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, dim=-3), value.repeat_interleave(groups, dim=-3)
    q0, k0, v0 = (_time(x, c) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = -scale * (-2 / c - 2 * (query @ key.mT - q0 * k0.mT))  # (..., L, S)
    scores = scores + _bias(scores, attn_mask, is_causal, diagonal)
    alive = (scores > float("-inf")).any(-1, keepdim=True)
    weights = torch.where(alive, torch.where(alive, scores, 0.0).softmax(-1), 0.0)
    if dropout_p:
        weights = weights * (torch.rand_like(weights) >= dropout_p)
        alive = (weights > 0).any(-1, keepdim=True)
    mean, mean0 = weights @ value, weights @ v0
    norm = torch.where(alive, mean0.square() - mean.square().sum(-1, keepdim=True), 1 / c).sqrt()
    return mean / (c**0.5 * norm)


def at_one_radius(x: Tensor) -> Tensor:
    """Return sqrt(n) x / |x|, (..., n), by torch's `rms_norm` in float32 or better, whose epsilon keeps x = 0."""
    wide = x.float() if x.dtype.itemsize < 4 else x
    return torch.nn.functional.rms_norm(wide, x.shape[-1:], eps=torch.finfo(wide.dtype).eps).to(x.dtype)


def visible(queries: int, keys: int, diagonal: int, device: torch.device) -> Tensor:
    """Return which keys each query sees in causal attention, j <= i + diagonal: (L, S), boolean."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(diagonal)


def _time(x: Tensor, c: float | Tensor) -> Tensor:
    return (1 / c + x.square().sum(-1, keepdim=True)).sqrt()


def _bias(scores: Tensor, attn_mask: Tensor | None, is_causal: bool, diagonal: int) -> Tensor:
    """Return what is added to the scores: the mask's floats, and minus infinity where a key is not seen."""
    bias = scores.new_zeros(())
    if attn_mask is not None:
        hides = attn_mask.dtype == torch.bool
        bias = bias.where(attn_mask, float("-inf")) if hides else attn_mask.to(scores.dtype)
    if is_causal:
        bias = bias.where(visible(scores.shape[-2], scores.shape[-1], diagonal, scores.device), float("-inf"))
    return bias

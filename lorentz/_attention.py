"""Attention: the centroid of the values under a softmax of squared Lorentzian distances."""

from __future__ import annotations

from torch import Tensor

from lorentz._precision import Curvature, same_width
from lorentz_kernels.attention import attention as fused_attention


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
    qk_norm: bool = False,
) -> Tensor:
    r"""Return the centroids of the values, weighted by a softmax over squared Lorentzian distances.

    .. math::
        \operatorname{centroid}_j\bigl(\operatorname{softmax}_j(-s\,|q_i - k_j|_L^2),\; v_j\bigr), \qquad
        \text{scores up to a constant:}\quad 2 s \langle q_i, k_j\rangle = 2 s\,(q_i \cdot k_j - q_{i0} k_{j0}).

    The times enter in float32 or better, also under autocast, and memory is linear in the length: kernels do the work
    on a GPU, torch's own attention elsewhere; second derivatives hold all weights. The result is exact to a few
    roundings for values that lie near one another; for values spread over a radius whose time is t the relative error
    is eps * t^2.

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
        enable_gqa: as in torch: key and value have fewer heads, (..., H_kv, S, n), each for H / H_kv of the query's.
        qk_norm: put queries and keys at space norm sqrt(n) first, by `torch.nn.functional.rms_norm` in float32 or
            better; a distance is then one of angles.

    Returns:
        Points, (..., L, m), in the dtype of the query; under autocast in that of autocast.

    Source: Chen et al., ACL 2022; Henry et al., Findings of EMNLP 2020 (norms of queries and keys).
    """
    same_width(query, key)
    return fused_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, c=c, enable_gqa=enable_gqa, qk_norm=qk_norm
    )

"""What `lorentz.nn.MultiheadAttention` asks of its heads, and the weights that they give."""

from __future__ import annotations

import torch
from torch import Tensor

import lorentz.functional as LF


def check_heads(embed_dim: int, num_heads: int, num_kv_heads: int) -> None:
    """Raise ValueError unless heads divide the width, and those of keys those of queries."""
    if min(embed_dim, num_heads, num_kv_heads) <= 0:
        raise ValueError(
            f"expected positive embed_dim, num_heads and num_kv_heads, got {embed_dim}, {num_heads} and {num_kv_heads}"
        )
    if embed_dim % num_heads or num_heads % num_kv_heads:
        raise ValueError(
            f"expected embed_dim a multiple of num_heads, and that of num_kv_heads, "
            f"got {embed_dim}, {num_heads} and {num_kv_heads}"
        )


def weights_of(q: Tensor, k: Tensor, mask: Tensor | None, scale: Tensor, c: float | Tensor) -> Tensor:
    """Return softmax_j(2 s <q_i, k_j>), which is that of -s |q_i - k_j|_L^2: (..., L, S), zeros without keys."""
    scores = 2 * scale * LF.pairwise_inner(q, k, c)
    if mask is None:
        return scores.softmax(-1).to(q.dtype)
    scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    alive = (scores != float("-inf")).any(-1, keepdim=True)
    weights = torch.where(alive, scores, 0.0).softmax(-1)
    return torch.where(alive, weights, 0.0).to(q.dtype)

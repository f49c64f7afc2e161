"""The masks of `torch.nn.MultiheadAttention`, where True is ignored, as one for `attention`, where True takes part."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, int, int, int]
"""N, heads, L, S: the batch, the heads, the queries and the keys."""


def merge(attn_mask: Tensor | None, key_padding_mask: Tensor | None, shape: Shape) -> Tensor | None:
    """Return both masks as one: boolean if both are, else floats to be added to the scores.

    Args:
        attn_mask: (L, S) or (N * heads, L, S), boolean or floats.
        key_padding_mask: (N, S), or (S) without a batch, boolean or floats.
        shape: what the result broadcasts to.

    Raises:
        ValueError: a mask has another shape, or is neither boolean nor of floats.
    """
    parts = []
    if attn_mask is not None:
        parts.append(_view_attention(attn_mask, shape))
    if key_padding_mask is not None:
        parts.append(_view_padding(key_padding_mask, shape))
    if not parts:
        return None
    if all(part.dtype == torch.bool for part in parts):
        return ~(parts[0] | parts[1]) if len(parts) == 2 else ~parts[0]
    biases = [_bias(part) for part in parts]
    return biases[0] + biases[1] if len(biases) == 2 else biases[0]


def restrict(mask: Tensor | None, keep: Tensor) -> Tensor:
    """Return the merged mask with every position that `keep` does not name left out."""
    if mask is None:
        return keep
    return mask & keep if mask.dtype == torch.bool else torch.where(keep, mask, float("-inf"))


def causal(queries: int, keys: int, seen: int, device: torch.device) -> Tensor:
    """Return which of the keys each query may see, if `seen` keys stand before the first query: (L, S)."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(seen)


def extend(mask: Tensor, count: int) -> Tensor:
    """Return the merged mask for `count` more keys, which every query sees."""
    return F.pad(mask, (0, count), value=mask.dtype == torch.bool)


def _view_attention(mask: Tensor, shape: Shape) -> Tensor:
    batch, heads, queries, keys = shape
    _check_dtype(mask, "attn_mask")
    if mask.shape == (queries, keys):
        return mask
    if mask.shape != (batch * heads, queries, keys):
        raise ValueError(
            f"expected attn_mask ({queries}, {keys}) or ({batch * heads}, {queries}, {keys}), got {tuple(mask.shape)}"
        )
    return mask.reshape(shape)


def _view_padding(mask: Tensor, shape: Shape) -> Tensor:
    batch, _, _, keys = shape
    _check_dtype(mask, "key_padding_mask")
    if mask.shape != (batch, keys) and (batch, mask.shape) != (1, (keys,)):
        raise ValueError(
            f"expected key_padding_mask ({batch}, {keys}), got {tuple(mask.shape)}: with a cache it covers all keys"
        )
    return mask.reshape(batch, 1, 1, keys)


def _check_dtype(mask: Tensor, name: str) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"expected a {name} of booleans or floats, got {mask.dtype}")


def _bias(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(mask, float("-inf"))

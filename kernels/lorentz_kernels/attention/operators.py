"""The operators of attention as torch sees them: schemas, shapes, and an implementation for each device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.attention import dense
from lorentz_kernels.registry import operator

_GIVEN = "Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor? scale, Tensor? c"
_OPTIONS = "float slope, float curvature, bool causal, SymInt diagonal, bool centred"

SCHEMA = f"attention({_GIVEN}, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)"
"""Attention of q (B, H, L, n), k (B, H_kv, S, n), v (B, H_kv, S, m), with H a multiple of H_kv.

mask (B, H, L, S), boolean or added to the scores, and scale (B, H, L), float32, of which any size may be 1; c of one
element, float32. Without c curvature stands for it. The scores are slope scale <q_i, k_j>, or slope <q_i, k_j> without
scale. Query i sees keys j <= i + diagonal where causal. centred: values are seen from their mean, which keeps float32
exact where they lie near one another.

Returns points (B, H, L, m); rest, what rounding took from them, or in float32 and where centred the gaps of the means
from the reference; log2 of the sum of the weights, infinite without keys, and the factors that put means on the sheet,
zero without keys, both (B, H, L).
"""

SCHEMA_BACKWARD = (
    f"attention_backward(Tensor grad, {_GIVEN}, Tensor point, Tensor rest, Tensor lse, Tensor factor, {_OPTIONS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
"""Gradients of q, k, v; of scale for each row, (B, H, L); of c as summands (B, H, L) and (B, H_kv, S)."""


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    from lorentz_kernels.attention import triton

    return triton.forward(*arguments)


def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    from lorentz_kernels.attention import triton

    return triton.backward(*arguments)


def _shapes(q: Tensor, k: Tensor, v: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    centred: bool = arguments[-1]
    shape = (*q.shape[:3], v.shape[-1])
    dtype = torch.promote_types(q.dtype, torch.float32)
    rows = [q.new_empty(q.shape[:3], dtype=dtype) for _ in range(2)]
    return q.new_empty(shape), q.new_empty(shape, dtype=dtype if centred else q.dtype), *rows


def _shapes_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    lse: Tensor = arguments[5]
    gradients = [x.new_empty(x.shape) for x in (q, k, v)]
    return *gradients, *(lse.new_empty(shape[:3]) for shape in (q.shape, q.shape, k.shape))


attention = operator(SCHEMA, triton=_forward, torch_path=dense.forward, fake=_shapes)
attention_backward = operator(SCHEMA_BACKWARD, triton=_backward, torch_path=dense.backward, fake=_shapes_backward)

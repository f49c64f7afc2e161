"""The two operators of attention in plain torch, equation by equation: what the kernels compute, with all weights.

They stand for the kernels on a CPU: for the checks of the operators' contracts, and for gradients in float64 that are
written down and not derived.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.attention.closed import see
from lorentz_kernels.attention.given import parse
from lorentz_kernels.attention.naive import visible


def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return points, what the backward needs of them, log2 of the sums of weights, factors: see `operators.SCHEMA`."""
    (q, k, v, mask, scale, c), _, (slope, curvature, causal, diagonal, centred) = parse(arguments)
    curved = _curvature(c, curvature, q)
    reference = _reference(v, centred)
    columns = _columns(v, reference, curved)
    slopes = _slopes(scale, slope, q)
    scores = slopes * _inner(q, _spread(k, q), curved) + _bias(q, k, mask, causal, diagonal)
    lse = scores.logsumexp(-1, keepdim=True)
    alive = lse > float("-inf")
    mean = torch.where(alive, scores - lse, float("-inf")).exp() @ _spread(columns, q)
    gap, height = mean[..., :-1], mean[..., -1:]
    seen = see(gap, _spread(reference, q), curved)
    excess = (height - seen.height).clamp_min(0)
    factor = torch.where(alive, (1 + curved * excess * (2 * seen.time + excess)).rsqrt(), 0.0)
    point = factor * seen.point
    stored = point.to(q.dtype)
    rest = (point - stored).to(q.dtype) if q.dtype.itemsize == 2 and not centred else gap
    lse = torch.where(alive, lse / math.log(2), float("inf"))
    return stored, rest.contiguous(), lse[..., 0], factor[..., 0]


def backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v, scale and c: see `operators.SCHEMA_BACKWARD`; `triton/` has the equations."""
    given, (point, rest, lse, factor), (slope, curvature, causal, diagonal, centred) = parse(arguments)
    q, k, v, mask, scale, c = given
    curved = _curvature(c, curvature, q)
    reference = _reference(v, centred)
    lse, factor = lse[..., None], factor[..., None]
    f = torch.where(factor > 0, factor, 1.0)
    low = rest.dtype.itemsize == 2
    gap = (point.to(f.dtype) + rest.to(f.dtype)) / f if low else rest
    seen = see(gap, _spread(reference, q), curved)
    mean_time = (seen.point.square().sum(-1, keepdim=True) + 1 / (curved * f * f)).sqrt()
    excess = (1 / (f * f) - 1) / (curved * (mean_time + seen.time))
    grad = grad.to(f.dtype)
    along = factor * (grad * seen.point).sum(-1, keepdim=True)
    tilt = curved * factor * factor * along
    at, at_time = _spread(reference, q), (_spread(reference, q).square().sum(-1, keepdim=True) + 1 / curved).sqrt()
    to_gap = factor * grad + tilt * (gap - at * ((seen.rise + excess) / at_time))
    to_height = -tilt * mean_time

    spread, columns = _spread(k, q), _columns(v, reference, curved)
    slopes = _slopes(scale, slope, q)
    inner = _inner(q, spread, curved)
    scores = (slopes * inner + _bias(q, k, mask, causal, diagonal)) / math.log(2)
    weights = torch.exp2(scores - lse)
    delta = (to_gap * gap).sum(-1, keepdim=True) + to_height * (seen.height + excess)
    upstream = torch.cat([to_gap, to_height], dim=-1)
    dz = weights * (upstream @ _spread(columns, q).mT - delta)
    to_scale = slope * (dz * inner).sum(-1)
    dz = slopes * dz

    q, k_wide = q.to(f.dtype), spread.to(f.dtype)
    q_time, k_time = _time(q, curved), _time(k_wide, curved)
    to_q_time = -(dz @ k_time) / q_time
    dq = dz @ k_wide + to_q_time * q
    to_k_time = -(dz.mT @ q_time) / k_time
    dk = _gather(dz.mT @ q + to_k_time * k_wide, k)
    dv = _gather(weights.mT @ upstream, v)
    values = see(v.to(f.dtype) - reference, reference, curved)
    to_v_time = dv[..., -1:] / values.time
    dv = dv[..., :-1] + to_v_time * values.turn
    to_c = -along / (2 * curved) - to_q_time / (2 * curved * curved)
    to_c_of_keys = -(_gather(to_k_time, k) + to_v_time) / (2 * curved * curved)
    return dq.to(point.dtype), dk.to(k.dtype), dv.to(v.dtype), to_scale, to_c[..., 0], to_c_of_keys[..., 0]


def _curvature(c: Tensor | None, curvature: float, q: Tensor) -> Tensor:
    dtype = torch.promote_types(q.dtype, torch.float32)
    return q.new_full((), curvature, dtype=dtype) if c is None else c.reshape(()).to(dtype)


def _slopes(scale: Tensor | None, slope: float, q: Tensor) -> Tensor:
    return q.new_full((), slope, dtype=torch.promote_types(q.dtype, torch.float32)) * (
        1.0 if scale is None else scale[..., None]
    )


def _reference(v: Tensor, centred: bool) -> Tensor:
    dtype = torch.promote_types(v.dtype, torch.float32)
    reference = v.sum(-2, keepdim=True, dtype=dtype) / max(v.shape[-2], 1)
    return reference if centred else torch.zeros_like(reference)


def _columns(v: Tensor, reference: Tensor, c: Tensor) -> Tensor:
    gap = v.to(reference.dtype) - reference
    return torch.cat([gap, see(gap, reference, c).height], dim=-1)


def _time(x: Tensor, c: Tensor) -> Tensor:
    return (x.square().sum(-1, keepdim=True) + 1 / c).sqrt()


def _inner(q: Tensor, k: Tensor, c: Tensor) -> Tensor:
    q, k = q.to(c.dtype), k.to(c.dtype)
    return q @ k.mT - _time(q, c) * _time(k, c).mT


def _bias(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, diagonal: int) -> Tensor:
    bias = q.new_zeros((), dtype=torch.promote_types(q.dtype, torch.float32))
    if mask is not None:
        bias = bias.where(mask, float("-inf")) if mask.dtype == torch.bool else mask.to(bias.dtype)
    if causal:
        bias = bias.where(visible(q.shape[-2], k.shape[-2], diagonal, q.device), float("-inf"))
    return bias


def _spread(x: Tensor, q: Tensor) -> Tensor:
    """Repeat heads of keys for the query heads of their groups."""
    return x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)


def _gather(x: Tensor, k: Tensor) -> Tensor:
    """Sum over the query heads of each group."""
    return x.unflatten(1, (k.shape[1], -1)).sum(2)

"""Launches of the kernels of attention: grids, strides, configurations; nothing here knows a formula."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.attention.given import empty_in_order, empty_rows, parse
from lorentz_kernels.attention.triton.backward_keys import attention_backward_keys
from lorentz_kernels.attention.triton.backward_queries import attention_backward_queries
from lorentz_kernels.attention.triton.forward import attention_forward
from lorentz_kernels.attention.triton.pull_back import pull_back
from lorentz_kernels.attention.triton.rows import PARTS, prepare
from lorentz_kernels.attention.triton.tile import attention_tile, attention_tile_backward
from lorentz_kernels.configs import Config, generation, pick
from lorentz_kernels.dispatch import interpreting
from lorentz_kernels.launch import cdiv, next_power_of_2

ROWS = 32  # of the kernels that pass over rows
WARPS = {16: 1, 32: 4}  # of a tile that holds so many rows


def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return points (B, H, L, m), what rounding took from them or the gaps of the means, lse and factor (B, H, L)."""
    (q, k, v, mask, scale, c), _, (slope, curvature, causal, diagonal, centred) = parse(arguments)
    q, k, v = map(_rows, (q, k, v))
    batch, heads, queries, width = q.shape
    shape = (*q.shape[:3], v.shape[-1])
    point = q.new_empty(shape)
    rest = q.new_empty(shape, dtype=torch.float32 if centred or q.dtype == torch.float32 else q.dtype)
    lse, factor = (q.new_empty(shape[:3], dtype=torch.float32) for _ in range(2))
    if point.numel() == 0:
        return point, rest, lse, factor
    mask = _as_bytes(mask)

    def run(config: Config) -> None:
        reference, k_time, height, side, gap = _prepare(k, v, c, curvature, centred, config["SIDES"])
        attention_forward[(cdiv(queries, config["BLOCK_Q"]) * batch * heads,)](
            q, k, gap, k_time, height, side, reference, mask, scale, c, point, rest, lse, factor,
            *_geometry(q, k, gap, mask, scale, diagonal), slope, curvature,
            **_constants(q, v, mask, causal), **config, enable_fp_fusion=True,
        )  # fmt: skip

    run(pick("attention", "forward", q, run, width=max(width, v.shape[-1]), sm=generation()))
    return point, rest, lse, factor


def backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradients of q, k, v; of scale, (B, H, L); of c, as parts (B, H, L) and (B, H_kv, S) to be added."""
    given, (point, rest, lse, factor), (slope, curvature, causal, diagonal, centred) = parse(arguments)
    q, k, v, mask, scale, c = given
    grad, q, k, v = map(_rows, (grad, q, k, v))
    batch, heads, queries, width = q.shape
    kv_heads, keys, value_width = k.shape[1], k.shape[2], v.shape[-1]
    dq, dk, dv = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    to_scale, to_c, to_c_of_keys = (x.new_empty(x.shape[:3], dtype=torch.float32) for x in (q, q, k))
    if point.numel() == 0 or k.numel() == 0:
        return tuple(x.zero_() for x in (dq, dk, dv, to_scale, to_c, to_c_of_keys))

    mask = _as_bytes(mask)
    narrow = q.dtype != torch.float32  # the dtypes whose configurations may have SIDES
    reference, k_time, height, k_side, v = _prepare(k, v, c, curvature, centred, narrow)
    q_time, g_height, delta, to_c_of_points = (torch.empty_like(lse) for _ in range(4))
    q_side = q.new_empty(*q.shape[:3], PARTS.value) if narrow else None
    g = v.new_empty(point.shape)
    constants = _constants(q, v, mask, causal)
    pull_back[(cdiv(queries, ROWS) * batch * heads,)](
        q, point, rest, factor, grad, reference, c, q_time, q_side, g, g_height, delta, to_c_of_points,
        *q.stride()[:3], *grad.stride()[:3], heads, heads // kv_heads, queries, curvature,
        **{name: constants[name] for name in ("WIDTH", "VALUE_WIDTH", "D", "E")}, ROWS=ROWS, enable_fp_fusion=True,
    )  # fmt: skip
    shared = (q_time, k_time, height, g_height, lse, delta)
    geometry = (*_geometry(q, k, v, mask, scale, diagonal), slope, curvature)

    def run_keys(config: Config) -> None:
        attention_backward_keys[(cdiv(keys, config["BLOCK_K"]) * batch * kv_heads,)](
            q, k, v, g, q_side, *shared, reference, mask, scale, c, dk, dv, to_c_of_keys, *geometry,
            **constants, **config, enable_fp_fusion=True,
        )  # fmt: skip

    def run_queries(config: Config) -> None:
        attention_backward_queries[(cdiv(queries, config["BLOCK_Q"]) * batch * heads,)](
            q, k, v, g, k_side, *shared, to_c_of_points, mask, scale, c, dq, to_scale, to_c, *geometry,
            **constants, **config, enable_fp_fusion=True,
        )  # fmt: skip

    sizes = {"width": max(width, value_width), "sm": generation(), "unmasked": int(mask is None)}
    run_keys(pick("attention", "backward_keys", q, run_keys, **sizes))
    run_queries(pick("attention", "backward_queries", q, run_queries, **sizes))
    return dq, dk, dv, to_scale, to_c, to_c_of_keys


def tile(*arguments: Any) -> Tensor:
    """Return points (B, H, L, m) of heads that one tile holds; arguments as in `lorentz_kernels.attention.tile`."""
    *all_but_norm, qk_norm = arguments
    (q, k, v, mask, scale, c), _, (slope, curvature, causal, diagonal, centred) = parse(tuple(all_but_norm))
    q, k, v, mask = _rows(q), _rows(k), _rows(v), _as_bytes(mask)
    point, block = empty_in_order(q, v.shape[-1]), _block(q, k)
    if point.numel():
        attention_tile[(q.shape[0] * q.shape[1],)](
            q, k, v, mask, scale, c, point, *point.stride()[:3],
            *_geometry(q, k, v, mask, scale, diagonal), slope, curvature, **_constants(q, v, mask, causal),
            CENTRED=centred, QK_NORM=qk_norm, BLOCK=block, num_warps=WARPS[block], enable_fp_fusion=True,
        )  # fmt: skip
    return point


def tile_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradients of q, k, v; of scale, (B, H, L); of c, as parts (B, H, L) and (B, H_kv, S) to be added."""
    *all_but_norm, qk_norm = arguments
    (q, k, v, mask, scale, c), _, (slope, curvature, causal, diagonal, centred) = parse(tuple(all_but_norm))
    grad, q, k, v, mask = _rows(grad), _rows(q), _rows(k), _rows(v), _as_bytes(mask)
    dq, dk, dv = (empty_in_order(x, x.shape[-1]) for x in (q, k, v))
    to_scale, to_c, to_c_of_keys = empty_rows(q, k, scale, c)
    block = _block(q, k)
    if k.shape[0] * k.shape[1]:
        attention_tile_backward[(k.shape[0] * k.shape[1],)](
            grad, q, k, v, mask, scale, c, dq, dk, dv, to_scale, to_c, to_c_of_keys,
            *grad.stride()[:3], *dq.stride()[:3], *dk.stride()[:3], *dv.stride()[:3],
            *_geometry(q, k, v, mask, scale, diagonal), slope, curvature, **_constants(q, v, mask, causal),
            CENTRED=centred, QK_NORM=qk_norm, BLOCK=block, num_warps=WARPS[block], enable_fp_fusion=True,
        )  # fmt: skip
    return dq, dk, dv, to_scale, to_c, to_c_of_keys


def _block(q: Tensor, k: Tensor) -> int:
    """Return the rows of a tile that holds queries and keys."""
    return _padded(max(q.shape[2], k.shape[2]))


def _prepare(
    k: Tensor, v: Tensor, c: Tensor | None, curvature: float, centred: bool, sides: bool
) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None, Tensor]:
    """Return the reference of each head, the times of keys, heights of values, both as side rows, and the gaps."""
    batch, heads, keys, width = k.shape
    value_width = v.shape[-1]
    reference = v.mean(-2, dtype=torch.float32).contiguous() if centred and keys else None
    k_time, height = (k.new_empty(k.shape[:3], dtype=torch.float32) for _ in range(2))
    side = k.new_empty(*k.shape[:3], PARTS.value) if sides else None
    gap = v if reference is None else v.new_empty(v.shape)
    if k_time.numel():
        prepare[(cdiv(keys, ROWS) * batch * heads,)](
            k, v, reference, c, k_time, height, side, gap, *k.stride()[:3], *v.stride()[:3], heads, keys, curvature,
            WIDTH=width, VALUE_WIDTH=value_width, D=_padded(width), E=_padded(value_width), ROWS=ROWS,
            enable_fp_fusion=True,
        )  # fmt: skip
    return reference, k_time, height, side, gap


def _as_bytes(mask: Tensor | None) -> Tensor | None:
    return mask.view(torch.uint8) if mask is not None and mask.dtype == torch.bool else mask


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _geometry(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: Tensor | None, diagonal: int
) -> tuple[int, ...]:
    """Return strides, with zeros along which a mask or a scale is the same, and sizes, as the kernels take them."""
    heads, keys = q.shape[1], k.shape[1]
    masks, scales = _broadcast(mask, 4), _broadcast(scale, 3)
    sizes = heads, heads // keys, q.shape[2], k.shape[2], diagonal
    return (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *masks, *scales, *sizes)


def _broadcast(x: Tensor | None, dims: int) -> list[int]:
    if x is None:
        return [0] * dims
    return [stride if size > 1 else 0 for size, stride in zip(x.shape, x.stride(), strict=True)]


def _constants(q: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> dict[str, Any]:
    additive, per_key = mask is not None and mask.is_floating_point(), mask is not None and mask.shape[2] == 1
    return _named(q.dtype, additive, per_key, causal, q.shape[-1], v.shape[-1])


@cache  # it is Python's time that short sequences take
def _named(
    dtype: torch.dtype, additive: bool, per_key: bool, causal: bool, width: int, value_width: int
) -> dict[str, Any]:
    return {
        "CAUSAL": causal,
        "ADDITIVE": additive,
        "PER_KEY": per_key,
        "UPCAST": interpreting() and dtype == torch.bfloat16,  # the interpreter multiplies bfloat16 as integers
        "PRECISION": "ieee" if interpreting() else "bf16x3",  # of float32 products; the default, tf32, has 10 bits
        "WIDTH": width,
        "VALUE_WIDTH": value_width,
        "D": _padded(width),
        "E": _padded(value_width),
    }


def _padded(width: int) -> int:
    """Return the size of a tile that tensor cores take."""
    return max(16, next_power_of_2(width))

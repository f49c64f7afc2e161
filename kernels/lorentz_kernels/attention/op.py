"""`attention` for callers: picks the implementation and knows the gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.attention import flash, operators, sdpa, short
from lorentz_kernels.attention.given import Given, Options, parse
from lorentz_kernels.attention.naive import at_one_radius
from lorentz_kernels.attention.tile import Tile
from lorentz_kernels.dispatch import choose, composes
from lorentz_kernels.precision import full_precision

WIDEST = 128
"""Coordinates of a head up to which there are kernels."""


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
    center_v: bool | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Return the centroids of the values, weighted by a softmax over squared Lorentzian distances.

    .. math::
        \operatorname{centroid}_j\bigl(\operatorname{softmax}_j(-s\,|q_i - k_j|_L^2),\; v_j\bigr), \qquad
        \text{scores up to a constant:}\quad 2 s \langle q_i, k_j\rangle = 2 s\,(q_i \cdot k_j - q_{i0} k_{j0}).

    Tensors hold space coordinates; times are derived in float32 from the coordinates as they are stored. The kernels
    take float32, float16 and bfloat16 up to a width of 128. Dropout, a mask that wants a gradient, curvatures per row,
    forward mode and `torch.func` go through plain torch, and so does a backward with `create_graph`.

    Args:
        query: points, (..., H, L, n).
        key: points, (..., H, S, n), or (..., H_kv, S, n) with `enable_gqa`.
        value: points, (..., H, S, m), or (..., H_kv, S, m) with `enable_gqa`.
        attn_mask: as in torch: boolean, True takes part, or floats added to the scores; broadcasts to (..., L, S).
            A query that no key may serve gets the origin.
        dropout_p: probability that a weight is dropped. The centroid needs no rescaling.
        is_causal: query i sees the keys up to i + `diagonal`, and of those the ones that `attn_mask` lets through.
        scale: s > 0, a float or a tensor that broadcasts to (..., L, 1); by default 1 / sqrt(n).
        c: the curvature is -c: a float, or a tensor that broadcasts to (..., 1).
        enable_gqa: key and value have fewer heads, each for H / H_kv neighbouring heads of the query.
        diagonal: S - L lets the last query see the last key.
        qk_norm: put queries and keys at space norm sqrt(n) first, where a distance is one of angles.
        center_v: see values from their mean, which keeps centroids of neighbouring values exact; by default in float32.
            On a CPU they are seen so where they are too far out to do without.
        backend: "triton" or "torch", over what `lorentz_kernels.dispatch` would choose.

    Returns:
        Points, (..., H, L, m), in the dtype of the query; under autocast in that of autocast.

    Raises:
        ValueError: shapes do not fit, or the backend cannot run here.

    Source: Chen et al., ACL 2022.
    """
    _check(query, key, value, scale, enable_gqa)
    chosen = choose(query, key, value, attn_mask, backend=backend)
    q, k, v = (x.to(_dtype(x)) for x in (query, key, value))  # times are derived from what autocast leaves
    how = None
    if dropout_p == 0 and not _only_torch(q, k, v, attn_mask, scale, c):
        how = implementation(chosen, q, k, v, c, qk_norm)
    if qk_norm and not norms(how):
        q, k = at_one_radius(q), at_one_radius(k)
    if how is None:
        return sdpa.attention(
            q, k, v, attn_mask, dropout_p, is_causal, scale=scale, c=c, enable_gqa=enable_gqa, diagonal=diagonal
        )
    own = 3 if enable_gqa else 2  # dimensions that do not broadcast
    batch = _joint([x.shape[:-own] for x in (q, k, v)])
    lead = (*batch, *q.shape[-own:-2])
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    out: Tensor = _Attention.apply(
        how,
        *(_four(_expanded(x, (*batch, *x.shape[-own:])), len(lead)) for x in (q, k, v)),
        None if attn_mask is None else aligned("attn_mask", attn_mask, lead, (q.shape[-2], k.shape[-2])),
        aligned("scale", scale.to(wide), lead, (q.shape[-2], 1)).squeeze(-1) if isinstance(scale, Tensor) else None,
        c.to(wide) if isinstance(c, Tensor) else None,
        2.0 if isinstance(scale, Tensor) else 2 * (q.shape[-1] ** -0.5 if scale is None else scale),
        1.0 if isinstance(c, Tensor) else c,
        is_causal,
        diagonal,
        q.dtype == torch.float32 if center_v is None else center_v,
    )
    return out if len(lead) == 2 else out.reshape(*lead, *out.shape[-2:])


def _only_torch(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | Tensor | None, c: float | Tensor
) -> bool:
    """Whether only torch's own attention will do."""
    one_curvature = not isinstance(c, Tensor) or c.numel() == 1
    wants_mask = mask is not None and mask.requires_grad
    return not one_curvature or wants_mask or _composing(q, k, v, mask, scale, c)


def implementation(chosen: str, q: Tensor, k: Tensor, v: Tensor, c: float | Tensor, qk_norm: bool) -> Any:
    """Return what has the two operators for these tensors, none where only torch's own will do."""
    compiling = torch.compiler.is_compiling()
    if chosen == "triton":
        if q.dtype != k.dtype or q.dtype != v.dtype or max(q.shape[-1], v.shape[-1]) > WIDEST:
            return None
        return (None if compiling else Tile.of(q, k, v, qk_norm)) or operators  # one program for all lengths
    if compiling:
        return None  # a compiler derives and fuses by itself
    return short.Short.of(q, k, v, c, qk_norm) or (flash if flash.runs(q, k, v) else None)


def norms(how: Any) -> bool:
    """Whether an implementation norms queries and keys by itself, in this attention."""
    return isinstance(how, short.Short | Tile) and how.qk_norm


def _check(query: Tensor, key: Tensor, value: Tensor, scale: float | Tensor | None, enable_gqa: bool) -> None:
    n, m = query.shape[-1], key.shape[-1]
    if n != m:
        hint = ": did you pass ambient points? pass their space coordinates" if abs(n - m) == 1 else ""
        raise ValueError(f"expected a query and a key of one width, got (..., {n}) and (..., {m}){hint}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"expected as many values as keys, got {value.shape[-2]} and {key.shape[-2]}")
    if enable_gqa and (min(query.dim(), key.dim(), value.dim()) < 3 or query.shape[-3] % key.shape[-3]):
        shapes = tuple(query.shape), tuple(key.shape)
        raise ValueError(f"expected query (..., H, L, n), key (..., H_kv, S, n), H a multiple of H_kv, got {shapes}")
    if isinstance(scale, Tensor) and scale.dim() > 0 and scale.shape[-1] != 1:
        raise ValueError(f"expected a scale that broadcasts to (..., L, 1), got {tuple(scale.shape)}")


def _composing(*tensors: Any) -> bool:
    """Whether only compositions of torch's own operators will do; a compiler takes the operator as it is."""
    return not torch.compiler.is_compiling() and composes(*(x for x in tensors if isinstance(x, Tensor)))


def _dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that autocast would give a product of x."""
    kind = x.device.type
    casts = x.dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if casts else x.dtype


def aligned(name: str, x: Tensor, lead: tuple[int, ...], rows: tuple[int, int]) -> Tensor:
    """Return a mask or a scale with the dimensions that the operator wants."""
    shape = (*lead, *rows)
    fits = all(size in (1, wanted) for size, wanted in zip(reversed(x.shape), reversed(shape), strict=False))
    if not fits or x.dim() > len(shape):
        raise ValueError(f"expected {name} to broadcast to {shape}, got {tuple(x.shape)}")
    return _four(x, len(lead), lead)


def _joint(shapes: list[torch.Size]) -> torch.Size:
    """Return what the shapes broadcast to; torch's own function takes longer than a product of small matrices."""
    return shapes[0] if shapes[0] == shapes[1] == shapes[2] else torch.broadcast_shapes(*shapes)


def _expanded(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return x in a shape that it broadcasts to; what changes nothing would have a gradient of its own."""
    return x if x.shape == shape else x.expand(shape)


def _four(x: Tensor, lead: int, batch: tuple[int, ...] | None = None) -> Tensor:
    """Return x (..., L, n) with `lead` leading dimensions made two, the batch and the heads; it may have fewer.

    More than two are flattened, for which those of a mask or a scale, given `batch`, are expanded first.
    """
    if missing := lead + 2 - x.dim():
        x = x[(None,) * missing]
    if lead < 2:
        return x[(None,) * (2 - lead)]
    if lead == 2:
        return x
    if batch is not None:
        x = x.expand(*batch[:-1], *x.shape[lead - 1 :])
    return x.reshape(math.prod(x.shape[: lead - 1]), *x.shape[lead - 1 :])


class _Attention(torch.autograd.Function):
    """One of the two operators, its gradient by the other, all further ones by the composition of torch's."""

    @staticmethod
    def forward(ctx: Any, implementation: Any, *arguments: Any) -> Tensor:
        given, _, options = parse(arguments)
        with _uncast(implementation, given.q):
            point, *saved = implementation.attention(*arguments)
        ctx.save_for_backward(*given, point, *saved)
        ctx.implementation, ctx.options = implementation, options
        return point

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        arguments = *ctx.saved_tensors, *ctx.options
        given, _, options = parse(arguments)
        wanted = ctx.needs_input_grad[1 : 1 + len(given)]
        if torch.is_grad_enabled():  # create_graph: a second derivative may follow
            found = _composite_gradients(grad, given, wanted, options, norms(ctx.implementation))
        else:
            with _uncast(ctx.implementation, given.q):
                dq, dk, dv, scales, *curvatures = ctx.implementation.attention_backward(grad, *arguments)
            to_scale = None if given.scale is None else scales.sum_to_size(given.scale.shape)
            to_c = (
                sum(x.sum() for x in curvatures).reshape(given.c.shape) if given.c is not None and wanted[5] else None
            )
            found = [dq, dk, dv, None, to_scale, to_c]
        return None, *found, *(None for _ in options)


def _uncast(implementation: Any, x: Tensor) -> AbstractContextManager[object]:
    """Keep autocast out of products of torch's own; operators know it, and a region would hide them from exports."""
    return full_precision(x.device) if isinstance(implementation, short.Short) else nullcontext()


def _composite_gradients(
    grad: Tensor, given: Given, wanted: Sequence[bool], options: Options, qk_norm: bool
) -> list[Tensor | None]:
    """Return the gradients with graphs of their own."""
    leaves: list[Any] = [None if x is None else x.view_as(x) for x in given]  # one tensor may be several of them
    q, k, v, mask, scale, c = leaves
    factor = options.slope / 2 if scale is None else options.slope / 2 * scale[..., None]
    if qk_norm:
        q, k = at_one_radius(q), at_one_radius(k)
    points = sdpa.attention(
        q, k, v, mask, is_causal=options.causal, scale=factor, c=options.curvature if c is None else c,
        enable_gqa=True, diagonal=options.diagonal, every_derivative=True,
    )  # fmt: skip
    inputs = [x for x, needed in zip(leaves, wanted, strict=True) if needed]
    found = iter(torch.autograd.grad(points, inputs, grad, create_graph=True, allow_unused=True))
    return [next(found) if needed else None for needed in wanted]

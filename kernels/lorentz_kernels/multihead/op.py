"""`multihead` for callers: the maps and the attention between them, with their gradients, as one function of autograd.

Over short sequences a layer's time is Python's and autograd's, for a graph of 48 nodes. What computes is what `linear`
and `attention` would run, and their gradients in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorentz_kernels.attention import flash, op, sdpa
from lorentz_kernels.attention.closed import through_radius
from lorentz_kernels.attention.given import Given, Options
from lorentz_kernels.attention.naive import at_one_radius
from lorentz_kernels.dispatch import choose, composes
from lorentz_kernels.gated_linear.naive import Map
from lorentz_kernels.linear.activation import Epilogue
from lorentz_kernels.linear.naive import Curvature
from lorentz_kernels.linear.op import as_written, implementation, result_dtype
from lorentz_kernels.multihead import naive
from lorentz_kernels.multihead.naive import Heads, part_of

_PLAIN = Epilogue("", None, None, None)


class Plan(NamedTuple):
    """How the tensors that it was made for are computed."""

    heads: Heads
    chosen: str  # "triton" or "torch", for attention
    linear: Any  # has forward and backward of linear maps
    dtype: torch.dtype


def plan(
    query: Tensor, memory: Tensor | None, into: Map, out: Map, heads: Heads, mask: Tensor | None, c: Curvature
) -> Plan | None:
    """Return how `multihead` computes such tensors, none where only `linear` and `attention` will do."""
    linear, dtype, others = implementation(query, *into, c), result_dtype(query), (memory, *out, mask)
    wants_mask = mask is not None and mask.requires_grad
    if linear is None or dtype.itemsize > 4 or wants_mask or torch.compiler.is_compiling() or composes(*others):
        return None
    keys, chosen = query if memory is None else memory, choose(query, *others)
    narrow = len(into.weight) // sum(heads.all) <= op.WIDEST and query.numel() > 0 and keys.numel() > 0
    possible = narrow if chosen == "triton" else flash.runs(query, keys, query)
    alike = (keys.dtype, len(keys), out.weight.dtype) == (query.dtype, len(query), into.weight.dtype)
    return Plan(heads, chosen, linear, dtype) if possible and alike else None


def multihead(
    plan: Plan,
    query: Tensor,
    memory: Tensor | None,
    into: Map,
    out: Map,
    mask: Tensor | None,
    scale: Tensor,
    c: Curvature = 1.0,
) -> Tensor:
    """Return out(join(attention(cut(into(query))))), as `naive.multihead` does.

    Args:
        plan: what `plan` returned for these tensors.
        query: points, (B, L, in).
        memory: points, (B, S, in), that keys and values are maps of, or none: the queries' own.
        into: the maps to Q, K and V, one below another.
        out: the map of the joined heads.
        mask: boolean, True takes part, or floats added to the scores; broadcasts to (B, heads, L, S).
        scale: s > 0 of each head, (heads).
        c: the curvature is -c: a float, or a tensor of one number.

    Returns:
        Points (B, L, out) in the dtype of `linear`, differentiable at any order in all tensors but the mask.

    Raises:
        ValueError: the mask does not fit.
    """
    keys = query if memory is None else memory
    if mask is not None:
        lead = query.shape[0], plan.heads.queries
        mask = op.aligned("attn_mask", mask, lead, (query.shape[1], keys.shape[1]))
    found: Tensor = _Multihead.apply(query, memory, *into, *out, mask, scale, c, plan)
    return found


class _Multihead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor | None, *rest: Any) -> Tensor:
        into, out, (mask, scale, c, plan) = Map(*rest[:3]), Map(*rest[3:6]), rest[6:]
        with as_written(query):
            mapped = [
                plan.linear.forward(_flat(x), *maps, c, None, plan.dtype, "", False)
                for x, maps in _sources(query, memory, into, plan.heads)
            ]
            cut = _cut([found.y for found in mapped], query, plan.heads)
            given, options, how = _prepared(cut, mask, scale, c, plan)
            point, *saved = how.attention(*given, *options)
            joined = _flat(point.transpose(1, 2).flatten(2))
            last = plan.linear.forward(joined, *out, c, None, plan.dtype, "", False)
        tensor = c if isinstance(c, Tensor) else None
        times = mapped[0].x0, mapped[-1].x0, last.x0
        ctx.save_for_backward(
            query, memory, *into, *out, mask, scale, tensor, *times, joined, *cut[:2], *given, point, *saved
        )
        ctx.number, ctx.plan, ctx.options, ctx.how = c, plan, options, how
        return last.y.view(*query.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved: tuple[Any, ...] = ctx.saved_tensors
        leaves, needed, plan = saved[:11], ctx.needs_input_grad, ctx.plan
        x0, memory_x0, joined_x0, joined, q, k, *arguments = saved[11:]
        query, memory, *parameters, _, scale, tensor = leaves
        into, out = Map(*parameters[:3]), Map(*parameters[3:])
        c = ctx.number if tensor is None else tensor
        with as_written(query):
            if torch.is_grad_enabled():  # a second derivative is wanted: the specification knows it
                return *_composed_gradients(grad, leaves, c, needed, plan.heads), None
            last = plan.linear.backward(
                _flat(grad), joined, joined_x0, out.weight, out.time_weight, c, True, _PLAIN,
                (True, *needed[5:8], needed[10], False),
            )  # fmt: skip
            to_point = last.x.view(*query.shape[:2], plan.heads.queries, -1).transpose(1, 2)
            dq, dk, dv, to_scale, *to_c = ctx.how.attention_backward(to_point, *arguments, *ctx.options)
            if plan.heads.qk_norm and not op.norms(ctx.how):
                dq, dk = through_radius(q, dq), through_radius(k, dk)
            found = [
                plan.linear.backward(
                    upstream, _flat(x), time, maps.weight, maps.time_weight, c, True, _PLAIN,
                    (needs, *needed[2:5], needed[10], False),
                )
                for (x, maps), time, upstream, needs in zip(
                    _sources(query, memory, into, plan.heads), (x0, memory_x0), _packed(memory, dq, dk, dv), needed,
                    strict=False,
                )
            ]  # fmt: skip
        curvatures = [last.c, *(each.c for each in found), *(x.sum() for x in to_c)] if needed[10] else []
        return (
            None if found[0].x is None else found[0].x.view(query.shape),
            None if memory is None or found[-1].x is None else found[-1].x.view(memory.shape),
            *_joined(found, into),
            *_joined([last], out),
            None,
            to_scale.sum_to_size(1, len(scale), 1).view(-1).to(scale.dtype) if needed[9] else None,
            sum(x.reshape(c.shape) for x in curvatures).to(c.dtype) if curvatures else None,
            None,
        )


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _sources(query: Tensor, memory: Tensor | None, into: Map, heads: Heads) -> list[tuple[Tensor, Map]]:
    """Return what is mapped, and by which rows of the maps."""
    if memory is None:
        return [(query, into)]
    first = len(into.weight) // sum(heads.all) * heads.queries
    return [(query, part_of(into, slice(first))), (memory, part_of(into, slice(first, None)))]


def _cut(mapped: Sequence[Tensor], query: Tensor, heads: Heads) -> list[Tensor]:
    """Return Q, K and V, (B, heads, length, width), views of one tensor or of two."""
    batch, sizes = len(query), [heads.all] if len(mapped) == 1 else [heads.all[:1], heads.all[1:]]
    found: list[Tensor] = []
    for y, counts in zip(mapped, sizes, strict=True):
        width = y.shape[1] // sum(counts)
        found += y.view(batch, -1, sum(counts), width).transpose(1, 2).split(counts, 1)
    return found


def _packed(memory: Tensor | None, dq: Tensor, dk: Tensor, dv: Tensor) -> list[Tensor]:
    """Return the gradients of what `_cut` cut, by rows."""
    groups = [(dq, dk, dv)] if memory is None else [(dq,), (dk, dv)]
    return [_flat(torch.cat([d.transpose(1, 2) for d in group], 2).flatten(2)) for group in groups]


def _prepared(
    cut: Sequence[Tensor], mask: Tensor | None, scale: Tensor, c: Curvature, plan: Plan
) -> tuple[Given, Options, Any]:
    """Return the arguments of attention, and what has it."""
    q, k, v = cut
    how = op.implementation(plan.chosen, q, k, v, c, plan.heads.qk_norm)
    if plan.heads.qk_norm and not op.norms(how):
        q, k = at_one_radius(q), at_one_radius(k)
    wide = scale.float()[None, :, None]
    tensor, number = (c.float(), 1.0) if isinstance(c, Tensor) else (None, c)
    return (
        Given(q, k, v, mask, wide, tensor),
        Options(2.0, number, plan.heads.causal, 0, q.dtype == torch.float32),
        how,
    )


def _joined(found: Sequence[Any], maps: Map) -> list[Tensor | None]:
    """Return the gradients of maps whose rows were applied apart."""
    gradients: list[Tensor | None] = []
    for name, given in zip(Map._fields, maps, strict=True):
        parts = [getattr(each, name) for each in found]
        if given is None or parts[0] is None:
            gradients.append(None)
        else:
            gradients.append((parts[0] if len(parts) == 1 else torch.cat(parts)).to(given.dtype))
    return gradients


def _composed_gradients(
    grad: Tensor, saved: Sequence[Tensor | None], c: Curvature, needed: Sequence[bool], heads: Heads
) -> list[Tensor | None]:
    """Return the gradients with graphs of their own, computed in the dtype of the upstream gradient."""
    leaves: list[Any] = [None if x is None else x.view_as(x) for x in saved]
    cast: list[Any] = [None if x is None else x.to(grad.dtype) for x in leaves[:8]]
    y = naive.multihead(
        cast[0], cast[1], Map(*cast[2:5]), Map(*cast[5:8]), heads, leaves[8], leaves[9],
        c if leaves[10] is None else leaves[10], attention=partial(sdpa.attention, every_derivative=True),
    )  # fmt: skip
    wanted = [leaf for leaf, need in zip(leaves, needed, strict=False) if need]
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True, allow_unused=True))
    return [next(found) if need else None for _, need in zip(leaves, needed, strict=False)]

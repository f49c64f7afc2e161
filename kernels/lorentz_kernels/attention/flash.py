"""Attention on a CPU: torch's own, whose inner loop is a flash attention, over a few heads at a time.

The rows that it multiplies, coordinates and times or heights, stay in the cache and are forgotten, and so are their
gradients. Kept for the backward are the means, and a few numbers for each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorentz_kernels.attention import closed
from lorentz_kernels.attention.given import Given, Options, parse, restricted, revived
from lorentz_kernels.attention.naive import visible
from lorentz_kernels.precision import Curvature, widen

BLOCK = 1 << 17
"""Numbers of a tensor for each thread and block."""


def offers(name: str, arguments: str) -> bool:
    """Whether this version of torch has a private operator, with these arguments in this order."""
    operator = getattr(getattr(torch.ops.aten, name, None), "default", None)
    return operator is not None and [each.name for each in operator._schema.arguments] == arguments.split()


OFFERED = offers(
    "_scaled_dot_product_flash_attention_for_cpu", "query key value dropout_p is_causal attn_mask scale"
) and offers(
    "_scaled_dot_product_flash_attention_for_cpu_backward",
    "grad_out query key value out logsumexp dropout_p is_causal attn_mask scale",
)


def runs(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch has this form for such tensors, and nobody has chosen another."""
    if not OFFERED:
        return False
    narrow = q.device.type == "cpu" and all(x.is_floating_point() and x.dtype.itemsize <= 4 for x in (q, k, v))
    filled = q.numel() > 0 and k.numel() > 0
    return narrow and filled and q.shape[-1] == v.shape[-1] and torch.backends.cuda.flash_sdp_enabled()


def attention(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the points, (B, H, L, m), and what the backward wants; arguments as in `operators.SCHEMA`."""
    given, _, options = parse(arguments)
    point, saved = torch.empty_like(given.q), list[Tensor]()
    for block in _blocks(given, options):
        columns = Columns(
            closed.time(block.q, block.c),
            closed.time(block.k, block.c),
            *closed.heights(block.v, block.values, block.c),
        )
        mean, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *_rows(block, columns), is_causal=block.causal, attn_mask=block.bias, scale=1.0
        )
        place = block.of(point)
        found, factors = closed.mean_to_point(mean, block.reference, block.c, _room(place))
        _settle(place, found)
        if block.alive is not None:
            place.masked_fill_(~block.alive, 0.0)
        saved += [mean, lse, *columns, *factors]
    return point, *saved


def attention_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradients of q, k, v, scale and c as in `operators.SCHEMA_BACKWARD`."""
    given, saved, options = parse(arguments)
    q, k, v = given[:3]
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    to_scale, to_c, to_c_of_keys = (x.new_empty(*x.shape[:3], 1, dtype=torch.float32) for x in (q, q, k))
    kept = iter(saved[1:])
    for block in _blocks(given, options):
        mean, lse, *rest = islice(kept, 2 + len(Columns._fields) + len(closed.Factors._fields))
        columns, factors = Columns(*rest[:5]), closed.Factors(*rest[5:])
        upstream = widen(block.of(grad))
        if block.alive is not None:
            upstream = torch.where(block.alive, upstream, 0.0)
        to_mean, c_of_mean = closed.mean_gradient(upstream, mean, block.reference, factors, block.c)
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            to_mean, *_rows(block, columns), mean, lse, 0.0, block.causal, attn_mask=block.bias, scale=1.0
        )
        of_q, of_k, of_v = found[0], *(_gather(x, block.groups) for x in found[1:])
        places = block.of(dq), block.of_keys(dk), block.of_keys(dv)
        rooms = [_room(place) for place in places]
        to_q, c_of_q = closed.time_gradient(of_q, block.q, columns.q0, -1, block.c, block.slope, rooms[0])
        to_k, c_of_k = closed.time_gradient(of_k, block.k, columns.k0, 1, block.c, out=rooms[1])
        to_v, c_of_v = closed.height_gradient(of_v, block.v, block.values, columns.heights, block.c, rooms[2])
        for place, result in zip(places, (to_q, to_k, to_v), strict=True):
            _settle(place, result)
        block.of(to_c).copy_(c_of_mean + c_of_q)
        block.of_keys(to_c_of_keys).copy_(c_of_k + c_of_v)
        if given.scale is not None:
            block.of(to_scale).copy_(options.slope * closed.slope_gradient(of_q, block.q, columns.q0, -1))
    return dq, dk, dv, *(x.squeeze(-1) for x in (to_scale, to_c, to_c_of_keys))


class Block(NamedTuple):
    """Some heads of some of the batch; coordinates in float32."""

    batch: slice
    heads: slice
    kv_heads: slice
    groups: int  # heads for each head of keys
    q: Tensor
    k: Tensor
    v: Tensor
    values: Tensor  # reference of each head of values, (b, h_kv, 1, m)
    bias: Tensor | None  # added to the scores
    alive: Tensor | None  # which queries have a key
    causal: bool
    slope: float | Tensor
    c: Curvature

    def of(self, x: Tensor) -> Tensor:
        """Return the part of a tensor of all heads."""
        return _part(x, self.batch, self.heads)

    def of_keys(self, x: Tensor) -> Tensor:
        """Return the part of a tensor of all heads of keys."""
        return _part(x, self.batch, self.kv_heads)

    @property
    def reference(self) -> Tensor:
        """The reference of each head of queries."""
        return _spread(self.values, self.groups)


def _blocks(given: Given, options: Options) -> Iterator[Block]:
    q, k, v, mask, scale, c = given
    groups, queries, keys = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    if options.causal and (mask is not None or options.diagonal):
        mask = restricted(mask, visible(queries, keys, options.diagonal, q.device)[None, None])
    for batch, kv_heads in _cuts(k.shape[0], k.shape[1], max(groups * queries, keys) * q.shape[3]):
        heads = slice(kv_heads.start * groups, kv_heads.stop * groups)
        value = widen(_part(v, batch, kv_heads))
        bias, alive = (None, None) if mask is None else revived(_part(mask, batch, heads), torch.float32)
        bias = None if bias is None else bias.expand(-1, -1, queries, keys)
        yield Block(
            batch, heads, kv_heads, groups,
            widen(_part(q, batch, heads)), widen(_part(k, batch, kv_heads)), value,
            values=value.mean(-2, keepdim=True), bias=bias, alive=alive, causal=options.causal and mask is None,
            slope=options.slope if scale is None else options.slope * _part(scale, batch, heads)[..., None],
            c=options.curvature if c is None else c.reshape(()),
        )  # fmt: skip


class Columns(NamedTuple):
    """What is kept of queries, keys and values, each (b, h, length, 1)."""

    q0: Tensor
    k0: Tensor
    rise: Tensor
    time: Tensor
    height: Tensor

    @property
    def heights(self) -> closed.Heights:
        """Those of the values."""
        return closed.Heights(self.rise, self.time, self.height)


def _rows(block: Block, columns: Columns) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows whose product is the score, and the rows whose mean is wanted."""
    q = closed.time_rows(block.q, columns.q0, -1, block.slope)
    k, v = closed.time_rows(block.k, columns.k0, 1), closed.height_rows(block.v, block.values, columns.heights)
    return q, _spread(k, block.groups), _spread(v, block.groups)


def _cuts(batch: int, heads: int, numbers: int) -> Iterator[tuple[slice, slice]]:
    """Yield parts of the batch and of the heads of keys, of which each has so many numbers: whole batches if they fit.

    Few more heads than threads would leave threads idle, so that a block grows with their number.
    """
    fit = max(1, BLOCK * torch.get_num_threads() // numbers)
    if fit >= heads:
        for start in range(0, batch, fit // heads):
            yield slice(start, start + fit // heads), slice(0, heads)
        return
    for row in range(batch):
        for start in range(0, heads, fit):
            yield slice(row, row + 1), slice(start, min(start + fit, heads))


def _part(x: Tensor, batch: slice, heads: slice) -> Tensor:
    """Return part of a tensor, of which batch and heads may have size 1."""
    return x[batch if x.shape[0] > 1 else slice(None), heads if x.shape[1] > 1 else slice(None)]


def _room(place: Tensor) -> Tensor | None:
    """Return where a result in float32 may be written: its place, or, in 16 bits, nowhere yet."""
    return place if place.dtype == torch.float32 else None


def _settle(place: Tensor, result: Tensor) -> None:
    """Put a result into its place, if it is not there."""
    if place.dtype != torch.float32:
        place.copy_(result)


def _spread(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def _gather(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.unflatten(1, (-1, groups)).sum(2)

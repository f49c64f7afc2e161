"""The specification of `multihead`: linear maps of ambient coordinates around `attention`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lorentz_kernels.attention import naive
from lorentz_kernels.attention.naive import at_one_radius
from lorentz_kernels.gated_linear.naive import Map
from lorentz_kernels.linear.naive import Curvature, linear


class Heads(NamedTuple):
    """How many heads of one width there are, and what they see."""

    queries: int
    keys: int  # each serves queries / keys neighbouring heads of queries
    causal: bool = False
    qk_norm: bool = False

    @property
    def all(self) -> tuple[int, int, int]:
        """Heads of queries, keys and values."""
        return self.queries, self.keys, self.keys


def multihead(
    query: Tensor,
    memory: Tensor | None,
    into: Map,
    out: Map,
    heads: Heads,
    mask: Tensor | None,
    scale: Tensor,
    c: Curvature = 1.0,
    attention: Callable[..., Tensor] = naive.attention,
) -> Tensor:
    """Return out(join(attention(cut(into(query))))), (B, L, out), memory (B, S, in) standing for keys and values."""
    q, k, v = cut(query, query if memory is None else memory, into, heads, c)
    if heads.qk_norm:
        q, k = at_one_radius(q), at_one_radius(k)
    points = attention(q, k, v, mask, is_causal=heads.causal, scale=scale[:, None, None], c=c, enable_gqa=True)
    return linear(points.transpose(1, 2).flatten(2), *out, c)


def cut(query: Tensor, memory: Tensor, into: Map, heads: Heads, c: Curvature) -> tuple[Tensor, ...]:
    """Return the heads of Q, K and V, (B, heads, length, width)."""
    found, first = [], 0
    width = len(into.weight) // sum(heads.all)
    for x, count in zip((query, memory, memory), heads.all, strict=True):
        rows = slice(first, first + count * width)
        y = linear(x, *part_of(into, rows), c)
        found.append(y.unflatten(-1, (count, width)).transpose(1, 2))
        first = rows.stop
    return tuple(found)


def part_of(maps: Map, rows: slice) -> Map:
    """Return some of several maps that stand one below another."""
    weight, time_weight, bias = maps
    return Map(weight[rows], time_weight[rows], None if bias is None else bias[rows])

"""Attention on a GPU over short sequences: one launch forward, one backward, norms of queries and keys included.

Python needs longer to launch the kernels of `operators` than these take over short sequences.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from lorentz_kernels.attention import dense
from lorentz_kernels.attention.closed import through_radius
from lorentz_kernels.attention.given import Options, empty_in_order, empty_rows, parse
from lorentz_kernels.attention.naive import at_one_radius
from lorentz_kernels.registry import operator

LONGEST, WIDEST = 32, 64
"""Rows and coordinates of a head that one tile holds; with 64 rows the backward has more numbers than registers."""

_GIVEN = "Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor? scale, Tensor? c"
_OPTIONS = "float slope, float curvature, bool causal, SymInt diagonal, bool centred, bool qk_norm"

SCHEMA = f"attention_tile({_GIVEN}, {_OPTIONS}) -> Tensor"
"""The points of `operators.SCHEMA`, of queries and keys that are at one radius or, with `qk_norm`, put there."""

SCHEMA_BACKWARD = (
    f"attention_tile_backward(Tensor grad, {_GIVEN}, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
"""The gradients of `operators.SCHEMA_BACKWARD`; those of a scale and a c that are none have no elements."""


class Tile(NamedTuple):
    """The two operators, with norms of queries and keys or without."""

    qk_norm: bool

    @staticmethod
    def of(q: Tensor, k: Tensor, v: Tensor, qk_norm: bool) -> Tile | None:
        """Return the operators if one tile holds the queries, the keys and the values of a head."""
        (queries, width), (keys, value_width) = q.shape[-2:], v.shape[-2:]
        fits = 0 < queries <= LONGEST and 0 < keys <= LONGEST and 0 < width <= WIDEST and 0 < value_width <= WIDEST
        return Tile(qk_norm) if fits else None

    def attention(self, *arguments: Any) -> tuple[Tensor]:
        """Return the points, (B, H, L, m); the backward wants nothing else. Arguments as in `operators.SCHEMA`."""
        return (attention_tile(*arguments, self.qk_norm),)

    def attention_backward(self, grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        """Return the gradients of q, k, v, scale and c as in `operators.SCHEMA_BACKWARD`."""
        given, _, options = parse(arguments)
        found: tuple[Tensor, ...] = attention_tile_backward(grad, *given, *options, self.qk_norm)
        return found


def _forward(*arguments: Any) -> Tensor:
    from lorentz_kernels.attention import triton

    return triton.tile(*arguments)


def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    from lorentz_kernels.attention import triton

    return triton.tile_backward(*arguments)


def _dense(*arguments: Any) -> Tensor:
    given, options = _normed(*arguments)
    return _in_order(given[0], dense.forward(*given, *options)[0])


def _dense_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    given, options = _normed(*arguments)
    gradients = dense.backward(grad, *given, *dense.forward(*given, *options), *options)
    found = [through_radius(x, d) if arguments[-1] else d for x, d in zip(arguments[:2], gradients[:2], strict=True)]
    rows = [d if x is not None else d.new_empty(0) for x, d in zip((*given[4:], given[5]), gradients[3:], strict=True)]
    return *(_in_order(x, d) for x, d in zip(arguments[:3], (*found, gradients[2]), strict=True)), *rows


def _normed(q: Tensor, k: Tensor, *rest: Any) -> tuple[tuple[Any, ...], Options]:
    *arguments, qk_norm = rest
    given, _, options = parse((*(at_one_radius(x) if qk_norm else x for x in (q, k)), *arguments))
    return given, options


def _in_order(like: Tensor, x: Tensor) -> Tensor:
    return empty_in_order(like, x.shape[-1]).copy_(x)


def _shapes(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Tensor:
    return empty_in_order(q, v.shape[-1])


def _shapes_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: Any, c: Any, *_: Any
) -> tuple[Tensor, ...]:
    return *(empty_in_order(x, x.shape[-1]) for x in (q, k, v)), *empty_rows(q, k, scale, c)


attention_tile = operator(SCHEMA, triton=_forward, torch_path=_dense, fake=_shapes)
attention_tile_backward = operator(SCHEMA_BACKWARD, triton=_backward, torch_path=_dense_backward, fake=_shapes_backward)

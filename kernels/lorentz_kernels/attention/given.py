"""What the implementations of attention are given, tensors of four dimensions and numbers, and room for results."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorentz_kernels.attention.naive import visible


class Given(NamedTuple):
    """The tensors of the operators, `operators.SCHEMA`: of mask and scale any size may be 1, c has one element."""

    q: Tensor  # (B, H, L, n)
    k: Tensor  # (B, H_kv, S, n)
    v: Tensor  # (B, H_kv, S, m)
    mask: Tensor | None  # (B, H, L, S)
    scale: Tensor | None  # (B, H, L)
    c: Tensor | None


class Options(NamedTuple):
    """The numbers: `curvature` stands for a `c` that is none; the scores are slope scale <q_i, k_j>."""

    slope: float
    curvature: float
    causal: bool
    diagonal: int
    centred: bool


def parse(arguments: tuple[Any, ...]) -> tuple[Given, tuple[Tensor, ...], Options]:
    """Split the arguments of an operator into its tensors, those that a forward saved, if any, and its numbers."""
    first, last = len(Given._fields), len(arguments) - len(Options._fields)
    return Given(*arguments[:first]), arguments[first:last], Options(*arguments[last:])


def added(given: Given, options: Options) -> tuple[Tensor | None, Tensor | None]:
    """Return what mask and causality add to the scores, and which queries have a key, both as `revived` has them."""
    mask = given.mask
    if options.causal:
        seen = visible(given.q.shape[2], given.k.shape[2], options.diagonal, given.q.device)
        mask = restricted(mask, seen[None, None])
    return (None, None) if mask is None else revived(mask, torch.promote_types(given.q.dtype, torch.float32))


def restricted(mask: Tensor | None, seen: Tensor) -> Tensor:
    """Return a mask without the keys that are not seen."""
    if mask is None:
        return seen
    return mask & seen if mask.dtype == torch.bool else torch.where(seen, mask, float("-inf"))


def revived(mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what a mask adds to scores, and which rows have a key: the others see all, for a softmax without NaN."""
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
    alive = (mask > float("-inf")).any(-1, keepdim=True)
    return torch.where(alive, mask, 0.0).to(dtype), alive


def empty_in_order(like: Tensor, width: int) -> Tensor:
    """Return an empty tensor (B, H, L, width) for rows of `like`, in memory (B, L, H, width), as joined heads lie."""
    batch, heads, length = like.shape[:3]
    return like.new_empty(batch, length, heads, width).transpose(1, 2)


def empty_rows(q: Tensor, k: Tensor, scale: Tensor | None, c: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return empty gradients of scale for queries, of c for queries and for keys; without elements if of none."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    of = ((scale, q), (c, q), (c, k))
    first, second, third = (x.new_empty((0,) if given is None else x.shape[:3], dtype=dtype) for given, x in of)
    return first, second, third

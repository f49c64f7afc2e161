"""What the implementations of attention are given: tensors of four dimensions, and numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


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

"""A rule on rows, put in the place of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BLOCK = 2**17
"""Numbers of one tensor that a step on the CPU takes at a time: its intermediate results then stay in the cache."""

Rule = Callable[..., tuple[Tensor, ...]]
Rows = tuple[Tensor, ...]


def replace(rule: Rule, grad: Tensor, x: Tensor, *state: Tensor, rows: Rows | None = None) -> None:
    """Put `rule(x, grad, *state)` in the place of x and the state, (..., n) or (..., 1).

    With `rows`, indices into the first dimensions, none twice, only these move, and the gradient is of these.
    """
    if rows is not None:
        targets = (x, *state)
        y, *moments = (target[rows] for target in targets)
        for target, value in zip(targets, rule(y, grad, *moments), strict=True):
            target[rows] = value
        return
    for part, *block in _blocks(grad, x, *state):
        for target, value in zip(block, rule(block[0], part, *block[1:]), strict=True):
            target.copy_(value)


def _blocks(grad: Tensor, *targets: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return the tensors in blocks of rows on a CPU, where that halves the time of a step, whole elsewhere."""
    if grad.ndim < 2 or grad.device.type != "cpu" or torch.compiler.is_compiling():
        return iter([(grad, *targets)])
    rows = max(1, BLOCK * len(grad) // max(1, grad.numel()))
    return zip(*(tensor.split(rows) for tensor in (grad, *targets)), strict=True)

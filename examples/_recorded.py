"""Encoder and decoder as CUDA graphs: Python launches a pass, not its kernels one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from _translator import Translator
from torch import Tensor, nn

MULTIPLE = 8
"""Subwords by which the lengths of recorded batches differ: each shape is recorded, once."""


class Recorded:
    """`Translator.states`, recorded for each shape of a training batch; otherwise as it is."""

    def __init__(self, model: Translator) -> None:
        self.model, self.eager, self.pool = model, model.states, torch.cuda.graph_pool_handle()
        self.passes: dict[tuple[torch.Size, torch.Size], Callable[[Tensor, Tensor], Tensor]] = {}

    def __call__(self, source: Tensor, target: Tensor) -> Tensor:
        """Return what `Translator.states` does; the next call of this shape writes over it."""
        if not (self.model.training and torch.is_grad_enabled()):
            return self.eager(source, target)
        shape = source.shape, target.shape
        if shape not in self.passes:
            self.passes[shape] = torch.cuda.make_graphed_callables(
                _Pass(self.model, self.eager), (source.clone(), target.clone()), allow_unused_input=True, pool=self.pool
            )
        return self.passes[shape](source, target)


class _Pass(nn.Module):
    """A module for each graph, with the parameters that its backward gives gradients to."""

    def __init__(self, model: Translator, states: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.states = model, states

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.states(source, target)

"""Tail conditionals evaluated when they are asked for, and kept: what search leans on."""

from __future__ import annotations

import torch
from torch import Tensor

from relsim.design import Design
from relsim.distribution import FactDistribution
from relsim.tails import ROWS, TailRows

FEW = 64  # rows that take less than a pass's fixed cost


class LazyRows:
    """The rows of `relsim.tails` for pairs (head of the sample, relation), each evaluated once.

    Attributes:
        evaluated: how many rows took a pass over the entities.
    """

    def __init__(self, model: FactDistribution, design: Design) -> None:
        self._model, self._design = model, design
        size, device = len(design.sample.heads) * len(design.relations), design.relations.device
        self._natural, self._mean = _Store(size, device), _Store(size, device)
        self.evaluated = 0

    def gather(self, heads: Tensor, sources: Tensor, targets: Tensor, both: bool = False) -> Tensor:
        """Return KL(p(t|h,a) || p(t|h,b)), (n,), for heads (n,) of the sample and relations a (n,), b (n,).

        With `both`, means of b are kept for KL(b || a), where the head counts for b: later they would take a new pass.
        """
        of_source, of_target = self._keys(heads, sources), self._keys(heads, targets)
        with_mean = [of_source]
        if len(heads) <= FEW:
            with_mean.append(of_target)
        elif both:
            with_mean.append(of_target[self._design.sample.weight[heads, targets] > 0])
        self._evaluate(torch.cat(with_mean), mean=True)
        self._evaluate(of_target, mean=False)
        a, b = self._natural.get(of_source), self._natural.get(of_target)
        mean = self._mean.get(of_source)
        change = b[:, 1:] - a[:, 1:]
        return b[:, 0] - a[:, 0] - (change * mean).sum(dim=1)

    def grid(self, heads: Tensor, relations: Tensor, mean: bool) -> TailRows:
        """Return rows of heads (H,) of the sample under relations (B,); the mean is zero where it is not asked for."""
        keys = self._keys(heads[:, None], relations).flatten()
        self._evaluate(keys, mean)
        rows = self._natural.get(keys).unflatten(0, (len(heads), len(relations)))
        natural = rows[..., 1:].contiguous()
        means = self._mean.get(keys).reshape(natural.shape) if mean else torch.zeros_like(natural)
        return TailRows(natural, rows[..., 0].contiguous(), means)

    def _keys(self, heads: Tensor, relations: Tensor) -> Tensor:
        return heads * len(self._design.relations) + relations

    def _evaluate(self, keys: Tensor, mean: bool) -> None:
        missing = keys[(self._mean if mean else self._natural).unknown(keys)].unique()
        self.evaluated += len(missing)
        for part in missing.split(ROWS) if len(missing) else ():
            head = self._design.sample.heads[part // len(self._design.relations)]
            relation = self._design.relations[part % len(self._design.relations)]
            natural = self._model.tail_natural(head, relation)
            if mean:
                partition, means = self._model.tail_moments(natural)
                self._mean.put(part, means)
            else:
                partition = self._model.tail_partition(natural)
            unknown = self._natural.unknown(part)
            self._natural.put(part[unknown], torch.cat([partition[:, None], natural], dim=1)[unknown])


class _Store:
    """A growing table of vectors under keys in [0, size)."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._slots = torch.full((size,), -1, dtype=torch.int32, device=device)
        self._used = 0
        self._values: Tensor | None = None

    def unknown(self, keys: Tensor) -> Tensor:
        """Return which of the keys hold nothing, a mask."""
        return self._slots[keys] < 0

    def put(self, keys: Tensor, values: Tensor) -> None:
        """Store vectors (n, k) under new keys (n,)."""
        end = self._used + len(keys)
        if self._values is None or end > len(self._values):
            grown = values.new_empty(max(2 * end, ROWS), values.shape[1])
            if self._values is not None:
                grown[: self._used] = self._values[: self._used]
            self._values = grown
        self._values[self._used : end] = values
        self._slots[keys] = torch.arange(self._used, end, dtype=torch.int32, device=keys.device)
        self._used = end

    def get(self, keys: Tensor) -> Tensor:
        """Return the vectors under keys that are there, (n, k)."""
        assert self._values is not None
        return self._values[self._slots[keys]]

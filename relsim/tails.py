"""The tail part of a divergence: E_{h ~ p(h|a)} KL(p(t|h,a) || p(t|h,b)) from a weighted sample of heads.

First the rows: natural parameter, log-partition and mean of p(t | h, r) for every head and relation, a pass over the
entities each and nearly all of the work. Then the pairs: products of rows, and sums over heads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from relsim.design import bregman
from relsim.distribution import FactDistribution
from relsim.heads import HeadSample

ROWS = 4096  # (head, relation) rows evaluated at once
ENTRIES = 1 << 22  # entries of the heads x A x B array of one step, 16 MiB of float32
HELD = 1 << 26  # entries of the rows of all relations held at once, 256 MiB of float32
BLOCK = 64  # relations: a step of 64 x 64 pairs then takes all of 1,000 heads


class TailRows(NamedTuple):
    """Tail conditionals of H heads under B relations: natural (H, B, k), partition (H, B), mean (H, B, k).

    The mean is zero, and means nothing, where a head is not active for a relation.
    """

    natural: Tensor
    partition: Tensor
    mean: Tensor

    def relations(self, part: slice) -> TailRows:
        """Return the rows of some of the relations."""
        return TailRows(self.natural[:, part], self.partition[:, part], self.mean[:, part])


def tail_rows(model: FactDistribution, heads: Tensor, relations: Tensor, active: Tensor) -> TailRows:
    """Return the rows of heads (H,) under relations (B,); those that `active` (H, B) leaves out cost no mean."""
    step = max(1, ROWS // len(relations))
    parts = [_rows(model, h, relations, a) for h, a in zip(heads.split(step), active.split(step), strict=True)]
    return TailRows(*(torch.cat(field) for field in zip(*parts, strict=True)))


def _rows(model: FactDistribution, heads: Tensor, relations: Tensor, active: Tensor) -> TailRows:
    natural = model.tail_natural_grid(heads, relations)
    flat, source = natural.flatten(0, 1), active.flatten()
    mean = torch.zeros_like(flat)
    partition = flat.new_empty(len(flat))
    partition[source], mean[source] = model.tail_moments(flat[source])
    partition[~source] = model.tail_partition(flat[~source])
    return TailRows(natural, partition.reshape(active.shape), mean.reshape(natural.shape))


class TailSums:
    """Sums over heads for A sources and B targets, from which the tail part and its variance follow.

    Attributes:
        linear: (A, 1 + 2 K, B) float64, sums of D_ab(h) with the weights `weight`, `fit x` and `noise x` of the sample,
            for its K features x.
        square: (A, B) float64, sum of noise D_ab(h)^2; (A, 0) without features, where nothing is sampled.
    """

    def __init__(self, linear: Tensor, square: Tensor) -> None:
        self.linear, self.square = linear, square

    @classmethod
    def zeros(cls, sources: int, targets: int, features: int, device: torch.device) -> TailSums:
        """Return empty sums."""
        linear = torch.zeros(sources, 1 + 2 * features, targets, dtype=torch.float64, device=device)
        return cls(linear, linear.new_zeros(sources, targets if features else 0))

    def block(self, sources: slice, targets: slice) -> TailSums:
        """Return the sums of some of the pairs, which are views: adding there adds here."""
        return TailSums(self.linear[sources, :, targets], self.square[sources, targets])

    def add(self, sample: HeadSample, a: TailRows, b: TailRows) -> None:
        """Add heads: the part of the sample for them and the A sources, and their rows for sources and targets."""
        heads, sources = sample.active.shape
        step = max(1, ENTRIES // (sources * b.partition.shape[1]))
        for start in range(0, heads, step):
            part = slice(start, start + step)
            d = bregman(a.natural[part], a.partition[part], a.mean[part], b.natural[part], b.partition[part])
            self._add(sample.part(part), d.mul_(sample.active[part, :, None]).transpose(0, 1))

    def _add(self, sample: HeadSample, d: Tensor) -> None:
        """The sums over D (A, H, B)."""
        weight, x = sample.weight.T[:, None], sample.features.T  # (A, 1, H), (K, H)
        if len(x):
            weight = torch.cat([weight, sample.fit.T[:, None] * x, sample.noise.T[:, None] * x], dim=1)
        self.linear += weight.to(d.dtype) @ d
        if len(x):
            self.square += (sample.noise.T[:, None].to(d.dtype) @ d.square_()).squeeze(1)

    def mean(self) -> Tensor:
        """Return the tail part, (A, B)."""
        return self.linear[:, 0]

    def variance(self, sample: HeadSample) -> Tensor:
        """Return sum_h noise (D_ab(h) - x_h . beta_ab)^2, (A, B), given the sample's part for the A sources."""
        if not sample.features.shape[1]:
            return torch.zeros_like(self.mean())
        fitted, noise_x = self.linear[:, 1:].chunk(2, dim=1)  # (A, K, B)
        beta = sample.bread @ fitted
        meat = torch.einsum("ha,hk,hl->akl", sample.noise, sample.features, sample.features)
        variance = self.square - 2 * (beta * noise_x).sum(dim=1) + (beta * (meat @ beta)).sum(dim=1)
        return variance.clamp(min=0)


def tail_sums(model: FactDistribution, relations: Tensor, sample: HeadSample, bar: Any = None) -> TailSums:
    """Return the sums of all pairs of relations (R,), in memory; heads are taken in slices that fit."""
    size = len(relations)
    width = 1 + 2 * model.tail_natural(sample.heads[:1], relations[:1]).shape[1]
    sums = TailSums.zeros(size, size, sample.features.shape[1], relations.device)
    step = max(1, HELD // (size * width))
    for start in range(0, len(sample.heads), step):
        part = sample.part(slice(start, start + step))
        rows = tail_rows(model, part.heads, relations, part.active)
        for sources in blocks(size):
            of_sources = part.part(sources=sources)
            for targets in blocks(size):
                sums.block(sources, targets).add(of_sources, rows.relations(sources), rows.relations(targets))
        if bar is not None:
            bar.update(len(part.heads))
    return sums


def blocks(size: int, step: int = BLOCK) -> list[slice]:
    """Cut `size` relations into slices."""
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]

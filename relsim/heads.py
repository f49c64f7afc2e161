"""Which heads to evaluate, and with what weight: survey sampling for the tail part of a divergence.

The tail part is a mean over heads, T_ab = sum_h p_a(h) D_ab(h), and evaluating D at a head is the whole cost. One
sample of heads serves all relations: unequal probabilities, no replacement, weights calibrated on what is known of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS, ENTRIES = 256, 1 << 22  # relations of a tile of p(h | r), and its entries: 16 MiB of float32

THIN = 0.02  # thinning may add about this share to a relation's variance
RIDGE = 1.0
PRIOR = 4.0  # degrees of freedom that the pooled variance of a relation is worth


@dataclass(frozen=True)
class HeadSample:
    """H heads to evaluate for R relations, and the weights that turn values at them into means and standard errors.

    Attributes:
        heads: (H,) int64.
        active: (H, R) whether the head is evaluated for the relation as the source of a divergence.
        weight: (H, R) float64, so that T_ab ~ sum_h weight[h, a] D_ab(h).
        features: (H, K) float64, what the calibration regressed D on; the first is 1.
        fit: (H, R) float64, the weights of that regression; (H, 0), as is `noise`, where every head is taken.
        bread: (R, K, K) float64, its inverse normal matrix with a ridge: beta_ab = bread_a sum_h fit[h, a] x_h D_ab(h).
        noise: (H, R) float64, so that the variance of T_ab is sum_h noise[h, a] (D_ab(h) - x_h . beta_ab)^2.
        freedom: (R,) float64, the effective number of sampled heads less the parameters that the regression took.
    """

    heads: Tensor
    active: Tensor
    weight: Tensor
    features: Tensor
    fit: Tensor
    bread: Tensor
    noise: Tensor
    freedom: Tensor

    def part(self, heads: slice | Tensor = slice(None), sources: slice = slice(None)) -> HeadSample:
        """Return the part for some of the heads and some of the relations as sources."""
        return HeadSample(
            self.heads[heads],
            self.active[heads, sources],
            self.weight[heads, sources],
            self.features[heads],
            self.fit[heads, sources],
            self.bread[sources],
            self.noise[heads, sources],
            self.freedom[sources],
        )


class HeadProbability(NamedTuple):
    """p(h | r) of R relations over E heads, a tile at a time: all of it need not fit in memory.

    `tile` returns p(h | r) for slices of the relations and of the heads.
    """

    tile: Callable[[slice, slice], Tensor]
    relations: int
    entities: int

    @classmethod
    def of(cls, probability: Tensor) -> HeadProbability:
        """Wrap a matrix (R, E)."""
        return cls(lambda relations, heads: probability[relations, heads], *probability.shape)

    def rows(self) -> Iterator[Tensor]:
        """Yield p(h | r) over all heads for a few relations after another, (n, E) float64."""
        for part in _steps(self.relations, max(1, ENTRIES // 16 // self.entities)):
            yield self.tile(part, slice(None)).double()

    def tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield slices of the relations and of the heads with p(h | r) there."""
        for relations in _steps(self.relations, ROWS):
            for heads in _steps(self.entities, max(1, ENTRIES // ROWS)):
                yield relations, heads, self.tile(relations, heads)


def _steps(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def all_heads(probability: HeadProbability) -> HeadSample:
    """Return every head with its probability p_a(h): nothing is sampled, the standard error is zero."""
    weight = torch.cat(list(probability.rows())).T.contiguous()
    relations = weight.shape[1]
    return HeadSample(
        heads=torch.arange(len(weight), device=weight.device),
        active=torch.ones_like(weight, dtype=torch.bool),
        weight=weight,
        features=weight.new_zeros(len(weight), 0),
        fit=weight.new_zeros(len(weight), 0),
        bread=weight.new_zeros(relations, 0, 0),
        noise=weight.new_zeros(len(weight), 0),
        freedom=weight.new_zeros(relations),
    )


def sample_heads(probability: HeadProbability, size: int, known: Tensor, rng: np.random.Generator) -> HeadSample:
    """Draw `size` of E heads for relations with head probabilities p_a(h), and calibrate their weights.

    Sampling is systematic, without replacement, with the inclusion probabilities of `inclusion`. The weights are those
    of the generalised regression estimator (Särndal, Swensson and Wretman, 1992, section 6.4): D is regressed on
    features `known` of every head, (E, K) with the first 1, and only the residuals are left to chance. A weight that
    the regression would turn negative becomes zero, so that every partial sum of an estimate is below it.
    """
    include = inclusion(probability, size)
    heads = torch.from_numpy(systematic(include.cpu().numpy(), rng)).to(include.device)
    share = include.new_empty(len(heads), probability.relations)
    variance = include.new_zeros(probability.relations)
    total = include.new_zeros(probability.relations, known.shape[1])
    for part, of_heads, p in probability.tiles():
        inside = (heads >= of_heads.start) & (heads < of_heads.stop)
        share[inside, part] = p[:, heads[inside] - of_heads.start].T.to(share.dtype)
        total[part] += p @ known[of_heads].to(p.dtype)
        variance[part] += unit_variance(p, include[of_heads])
    chance = include[heads, None]  # (H, 1)
    thin = (share / chance / (THIN * variance)).clamp(max=1)  # lesser weights are thinned at random, without bias
    active = torch.from_numpy(rng.random(tuple(thin.shape))).to(thin.device) < thin
    chance = chance * thin.clamp(min=1e-300)
    return _calibrated(heads, active, torch.where(active, share / chance, 0), chance, known[heads], total)


def heads_holding(probability: HeadProbability, mass: float, limit: int) -> int:
    """Return how many heads the smallest sets holding `mass` of p(h | r) have in all, but at most `limit`."""
    found = torch.zeros(probability.entities, dtype=torch.bool)
    for rows in probability.rows():
        ordered, order = rows.sort(dim=1, descending=True)
        found[order[ordered.cumsum(dim=1) - ordered < mass].cpu()] = True
        if int(found.sum()) >= limit:
            return limit
    return int(found.sum())


def inclusion(probability: HeadProbability, size: int) -> Tensor:
    """Return probabilities pi (E,) of including each head, summing to `size`: proportional to sqrt(sum_a p_a(h)^2).

    Cut at 1, they minimise the sum over relations of V_a = sum_h p_a(h)^2 (1 / pi_h - 1), the variance of a response of
    unit size (Neyman, 1934). Heads that matter much are certain, which is enumeration.
    """
    square = torch.zeros(probability.entities, dtype=torch.float64)
    for _, heads, p in probability.tiles():
        square = square.to(p.device)
        square[heads] += p.square().sum(dim=0)
    return proportional(square.sqrt(), size)


def unit_variance(probability: Tensor, include: Tensor) -> Tensor:
    """Return V_a = sum_h p_a(h)^2 (1 / pi_h - 1), (R,), for p_a(h) (R, E) and pi_h (E,)."""
    return (probability.square() @ (1 / include - 1).to(probability.dtype)).double().clamp(min=1e-300)


def proportional(measure: Tensor, size: int) -> Tensor:
    """Return min(1, kappa measure) with kappa such that the sum is `size` (all ones where `size` is the length)."""
    if size >= len(measure):
        return torch.ones_like(measure)
    ordered, _ = measure.clamp(min=1e-300).sort(descending=True)
    rest = ordered.flip(0).cumsum(0).flip(0)  # sum of the entries from i on
    certain = torch.arange(size, device=measure.device)
    kappa = (size - certain) / rest[:size]
    fits = (kappa * ordered[:size] <= 1).nonzero()
    return (measure * kappa[fits[0, 0] if len(fits) else size - 1]).clamp(min=1e-300, max=1)


def systematic(include: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw indices with inclusion probabilities `include`, without replacement, in random order (Madow, 1949)."""
    order = rng.permutation(len(include))
    ticks = np.floor(np.cumsum(include[order]) + rng.random())
    return np.sort(order[np.diff(ticks, prepend=0) > 0])


def left_basis(gram: Tensor, count: int) -> Tensor:
    """Return what a matrix A is multiplied by for its `count` leading left singular vectors, given A^T A, (m, m)."""
    value, vector = torch.linalg.eigh(gram)
    value, vector = value.flip(0)[:count], vector.flip(1)[:, :count]
    return vector / value.clamp(min=1e-12 * float(value.amax() if count else 1)).sqrt()


def moderated(variance: Tensor, mean: Tensor, freedom: Tensor) -> Tensor:
    """Shrink the variances (R, R) of means (R, R) towards what their row has in common, after Smyth (2004).

    A variance from few heads is itself uncertain, and a pair looks certain where by chance no deviating head was drawn.
    The rows' common coefficient of variation counts for `PRIOR` degrees of freedom beside the row's own (R,).
    """
    common = variance.sum(dim=1) / mean.square().sum(dim=1).clamp(min=1e-300)
    pooled = common[:, None] * mean.square()
    return (freedom[:, None] * variance + PRIOR * pooled) / (freedom[:, None] + PRIOR)


def _calibrated(heads: Tensor, active: Tensor, weight: Tensor, chance: Tensor, x: Tensor, total: Tensor) -> HeadSample:
    """Shift the inverse-probability weights (H, R) so that the features' means become the known `total` (R, K)."""
    fit = weight.square() * (1 - chance)  # certain heads leave nothing to explain
    mass = fit.sum(dim=0)
    effective = mass.square() / fit.square().sum(dim=0).clamp(min=1e-300)
    pairs = (x[:, :, None] * x[:, None, :]).flatten(1)  # (H, K K): products of features as one matrix product
    normal = (fit.T @ pairs).unflatten(1, (x.shape[1],) * 2)
    spread = normal.diagonal(dim1=1, dim2=2) - normal[:, 0].square() / mass.clamp(min=1e-300)[:, None]
    penalty = RIDGE * x.shape[1] / effective.clamp(min=1)[:, None] * spread.clamp(min=0)
    penalty[:, 0] = 0
    floor = 1e-9 * normal.diagonal(dim1=1, dim2=2).amax(dim=1).clamp(min=1e-200)
    bread = torch.linalg.inv(normal + torch.diag_embed(penalty + floor[:, None]))
    miss = total - weight.T @ x
    calibrated = (weight + fit * (x @ (bread @ miss[:, :, None]).squeeze(2).T)).clamp(min=0)
    leverage = fit * (pairs @ bread.flatten(1).T)
    noise = calibrated.square() * (1 - chance) / (1 - leverage).clamp(min=0.1).square()
    calibrated, noise = (torch.where(active, value, 0) for value in (calibrated, noise))
    freedom = (effective - leverage.sum(dim=0)).clamp(min=1)
    return HeadSample(heads, active, calibrated, x, fit, bread, noise, freedom)

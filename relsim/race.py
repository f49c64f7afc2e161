"""A race of pairs of relations: heads are added one after another, and a pair leaves once it cannot win.

An estimate of KL(a || b) is the exact head part plus a weighted sum over heads of tail divergences. No weight and no
divergence is negative, so the sum over the heads seen so far is a lower bound of the estimate, at any moment.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from relsim.design import Design
from relsim.rows import LazyRows
from relsim.tails import TailRows, TailSums

FIRST = 2  # heads of the first round; each round takes twice as many as the last
SURE = 8  # heads of a round from which on guesses decide what is finished at once
PROMISING = 64  # heads of a round from which on a pair is likely to run both ways
SLACK = 1e-4  # relative: bounds are sums of rounded numbers
MARGIN = 1.1  # weight of heads taken, in units of what is forecast to exclude a pair


class Race:
    """Estimates of KL(a || b) that grow head by head, for directed pairs, the heads of largest weight first.

    Attributes:
        source, target: (n,) indices into the design's relations.
        low: (n,) float64, lower bounds of the estimates: at first the head part.
    """

    def __init__(self, design: Design, rows: LazyRows, source: Tensor, target: Tensor, head: Tensor) -> None:
        self._design, self._rows = design, rows
        self.source, self.target, self.low = source, target, head.clone()
        self._head, self._seen = head, torch.zeros_like(head)  # the head part, and the weight of the heads seen
        self._taken = torch.zeros_like(source)
        self._total = (design.sample.weight > 0).sum(dim=0)[source]
        self._orders: dict[int, tuple[Tensor, Tensor]] = {}

    def advance(self, pairs: Tensor, heads: int, limit: float = math.inf) -> None:
        """Add the next `heads` heads to each of `pairs` (m,), or as many as should take the bound above `limit`."""
        enough = self._enough(pairs, limit).tolist()
        chosen = [self._next(*ends, heads) for ends in zip(*self._positions(pairs), enough, strict=True)]
        sizes = torch.tensor([len(c) for c in chosen], device=pairs.device)
        if not int(sizes.sum()):
            return
        which, head = torch.repeat_interleave(pairs, sizes), torch.cat(chosen)
        both = heads >= PROMISING
        divergence = self._rows.gather(head, self.source[which], self.target[which], both).double()
        weight = self._design.sample.weight[head, self.source[which]]
        self.low.index_add_(0, which, weight * divergence)
        self._seen.index_add_(0, which, weight)
        self._taken[pairs] += sizes

    def within(self, bundles: Tensor, limit: float, heads: int = FIRST) -> Tensor:
        """Race bundles, rows (m, d) of directed pairs; a bundle leaves when one of its pairs exceeds `limit`.

        Of a bundle the pair runs that looks largest, `heads` heads first. Returns the bundles that stay, finished.
        """
        while True:
            bundles = self._inside(bundles, limit)
            if not self._round(bundles, heads, limit):
                return bundles
            heads *= 2

    def best(self, bundles: Tensor, k: int) -> Tensor:
        """Race bundles, rows (m, d), until at least the `k` with the least maximum are left, finished.

        First all that seem to be within the k-th guess run until guesses are good (`SURE` heads). Then whatever looks
        as if it were among the `k` is finished at once, since their largest is the limit for others. The first
        bundles, those likely to be good, have to have run already.
        """
        heads, limit = FIRST, math.inf
        while heads < SURE:
            kth = float(self._guesses(self._running(bundles)).sort().values[:k][-1])
            self._round(self._inside(bundles, kth), heads, kth)
            heads *= 2
        while True:
            started = self._running(bundles)
            self.within(started[self._guesses(started).argsort(stable=True)[:k]], limit, PROMISING)
            ended = bundles[(self._taken >= self._total)[bundles].all(dim=1)]
            if len(ended) >= k:
                limit = float(self.low[ended].amax(dim=1).kthvalue(k).values)
            bundles = self._inside(bundles, limit)
            if not self._round(bundles, heads, limit):
                return bundles
            heads *= 2

    def _running(self, bundles: Tensor) -> Tensor:
        return bundles[self.started()[bundles].any(dim=1)]

    def _guesses(self, bundles: Tensor) -> Tensor:
        return self.projected(bundles).amax(dim=1)

    def _inside(self, bundles: Tensor, limit: float) -> Tensor:
        return bundles[(self.low[bundles] <= limit * (1 + SLACK) + SLACK).all(dim=1)]

    def _round(self, bundles: Tensor, heads: int, limit: float) -> bool:
        """Advance each unfinished bundle by one pair; return whether there was any."""
        unfinished = self._taken[bundles] < self._total[bundles]
        pending = unfinished.any(dim=1)
        guess = torch.where(unfinished, self.projected(bundles), -torch.inf)[pending]
        if len(guess):
            self.advance(bundles[pending].gather(1, guess.argmax(dim=1, keepdim=True)).squeeze(1), heads, limit)
        return len(guess) > 0

    def started(self) -> Tensor:
        """Return which pairs had a head evaluated, a mask (n,)."""
        return self._taken > 0

    def projected(self, pairs: Tensor) -> Tensor:
        """Guess the estimates of `pairs`: the tails of the heads to come are taken to be like those seen."""
        head = self._head[pairs]
        return head + (self.low[pairs] - head) / self._seen[pairs].clamp(min=1e-9)

    def _enough(self, pairs: Tensor, limit: float) -> Tensor:
        """Forecast the weight of heads at which the bounds of `pairs` exceed `limit`."""
        head = self._head[pairs]
        return MARGIN * self._seen[pairs] * (limit - head) / (self.low[pairs] - head).clamp(min=1e-9)

    def sums(self, source: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tail part and its raw variance from one source to targets (B,) with all heads seen, (B,) each."""
        heads = self._order(source)[0].sort().values
        of_source = self._rows.grid(heads, torch.tensor([source], device=heads.device), mean=True)
        of_targets: TailRows = self._rows.grid(heads, targets, mean=False)
        sample = self._design.sample.part(heads, one(source))
        sums = TailSums.zeros(1, len(targets), sample.features.shape[1], heads.device)
        sums.add(sample, of_source, of_targets)
        return sums.mean()[0], sums.variance(sample)[0]

    def _positions(self, pairs: Tensor) -> tuple[list[int], list[int]]:
        return self.source[pairs].tolist(), self._taken[pairs].tolist()

    def _next(self, source: int, taken: int, enough: float, heads: int) -> Tensor:
        order, reached = self._order(source)
        known = int(torch.searchsorted(reached, enough)) + 1 - taken if taken else 0
        heads = min(heads, max(FIRST, known))
        return order[taken : taken + heads]

    def _order(self, source: int) -> tuple[Tensor, Tensor]:
        """The sample's heads that count for a relation, by falling weight, and their weights added up."""
        if source not in self._orders:
            weight, order = self._design.sample.weight[:, source].sort(descending=True, stable=True)
            positive = int((weight > 0).sum())
            self._orders[source] = order[:positive], weight[:positive].cumsum(0)
        return self._orders[source]


def one(index: int) -> slice:
    """Return the slice that holds one index."""
    return slice(index, index + 1)

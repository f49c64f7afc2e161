"""Estimators of the KL divergence between the fact distributions of relations.

Both conditionals of a fact distribution are exponential families, where KL is the Bregman divergence of Z:

    KL(p_u || p_w) = Z(w) - Z(u) - (w - u) . m(u)                                                       (exact)
    KL(a || b) = [head part: the above for f_a, f_b] + E_{h ~ p(h|a)} [tail part: the above for g_ah, g_bh]

so tails are summed out in closed form, and heads are the only thing that may be sampled.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from relsim.design import Design, exact_design, sampled_design
from relsim.distribution import FactDistribution
from relsim.divergence import Divergence
from relsim.errors import RelsimError
from relsim.heads import moderated
from relsim.tails import ROWS, tail_sums


class Estimator(ABC):
    """Estimates KL(a || b) for all pairs of relations of a fact distribution."""

    @torch.no_grad()
    def divergence(
        self, model: FactDistribution, relations: Sequence[str] | None = None, *, progress: bool | None = None
    ) -> Divergence:
        """Return the divergences between `relations` (names; by default all of the model), in nats.

        Args:
            progress: show a bar; by default on a terminal only.

        Raises:
            RelsimError: an unknown relation, or fewer than two.
        """
        index = _relations(model, relations)
        start = time.process_time()
        training = model.training
        model.eval()
        try:
            *parts, details = self._parts(model, index, progress)
        finally:
            model.train(training)
        head, tail, stderr = (part.contiguous().fill_diagonal_(0).cpu().numpy() for part in parts)
        meta = {"source": model.meta.get("source", ""), "estimator": type(self).__name__, **self.settings(), **details}
        meta["cpu_seconds"] = round(time.process_time() - start, 2)
        names = [model.relations[i] for i in index.tolist()]
        return Divergence(names, head + tail, stderr, head, tail, model.support[index].cpu().numpy(), meta)

    @abstractmethod
    def _parts(
        self, model: FactDistribution, relations: Tensor, progress: bool | None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return the head part, the tail part and the standard error, (R, R) float64 each, and details for `meta`."""

    def settings(self) -> dict[str, Any]:
        """Return the arguments, for `meta`."""
        return asdict(self) if hasattr(self, "__dataclass_fields__") else {}  # type: ignore[call-overload]


class DesignEstimator(Estimator):
    """Tails summed out exactly, at the heads that a `Design` names."""

    @abstractmethod
    def design(self, model: FactDistribution, relations: Tensor) -> Design:
        """Return what all pairs of relations (R,) share; the model is in evaluation mode, and no gradient is wanted."""

    @abstractmethod
    def most_heads(self, entities: int) -> int:
        """Return an upper bound on the heads of the design."""

    def _parts(
        self, model: FactDistribution, relations: Tensor, progress: bool | None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        design = self.design(model, relations)
        sample = design.sample
        with tqdm(total=len(sample.heads), disable=_hidden(progress), unit="head") as bar:
            sums = tail_sums(model, relations, sample, bar)
        stderr = moderated(sums.variance(sample), sums.mean(), sample.freedom).sqrt()
        return design.head_part(), sums.mean(), stderr, {"heads": len(sample.heads)}


@dataclass(frozen=True)
class Enumerate(DesignEstimator):
    """The exact divergence: the tail part summed over every head, at R E^2 k operations. The truth, for small KBs."""

    def design(self, model: FactDistribution, relations: Tensor) -> Design:
        return exact_design(model, relations)

    def most_heads(self, entities: int) -> int:
        return entities


@dataclass(frozen=True)
class RaoBlackwell(DesignEstimator):
    """Tails summed out exactly; heads enumerated where they matter and sampled, without replacement, where they do not.

    One sample of heads serves all relations. Its size is the number of heads that the smallest sets holding `mass` of
    p(h | r) have in all, over the relations r, but at most `samples`; where that is every head, the result is exact.
    The sampling and the weights are in `relsim.heads`.

    Args:
        mass: the share of each relation's head probability that decides how many heads are enough.
        samples: the most heads to evaluate.
        features: how many features of heads the weights are calibrated on; 0 leaves self-normalised weights.
        seed: of the sample.
    """

    mass: float = 0.95
    samples: int = 1200
    features: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.mass <= 1 and self.samples >= 1 and self.features >= 0):
            raise ValueError(f"expected mass in (0, 1], samples >= 1 and features >= 0, got {self}")

    def design(self, model: FactDistribution, relations: Tensor) -> Design:
        return sampled_design(model, relations, **asdict(self))

    def most_heads(self, entities: int) -> int:
        return min(entities, self.samples)


@dataclass(frozen=True)
class MonteCarlo(Estimator):
    """The estimator of the paper (arXiv:1907.08937, section 3.2): the mean of log p_a(h, t) - log p_b(h, t) over draws.

    Heads and tails are drawn from p(h, t | a), so both parts carry sampling error; it is here for comparison.

    Args:
        samples: draws from each relation; the paper takes 20.
        seed: of the draws.
    """

    samples: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"expected samples >= 2, which a standard error needs, got {self.samples}")

    def _parts(
        self, model: FactDistribution, relations: Tensor, progress: bool | None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        generator = torch.Generator(relations.device).manual_seed(self.seed)
        log_head = model.head_log_prob(relations)  # (R, E)
        rows = []
        for a, relation in enumerate(tqdm(relations, disable=_hidden(progress), unit="relation")):
            heads, tails = model.sample(relation, self.samples, generator)
            of_head = log_head[:, heads].T.double()  # (n, R)
            of_tail = tail_scores(model, heads, tails, relations)
            head, tail = of_head[:, a, None] - of_head, of_tail[:, a, None] - of_tail
            rows.append(torch.stack([head.mean(0), tail.mean(0), (head + tail).std(0) / self.samples**0.5]))
        return *torch.stack(rows, dim=1), {}


def tail_scores(model: FactDistribution, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
    """Return log p(t | h, r) of facts (n,) under every relation (R,), (n, R) float64, in blocks that fit in memory."""
    size = max(1, ROWS // len(relations))
    blocks = zip(heads.split(size), tails.split(size), strict=True)
    return torch.cat([_tail_scores(model, h, t, relations) for h, t in blocks])


def _tail_scores(model: FactDistribution, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
    natural = model.tail_natural_grid(heads, relations)
    flat = natural.reshape(-1, natural.shape[-1])
    score = model.tail_score(flat, tails.repeat_interleave(len(relations))) - model.tail_partition(flat)
    return score.reshape(len(heads), len(relations)).double()


def _relations(model: FactDistribution, names: Sequence[str] | None) -> Tensor:
    index = torch.arange(len(model.relations)) if names is None else model.relation_index(list(names)).cpu()
    if len(index) < 2:
        raise RelsimError(f"{len(index)} relation: a comparison needs two or more")
    return index.to(model.support.device)


def _hidden(progress: bool | None) -> bool | None:
    return None if progress is None else not progress

"""The Jensen-Shannon divergence, which is bounded: JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2.

It lies in [0, ln 2] nats. Where two relations exclude each other, KL is as large as the smoothing is weak, and JS is
ln 2 whatever the smoothing (Lin, 1991).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import xlogy

from relsim.distribution import FactDistribution
from relsim.estimators import tail_scores
from relsim.kb import KB

Floats = NDArray[np.float64]


def smoothed_marginal(kb: KB, end: Literal["head", "tail"] = "tail", background: float = 0.01) -> Floats:
    """Return p(e | r) = (1 - w) c(r, e) / c(r) + w (c(e) + 1) / (c + E) for heads or tails e, (R, E); w = `background`.

    c are counts of the facts of all splits. A relation without facts has the background alone.
    """
    if not 0 < background <= 1:
        raise ValueError(f"expected background in (0, 1], got {background}")
    counts = np.zeros((len(kb.relations), len(kb.entities)))
    np.add.at(counts, (kb.facts.relation, getattr(kb.facts, end)), kb.facts.count)
    every = counts.sum(axis=0) + 1
    own = counts.sum(axis=1, keepdims=True)
    share = np.where(own > 0, 1 - background, 0.0)
    return share * counts / np.maximum(own, 1) + (1 - share) * every / every.sum()


def jensen_shannon(probability: Floats) -> Floats:
    """Return JS between all rows of probabilities (R, E), in nats, (R, R)."""
    entropy = -xlogy(probability, probability).sum(axis=1)
    result = np.zeros((len(probability),) * 2)
    for a, row in enumerate(probability[:-1]):
        middle = (row + probability[a + 1 :]) / 2
        result[a, a + 1 :] = -xlogy(middle, middle).sum(axis=1) - (entropy[a] + entropy[a + 1 :]) / 2
    return np.maximum(result + result.T, 0.0)


@torch.no_grad()
def jensen_shannon_of_facts(model: FactDistribution, samples: int = 100, seed: int = 0) -> tuple[Floats, Floats]:
    """Return estimates of JS between p(h, t | a) and p(h, t | b) for all pairs, in nats, and standard errors, (R, R).

    From `samples` facts drawn of each relation: half the mean over those of a of log 2 p_a / (p_a + p_b), and half the
    same with a and b exchanged. The terms lie between -inf and ln 2 and vary little, so that few draws are enough.
    """
    if samples < 2:
        raise ValueError(f"expected samples >= 2, which a standard error needs, got {samples}")
    device = model.support.device
    relations = torch.arange(len(model.relations), device=device)
    generator = torch.Generator(device).manual_seed(seed)
    log_head = model.head_log_prob(relations)
    mean, variance = [], []
    for a in relations.tolist():
        heads, tails = model.sample(a, samples, generator)
        log = log_head[:, heads].T.double() + tail_scores(model, heads, tails, relations)
        term = math.log(2) - F.softplus(log - log[:, a, None])  # log 2 p_a / (p_a + p_b)
        mean.append(term.mean(0))
        variance.append(term.var(0) / samples)
    js, error = (torch.stack(part).cpu().numpy() for part in (mean, variance))
    return (js + js.T) / 2, np.sqrt(error + error.T) / 2

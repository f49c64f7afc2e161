"""Negative samples for training on a knowledge base: relations that could be mistaken, entities that make no fact."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from relsim.divergence import Divergence
from relsim.kb import Triples
from relsim.similar import symmetric_kl


class SimilarityNegativeSampler:
    """Draws wrong relations for right ones, p(b | a) proportional to S_ab^(1 / alpha), b != a (after arXiv:1907.08937).

    S = exp(-max KL), so the exponents are -max(KL) / alpha. alpha to infinity is uniform; alpha to 0 takes the most
    similar relation only. Train with `alpha` falling, as `annealed` gives it: easy negatives first, hard ones later.

    Args:
        divergence: a `Divergence`, or distances (R, R) in nats.
        alpha: the temperature, positive; may be set at any time.
    """

    def __init__(self, divergence: Divergence | ArrayLike, alpha: float = 1.0) -> None:
        distance = symmetric_kl(divergence) if isinstance(divergence, Divergence) else np.asarray(divergence)
        if distance.ndim != 2 or distance.shape[0] != distance.shape[1] or len(distance) < 2:
            raise ValueError(f"expected distances (R, R) of two relations or more, got shape {distance.shape}")
        finite = np.nan_to_num(np.maximum(distance, 0.0), posinf=1e9)  # relations that exclude each other: least likely
        self._distance = torch.from_numpy(finite.astype(np.float64)).fill_diagonal_(torch.inf)
        self.alpha = alpha

    @property
    def alpha(self) -> float:
        """The temperature."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not value > 0:
            raise ValueError(f"expected alpha > 0, got {value}")
        self._alpha = value

    def probability(self, relation: Tensor) -> Tensor:
        """Return p(b | a) for relations a (n,), shape (n, R)."""
        return torch.softmax(-self._distance[relation] / self._alpha, dim=1)

    def sample(self, relation: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `k` wrong relations for each of (n,), with replacement, shape (n, k)."""
        which, place = relation.unique(return_inverse=True)
        rows = self.probability(which)[place]
        return torch.multinomial(rows, k, replacement=True, generator=generator)


def annealed(start: float, end: float, step: int, steps: int) -> float:
    """Return alpha at `step` of `steps`, from `start` to `end` in equal ratios, and `end` from then on."""
    if not (start > 0 and end > 0 and steps > 0):
        raise ValueError(f"expected start, end and steps > 0, got {start}, {end}, {steps}")
    return float(start * (end / start) ** min(step / steps, 1.0))


class EntityNegativeSampler:
    """Replaces the head or the tail of facts by an entity drawn uniformly, so that no known fact comes out.

    Which end is replaced is drawn for each relation: the head with probability tph / (tph + hpt), for the mean numbers
    of tails per head and heads per tail (Wang et al., 2014), which makes fewer false negatives.

    Args:
        facts: the known facts; negatives are none of them. Pass those of all splits.
        entities: how many there are.
        relations: how many there are.
    """

    def __init__(self, facts: Triples, entities: int, relations: int) -> None:
        self._entities = entities
        self._known = np.unique(self._key(facts.head, facts.relation, facts.tail))
        count = np.bincount(facts.relation, minlength=relations).astype(float)
        heads, tails = (
            np.bincount(np.unique(facts.relation * entities + end) // entities, minlength=relations)
            for end in (facts.head, facts.tail)
        )
        tails_per_head, heads_per_tail = count / np.maximum(heads, 1), count / np.maximum(tails, 1)
        total = tails_per_head + heads_per_tail
        self._head_share = np.where(total > 0, tails_per_head / np.maximum(total, 1e-300), 0.5)

    def sample(
        self,
        head: ArrayLike,
        relation: ArrayLike,
        tail: ArrayLike,
        k: int,
        rng: np.random.Generator,
        attempts: int = 100,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return heads and tails of `k` negatives for each of n facts, (n, k) each.

        A draw that is a known fact is drawn again, at most `attempts` times: where an entity has nearly all others as
        tails, no negative may exist.
        """
        h, r, t = (np.repeat(np.asarray(part, np.int64)[:, None], k, axis=1) for part in (head, relation, tail))
        at_head = rng.random(h.shape) < self._head_share[r]
        todo = np.ones(h.shape, dtype=bool)
        heads, tails = h.copy(), t.copy()
        for _ in range(attempts):
            drawn = rng.integers(self._entities, size=int(todo.sum()))
            heads[todo] = np.where(at_head[todo], drawn, h[todo])
            tails[todo] = np.where(at_head[todo], t[todo], drawn)
            todo = self._is_known(heads, r, tails)
            if not todo.any():
                break
        return heads, tails

    def _key(self, head: np.ndarray, relation: np.ndarray, tail: np.ndarray) -> np.ndarray:
        return (relation * self._entities + head) * self._entities + tail

    def _is_known(self, head: np.ndarray, relation: np.ndarray, tail: np.ndarray) -> np.ndarray:
        key = self._key(head, relation, tail)
        place = np.searchsorted(self._known, key).clip(max=max(len(self._known) - 1, 0))
        return self._known[place] == key if len(self._known) else np.zeros(key.shape, dtype=bool)

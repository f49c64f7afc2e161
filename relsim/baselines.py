"""What a sceptic would use instead: similarities of relations from counts, and from vectors of a plain model."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array

from relsim.kb import KB
from relsim.sampling import EntityNegativeSampler

Similarity = NDArray[np.float64]


def tail_cosine(kb: KB) -> Similarity:
    """Return the cosine of the relations' counts of tails, (R, R)."""
    return _cosine(_counts(kb, kb.facts.tail, len(kb.entities)))


def head_cosine(kb: KB) -> Similarity:
    """Return the cosine of the relations' counts of heads, (R, R)."""
    return _cosine(_counts(kb, kb.facts.head, len(kb.entities)))


def pair_cosine(kb: KB) -> Similarity:
    """Return the cosine of the relations' counts of (head, tail) pairs, (R, R)."""
    return _cosine(_counts(kb, *_pairs(kb)))


def tail_jaccard(kb: KB) -> Similarity:
    """Return |tails of a and of b| / |tails of a or of b|, (R, R)."""
    return _jaccard(_counts(kb, kb.facts.tail, len(kb.entities)))


def head_jaccard(kb: KB) -> Similarity:
    """Return |heads of a and of b| / |heads of a or of b|, (R, R)."""
    return _jaccard(_counts(kb, kb.facts.head, len(kb.entities)))


def pair_jaccard(kb: KB) -> Similarity:
    """Return |facts of a and of b| / |facts of a or of b|, (R, R)."""
    return _jaccard(_counts(kb, *_pairs(kb)))


def vector_cosine(vectors: torch.Tensor) -> Similarity:
    """Return the cosine of relation vectors (R, d), of any model, (R, R)."""
    unit = F.normalize(vectors.detach().double(), dim=1).cpu().numpy()
    return np.clip(unit @ unit.T, -1.0, 1.0)


def transe_vectors(
    kb: KB,
    *,
    dim: int = 50,
    epochs: int = 50,
    negatives: int = 5,
    margin: float = 1.0,
    lr: float = 0.01,
    batch: int = 4096,
    seed: int = 0,
) -> torch.Tensor:
    """Return the relation vectors of TransE, (R, dim): h + r ~ t, by a margin on distances (Bordes et al., 2013)."""
    facts = kb.train
    sampler = EntityNegativeSampler(kb.facts, len(kb.entities), len(kb.relations))
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    entity, relation = (
        ((torch.rand(n, dim, generator=generator) * 2 - 1) * 6 * dim**-0.5).requires_grad_()
        for n in (len(kb.entities), len(kb.relations))
    )
    optimiser = torch.optim.Adam([entity, relation], lr=lr)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(facts)), max(1, len(facts) // batch)):
            h, r, t = (column[rows] for column in (facts.head, facts.relation, facts.tail))
            wrong_h, wrong_t = sampler.sample(h, r, t, negatives, rng)
            unit = F.normalize(entity, dim=1)
            h_, r_, t_, wrong_h_, wrong_t_ = (torch.from_numpy(part) for part in (h, r, t, wrong_h, wrong_t))
            right = (unit[h_] + relation[r_] - unit[t_]).norm(dim=-1)
            wrong = (unit[wrong_h_] + relation[r_][:, None] - unit[wrong_t_]).norm(dim=-1)
            optimiser.zero_grad()
            F.relu(margin + right[:, None] - wrong).mean().backward()
            optimiser.step()
    return relation.detach()


def _counts(kb: KB, column: NDArray[np.int64], size: int) -> csr_array:
    facts = kb.facts
    return csr_array((facts.count.astype(float), (facts.relation, column)), shape=(len(kb.relations), size))


def _pairs(kb: KB) -> tuple[NDArray[np.int64], int]:
    found, number = np.unique(kb.facts.head * len(kb.entities) + kb.facts.tail, return_inverse=True)
    return number, len(found)


def _cosine(counts: csr_array) -> Similarity:
    product = (counts @ counts.T).toarray()
    norm = np.sqrt(np.diag(product))
    return product / np.maximum(np.outer(norm, norm), 1e-300)


def _jaccard(counts: csr_array) -> Similarity:
    present = (counts > 0).astype(float)
    both = (present @ present.T).toarray()
    size = np.diag(both)
    return both / np.maximum(size[:, None] + size[None, :] - both, 1.0)

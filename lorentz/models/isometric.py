"""Relations that move heads by a boost, after a stretch or a rotation: the Lorentz forms of MuRP and RotH."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import sinhc
from lorentz.models.link_scorer import EuclideanScorer, LorentzScorer


class LorentzMuRP(LorentzScorer):
    """Relations stretch the axes of a head and then boost it: f_r(x) = B_r exp0(s_r * log0(x)).

    MuRP with the translation on the side of the head, where a boost is exact. Arguments as in `LinkScorer`.

    Parameters: `stretch` s (2 R, dim), one at the start, and `rapidity` (2 R, dim), zero, beside those of `LinkScorer`.

    Source: Balazevic et al., Multi-relational Poincare Graph Embeddings, NeurIPS 2019.
    """

    def __init__(
        self, entities: int, relations: int, dim: int, *, margin: float = 0.0, std: float = 1e-3, sparse: bool = True
    ) -> None:
        super().__init__(entities, relations, dim, margin=margin, std=std, sparse=sparse)
        self.stretch = nn.Parameter(torch.ones(2 * relations, dim))
        self.rapidity = nn.Parameter(torch.zeros(2 * relations, dim))

    def move(self, x: Tensor, relation: Tensor) -> Tensor:
        """Return B_r exp0(s_r * log0(x)), (N, dim)."""
        return boost_by_rapidity(LF.expmap0(self.stretch[relation] * LF.logmap0(x)), self.rapidity[relation])


class EuclideanMuRE(EuclideanScorer):
    """The twin of `LorentzMuRP` in Euclidean space, f_r(x) = s_r * x + b_r: as many parameters.

    Parameters: `stretch` (2 R, dim) and `translation` (2 R, dim) beside those of `LinkScorer`.

    Source: Balazevic et al., NeurIPS 2019.
    """

    def __init__(
        self, entities: int, relations: int, dim: int, *, margin: float = 0.0, std: float = 1e-3, sparse: bool = True
    ) -> None:
        super().__init__(entities, relations, dim, margin=margin, std=std, sparse=sparse)
        self.stretch = nn.Parameter(torch.ones(2 * relations, dim))
        self.translation = nn.Parameter(torch.zeros(2 * relations, dim))

    def move(self, x: Tensor, relation: Tensor) -> Tensor:
        """Return s_r * x + b_r, (N, dim)."""
        return self.stretch[relation] * x + self.translation[relation]


class LorentzRotH(LorentzScorer):
    r"""Relations turn pairs of a head's coordinates and then boost it, :math:`f_r(x) = B_r R_r x`: an isometry.

    Arguments as in `LinkScorer`; the dimension is even.

    Parameters: `angles` (2 R, dim / 2), of coordinate k with k + dim / 2, and `rapidity` (2 R, dim), zero at the start:
    the identity.

    Source: Chami et al., Low-Dimensional Hyperbolic Knowledge Graph Embeddings, ACL 2020 (Givens rotations); Chen et
    al., ACL 2022, for boost after rotation.
    """

    def __init__(
        self, entities: int, relations: int, dim: int, *, margin: float = 0.0, std: float = 1e-3, sparse: bool = True
    ) -> None:
        super().__init__(entities, relations, dim, margin=margin, std=std, sparse=sparse)
        self.angles = _angles(relations, dim)
        self.rapidity = nn.Parameter(torch.zeros(2 * relations, dim))

    def move(self, x: Tensor, relation: Tensor) -> Tensor:
        """Return B_r R_r x, (N, dim)."""
        return boost_by_rapidity(turn_pairs(x, self.angles[relation]), self.rapidity[relation])


class EuclideanRotE(EuclideanScorer):
    """The twin of `LorentzRotH` in Euclidean space, f_r(x) = R_r x + b_r: as many parameters.

    Parameters: `angles` (2 R, dim / 2) and `translation` (2 R, dim) beside those of `LinkScorer`.

    Source: Chami et al., ACL 2020.
    """

    def __init__(
        self, entities: int, relations: int, dim: int, *, margin: float = 0.0, std: float = 1e-3, sparse: bool = True
    ) -> None:
        super().__init__(entities, relations, dim, margin=margin, std=std, sparse=sparse)
        self.angles = _angles(relations, dim)
        self.translation = nn.Parameter(torch.zeros(2 * relations, dim))

    def move(self, x: Tensor, relation: Tensor) -> Tensor:
        """Return R_r x + b_r, (N, dim)."""
        return turn_pairs(x, self.angles[relation]) + self.translation[relation]


def _angles(relations: int, dim: int) -> nn.Parameter:
    if dim % 2:
        raise ValueError(f"expected an even dim, since rotations turn pairs of coordinates, got {dim}")
    return nn.Parameter(torch.zeros(2 * relations, dim // 2))


def turn_pairs(x: Tensor, angles: Tensor) -> Tensor:
    """Turn coordinates k and k + n / 2 of x (..., n) by angles (..., n / 2)."""
    (u, v), cos, sin = x.chunk(2, dim=-1), angles.cos(), angles.sin()
    return torch.cat([cos * u - sin * v, sin * u + cos * v], dim=-1)


def boost_by_rapidity(x: Tensor, p: Tensor) -> Tensor:
    r"""Boost points (N, n) by rapidities (N, n), smooth at zero: `lorentz.nn.Boost`, one for each row."""
    squared, along = (p * p).sum(-1, keepdim=True), (x * p).sum(-1, keepdim=True)
    half = sinhc(squared / 4)
    return x + (half * half / 2 * along - sinhc(squared) * LF.time(x, keepdim=True)) * p

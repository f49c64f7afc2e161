"""Relations that move heads by a boost, after a stretch or a rotation: the Lorentz forms of MuRP and RotH."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import sinhc
from lorentz.models._grouped import grouped_linear
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
    r"""Relations rotate a head and then boost it, :math:`f_r(x) = B_r R_r x`: an isometry, and every one of them.

    RotH turns pairs of coordinates, by Givens rotations; here :math:`R_r = \exp(A_r - A_r^T)` is all of SO(dim).
    Arguments as in `LinkScorer`.

    Parameters: `angles` (2 R, dim (dim - 1) / 2), the entries above the diagonal of A by rows, and `rapidity`
    (2 R, dim), zero at the start: the identity.

    Source: Chami et al., Low-Dimensional Hyperbolic Knowledge Graph Embeddings, ACL 2020; Chen et al., ACL 2022, for
    boost after rotation.
    """

    def __init__(
        self, entities: int, relations: int, dim: int, *, margin: float = 0.0, std: float = 1e-3, sparse: bool = True
    ) -> None:
        super().__init__(entities, relations, dim, margin=margin, std=std, sparse=sparse)
        self.angles = nn.Parameter(torch.zeros(2 * relations, dim * (dim - 1) // 2))
        self.rapidity = nn.Parameter(torch.zeros(2 * relations, dim))

    @property
    def rotations(self) -> Tensor:
        """The matrices R_r, (2 R, dim, dim)."""
        rows, columns = torch.triu_indices(self.dim, self.dim, offset=1, device=self.angles.device)
        a = self.angles.new_zeros(len(self.angles), self.dim, self.dim)
        a[:, rows, columns] = self.angles
        return torch.linalg.matrix_exp(a - a.mT)

    def move(self, x: Tensor, relation: Tensor) -> Tensor:
        """Return B_r R_r x, (N, dim)."""
        return boost_by_rapidity(grouped_linear(x, self.rotations, relation), self.rapidity[relation])


def boost_by_rapidity(x: Tensor, p: Tensor) -> Tensor:
    r"""Boost points (N, n) by rapidities (N, n), smooth at zero: `lorentz.nn.Boost`, one for each row."""
    squared, along = (p * p).sum(-1, keepdim=True), (x * p).sum(-1, keepdim=True)
    half = sinhc(squared / 4)
    return x + (half * half / 2 * along - sinhc(squared) * LF.time(x, keepdim=True)) * p

"""Positions: added to the space part, or turned into rotations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lorentz._precision import widen
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule, check_width


class PositionalEncoding(LorentzModule):
    r"""Add fixed sinusoids of the position i to the space part; the time follows.

    .. math::
        p_{i, 2k} = s \sin(i\,\theta_k), \quad p_{i, 2k + 1} = s \cos(i\,\theta_k), \quad
        \theta_k = base^{-2k / n}.

    Args:
        embedding_dim: n, even.
        base: of the geometric series of frequencies.
        scale: s; by default sqrt(2 / n), at which every p_i has norm 1.
        manifold: space of the points; by default curvature -1, fixed. The space part does not depend on it.

    Shapes: points (..., L, n) to points (..., L, n).

    Raises:
        ValueError: n is odd; in forward, the input has another width.

    Source: Vaswani et al., NeurIPS 2017, Section 3.5, added as in Chen et al., ACL 2022, Eq. 7.
    """

    def __init__(
        self,
        embedding_dim: int,
        base: float = 10_000.0,
        scale: float | None = None,
        *,
        manifold: Lorentz | None = None,
    ) -> None:
        super().__init__()
        check_even(embedding_dim)
        self.embedding_dim, self.base = embedding_dim, base
        self.scale = (2 / embedding_dim) ** 0.5 if scale is None else scale
        self.manifold = manifold or Lorentz()

    def forward(self, input: Tensor, offset: int | Tensor = 0) -> Tensor:
        """Add the positions from `offset` on to points (..., L, n)."""
        check_width(input, self.embedding_dim)
        wide = widen(input)
        angles = position_angles(wide, self.base, offset)
        encoding = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)  # (L, n)
        return (wide + self.scale * encoding).to(input.dtype)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return f"{self.embedding_dim}, base={self.base:g}, scale={self.scale:g}"


class LearnedPositionalEncoding(LorentzModule):
    """Add a learned vector per position to the space part; the time follows.

    Args:
        num_embeddings: number of positions.
        embedding_dim: width n of the points.
        std: standard deviation of the vectors at the start.
        manifold: space of the points; by default curvature -1, fixed. The space part does not depend on it.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., L, n) to points (..., L, n).

    Parameters: `weight` (num_embeddings, n), Euclidean like the bias of a linear layer.

    Raises:
        ValueError: in forward, the input has another width or more positions than there are.

    Source: Gehring et al., ICML 2017, added as in Chen et al., ACL 2022, Eq. 7.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        std: float = 0.02,
        *,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.std = num_embeddings, embedding_dim, std
        self.manifold = manifold or Lorentz()
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors from a normal distribution."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, input: Tensor, offset: int = 0) -> Tensor:
        """Add the positions from `offset` on to points (..., L, n)."""
        check_width(input, self.embedding_dim)
        end = offset + input.shape[-2]
        if not 0 <= offset <= end <= self.num_embeddings:
            raise ValueError(f"expected positions below {self.num_embeddings}, got {offset} to {end - 1}")
        return (input + self.weight[offset:end]).to(input.dtype)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return f"{self.num_embeddings}, {self.embedding_dim}, std={self.std:g}"


class RotaryEmbedding(LorentzModule):
    r"""Rotate the coordinate pairs (2k, 2k + 1) of the point at position i by the angle :math:`i\,\theta_k`.

    A rotation of the space part is an isometry, so positions move nothing off the manifold, and the distance of a
    query and a key depends on the difference of their positions only. :math:`\theta_k = base^{-2k / n}`.

    Args:
        embedding_dim: n, even: the width of a head.
        base: of the geometric series of frequencies.
        manifold: space of the points; by default curvature -1, fixed. The space part does not depend on it.

    Shapes: points (..., L, n) to points (..., L, n).

    Raises:
        ValueError: n is odd; in forward, the input has another width.

    Source: Su et al., RoFormer, arXiv:2104.09864, Eq. 15.
    """

    def __init__(self, embedding_dim: int, base: float = 10_000.0, *, manifold: Lorentz | None = None) -> None:
        super().__init__()
        check_even(embedding_dim)
        self.embedding_dim, self.base = embedding_dim, base
        self.manifold = manifold or Lorentz()

    def forward(self, input: Tensor, offset: int | Tensor = 0) -> Tensor:
        """Rotate points (..., L, n), the first of which is at position `offset`."""
        check_width(input, self.embedding_dim)
        wide = widen(input)
        angles = position_angles(wide, self.base, offset)
        cos, sin = angles.cos(), angles.sin()  # (L, n / 2)
        even, odd = wide[..., 0::2], wide[..., 1::2]
        turned = torch.stack([cos * even - sin * odd, sin * even + cos * odd], dim=-1)
        return turned.flatten(-2).to(input.dtype)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return f"{self.embedding_dim}, base={self.base:g}"


def check_even(n: int) -> None:
    """Raise ValueError unless coordinates can be paired."""
    if n <= 0 or n % 2:
        raise ValueError(f"expected an even embedding_dim, got {n}")


def position_angles(x: Tensor, base: float, offset: int | Tensor) -> Tensor:
    """Return (offset + i) base^(-2k / n) for the positions i of x (..., L, n): (L, n / 2), in the dtype of x."""
    length, n = x.shape[-2:]
    positions = torch.arange(length, device=x.device) + offset
    frequencies = base ** (-torch.arange(0, n, 2, device=x.device, dtype=x.dtype) / n)
    return positions.to(x.dtype).unsqueeze(-1) * frequencies

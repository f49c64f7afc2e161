"""Learnable isometries: rigid motions of the space, exact by construction, with exact inverses."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

import lorentz.functional as LF
from lorentz._precision import full_precision, sinhc, sqrt0, widen
from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule, check_width


class _Invertible(Protocol):
    def __call__(self, input: Tensor) -> Tensor: ...

    def undo(self, input: Tensor) -> Tensor: ...


class Boost(LorentzModule):
    r"""Boost by velocity :math:`u = \tanh(t)\,p / t`, with p the rapidity and t its length: `LF.boost(x, u, c)`.

    Evaluated through p, as :math:`x + \bigl(\frac{\cosh t - 1}{t^2} (x \cdot p) - \frac{\sinh t}{t} x_0\bigr) p`,
    smooth at p = 0 and exact where the velocity rounds to that of light. The origin moves by :math:`t / \sqrt c`.

    Args:
        num_features: width n of the points.
        manifold: space of input and output; by default curvature -1, fixed.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., n) to points (..., n).

    Parameters: `rapidity` p (n), zero at the start: the identity.

    Raises:
        ValueError: in forward, the input has another width.

    Source: Chen et al., ACL 2022, Definition of the Lorentz boost.
    """

    def __init__(
        self,
        num_features: int,
        *,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.manifold = manifold or Lorentz()
        self.rapidity = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Become the identity."""
        nn.init.zeros_(self.rapidity)

    @property
    def velocity(self) -> Tensor:
        """The velocity u, (n), shorter than 1 up to rounding, in float32 or better."""
        p = widen(self.rapidity)
        t = sqrt0((p * p).sum())
        return p * torch.where(t == 0, 1.0, t.tanh() / torch.where(t == 0, 1.0, t))

    def forward(self, input: Tensor) -> Tensor:
        """Boost points (..., n)."""
        return self._boost(input, widen(self.rapidity))

    def undo(self, input: Tensor) -> Tensor:
        """Boost points (..., n) by -u."""
        return self._boost(input, -widen(self.rapidity))

    def inverse(self) -> Inverse:
        """Return the inverse as a module that shares the parameters."""
        return Inverse(self, self.manifold)

    def _boost(self, x: Tensor, p: Tensor) -> Tensor:
        check_width(x, self.num_features)
        wide, squared = widen(x), (p * p).sum()
        half, along = sinhc(squared / 4), (wide * p).sum(-1, keepdim=True)
        x0 = LF.time(x, self.manifold.c, keepdim=True)
        return (wide + (half * half / 2 * along - sinhc(squared) * x0) * p).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return f"num_features={self.num_features}"


class Rotation(LorentzModule):
    r"""Rotation R x about the origin, :math:`R = \exp(A - A^T)` with A strictly upper triangular: all of SO(n).

    The product is formed in float32 or better also under autocast. Distances do not depend on `manifold`.

    Args:
        num_features: width n of the points.
        manifold: space of input and output; by default curvature -1, fixed.
        device: as in torch.
        dtype: as in torch.

    Shapes: points (..., n) to points (..., n).

    Parameters: `angles` (n (n - 1) / 2), the entries of A by rows, zero at the start: the identity.

    Raises:
        ValueError: in forward, the input has another width.

    Source: Chen et al., ACL 2022, Definition of the Lorentz rotation.
    """

    def __init__(
        self,
        num_features: int,
        *,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.manifold = manifold or Lorentz()
        pairs = num_features * (num_features - 1) // 2
        self.angles = nn.Parameter(torch.zeros(pairs, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Become the identity."""
        nn.init.zeros_(self.angles)

    @property
    def matrix(self) -> Tensor:
        """The matrix R, (n, n), in float32 or better."""
        n, angles = self.num_features, widen(self.angles)
        rows, columns = torch.triu_indices(n, n, offset=1, device=angles.device)
        a = angles.new_zeros(n, n).index_put((rows, columns), angles)
        with full_precision(angles.device):
            return torch.linalg.matrix_exp(a - a.mT)

    def forward(self, input: Tensor) -> Tensor:
        """Rotate points (..., n)."""
        return self._rotate(input, self.matrix)

    def undo(self, input: Tensor) -> Tensor:
        """Rotate points (..., n) back."""
        return self._rotate(input, self.matrix.mT)

    def inverse(self) -> Inverse:
        """Return the inverse as a module that shares the parameters."""
        return Inverse(self, self.manifold)

    def _rotate(self, x: Tensor, matrix: Tensor) -> Tensor:
        check_width(x, self.num_features)
        with full_precision(x.device):
            return LF.rotate(widen(x), matrix).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor."""
        return f"num_features={self.num_features}"


class Isometry(LorentzModule):
    """Boost after rotation: every isometry that keeps the orientation, by polar decomposition.

    Args, shapes and errors as in `Boost`.

    Parameters: those of the children `rotation` and `boost`; the identity at the start.

    Source: Moretti, The interplay of the polar decomposition theorem and the Lorentz group, 2002; Chen et al.,
    ACL 2022.
    """

    def __init__(
        self,
        num_features: int,
        *,
        manifold: Lorentz | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.manifold = manifold or Lorentz()
        self.rotation = Rotation(num_features, manifold=self.manifold, device=device, dtype=dtype)
        self.boost = Boost(num_features, manifold=self.manifold, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Become the identity."""
        self.rotation.reset_parameters()
        self.boost.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """Rotate, then boost points (..., n)."""
        return self.boost(self.rotation(input))

    def undo(self, input: Tensor) -> Tensor:
        """Boost points (..., n) back, then rotate them back."""
        return self.rotation.undo(self.boost.undo(input))

    def inverse(self) -> Inverse:
        """Return the inverse as a module that shares the parameters."""
        return Inverse(self, self.manifold)


class Inverse(LorentzModule):
    """The inverse of an isometry. It holds the isometry itself, so both learn together.

    Args:
        isometry: a `Boost`, `Rotation` or `Isometry`, or anything else with `undo`.
        manifold: space of input and output; by default curvature -1, fixed.

    Shapes: points (..., n) to points (..., n).
    """

    isometry: _Invertible

    def __init__(self, isometry: _Invertible, manifold: Lorentz | None = None) -> None:
        super().__init__()
        self.isometry = isometry
        self.manifold = manifold or Lorentz()

    def forward(self, input: Tensor) -> Tensor:
        """Undo the isometry on points (..., n)."""
        return self.isometry.undo(input)

    def undo(self, input: Tensor) -> Tensor:
        """Apply the isometry to points (..., n)."""
        return self.isometry(input)

    def inverse(self) -> _Invertible:
        """Return the isometry."""
        return self.isometry

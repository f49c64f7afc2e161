"""Activations and dropout on the space part; the time follows, so every output is a point.

The space part of the output does not depend on `manifold`; its time does.
"""

from __future__ import annotations

from torch import nn

from lorentz.manifold import Lorentz
from lorentz.nn.module import LorentzModule


class ReLU(LorentzModule, nn.ReLU):
    """`torch.nn.ReLU` of the space part: (..., n) to (..., n)."""

    def __init__(self, inplace: bool = False, *, manifold: Lorentz | None = None) -> None:
        super().__init__(inplace)
        self.manifold = manifold or Lorentz()


class GELU(LorentzModule, nn.GELU):
    """`torch.nn.GELU` of the space part: (..., n) to (..., n)."""

    def __init__(self, approximate: str = "none", *, manifold: Lorentz | None = None) -> None:
        super().__init__(approximate)
        self.manifold = manifold or Lorentz()


class SiLU(LorentzModule, nn.SiLU):
    """`torch.nn.SiLU` of the space part: (..., n) to (..., n)."""

    def __init__(self, inplace: bool = False, *, manifold: Lorentz | None = None) -> None:
        super().__init__(inplace)
        self.manifold = manifold or Lorentz()


class Tanh(LorentzModule, nn.Tanh):
    """`torch.nn.Tanh` of the space part: (..., n) to (..., n)."""

    def __init__(self, *, manifold: Lorentz | None = None) -> None:
        super().__init__()
        self.manifold = manifold or Lorentz()


class Dropout(LorentzModule, nn.Dropout):
    """`torch.nn.Dropout` of the space part: coordinates that are dropped leave a point of a smaller space."""

    def __init__(self, p: float = 0.5, inplace: bool = False, *, manifold: Lorentz | None = None) -> None:
        super().__init__(p, inplace)
        self.manifold = manifold or Lorentz()

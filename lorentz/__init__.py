"""Fully hyperbolic neural-network layers in the Lorentz model (arXiv:2105.14686)."""

from lorentz import functional
from lorentz.functional import from_ambient, to_ambient
from lorentz.manifold import Lorentz

__all__ = ["Lorentz", "from_ambient", "functional", "to_ambient"]

"""Fully hyperbolic neural-network layers in the Lorentz model (arXiv:2105.14686)."""

from lorentz import functional, nn, optim
from lorentz.convert import convert
from lorentz.functional import from_ambient, to_ambient
from lorentz.manifold import Lorentz

__all__ = ["Lorentz", "convert", "from_ambient", "functional", "nn", "optim", "to_ambient"]

"""Directions of a linear map brought to lengths that a second one gates: `gated_linear`."""

from lorentz_kernels.gated_linear.naive import Map, Radius
from lorentz_kernels.gated_linear.op import gated_linear

__all__ = ["Map", "Radius", "gated_linear"]

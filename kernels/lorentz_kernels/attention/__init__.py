"""Lorentz attention: centroids under a softmax of squared Lorentzian distances."""

from lorentz_kernels.attention.naive import at_one_radius
from lorentz_kernels.attention.op import attention

__all__ = ["at_one_radius", "attention"]

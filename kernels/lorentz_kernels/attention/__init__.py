"""Lorentz attention: centroids under a softmax of squared Lorentzian distances."""

from lorentz_kernels.attention.op import attention

__all__ = ["attention"]

"""Multi-head attention with its linear maps: for autograd one function."""

from lorentz_kernels.gated_linear.naive import Map
from lorentz_kernels.multihead.naive import Heads
from lorentz_kernels.multihead.op import multihead, plan

__all__ = ["Heads", "Map", "multihead", "plan"]

"""The linear map of ambient coordinates whose time is derived: `linear`."""

from lorentz_kernels.linear.op import linear

__all__ = ["linear"]

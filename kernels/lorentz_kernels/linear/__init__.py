"""The linear map of ambient coordinates whose time is derived: `linear`, and `linear_with_time` of its result."""

from lorentz_kernels.linear.op import linear, linear_with_time

__all__ = ["linear", "linear_with_time"]

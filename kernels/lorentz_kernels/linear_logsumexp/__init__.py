"""Log-partition over a large table: `linear_logsumexp` and `linear_logsumexp_mean`."""

from lorentz_kernels.linear_logsumexp.op import linear_logsumexp, linear_logsumexp_mean

__all__ = ["linear_logsumexp", "linear_logsumexp_mean"]

"""Log-partition over a large table, of Euclidean and Lorentzian scores, and the mean of the table under its softmax."""

from lorentz_kernels.linear_logsumexp.functions import (
    linear_logsumexp,
    linear_logsumexp_mean,
    lorentz_logsumexp,
    lorentz_logsumexp_mean,
)

__all__ = ["linear_logsumexp", "linear_logsumexp_mean", "lorentz_logsumexp", "lorentz_logsumexp_mean"]

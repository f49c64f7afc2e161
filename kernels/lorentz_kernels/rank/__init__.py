"""Ranks of targets among the rows of a table: how many score above, and how many score the same."""

from lorentz_kernels.rank.op import linear_rank, lorentz_rank

__all__ = ["linear_rank", "lorentz_rank"]

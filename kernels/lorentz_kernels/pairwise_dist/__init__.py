"""Distances of every pair of points, without cancellation and without a number for each pair and coordinate."""

from lorentz_kernels.pairwise_dist.op import pairwise_dist, pairwise_sqdist

__all__ = ["pairwise_dist", "pairwise_sqdist"]

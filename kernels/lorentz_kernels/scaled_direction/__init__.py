"""Vectors brought to a given length: `scaled_direction`."""

from lorentz_kernels.scaled_direction.op import scaled_direction

__all__ = ["scaled_direction"]

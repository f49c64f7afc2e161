"""Directions of vectors that may be zero."""

from __future__ import annotations

from lorentz_kernels.scaled_direction.naive import unit as unit

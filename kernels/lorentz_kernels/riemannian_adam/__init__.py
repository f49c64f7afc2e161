"""One step of Riemannian Adam on rows of points: `adam_step`, and `adam_step_` in place."""

from lorentz_kernels.riemannian_adam.naive import adam_step
from lorentz_kernels.riemannian_adam.op import adam_step_

__all__ = ["adam_step", "adam_step_"]

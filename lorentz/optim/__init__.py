"""Optimisers for points and Euclidean parameters together.

Every tensor of finite numbers is a point of the chart, so any optimiser of torch stays on the manifold; those here also
measure gradients, steps and momentum with its metric, which makes them independent of the frame of reference.
"""

from lorentz.optim._groups import param_groups
from lorentz.optim._rows import sgd_step
from lorentz.optim.adam import RiemannianAdam
from lorentz.optim.sgd import RiemannianSGD
from lorentz_kernels.riemannian_adam import adam_step

__all__ = ["RiemannianAdam", "RiemannianSGD", "adam_step", "param_groups", "sgd_step"]

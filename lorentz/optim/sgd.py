"""Riemannian gradient descent on points, torch's on everything else."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd

from lorentz.optim._base import PointOptimizer, euclidean_of, moving, points_of
from lorentz.optim._rows import sgd_step
from lorentz_kernels.riemannian_adam.in_place import replace


class RiemannianSGD(PointOptimizer):
    """Gradient descent for points, and `torch.optim.SGD` for the Euclidean parameters beside them.

    Points move by `sgd_step`. Take the groups from `param_groups(model)`; a `geoopt.ManifoldParameter` is a point in
    any group. Sparse gradients move the points that they touch, and the momentum of those only.

    Args:
        params: parameters or groups, as for torch's optimisers.
        lr: learning rate.
        momentum: decay of the momentum.
        dampening: what new gradients lose in the momentum.
        weight_decay: added to the gradient as in `torch.optim.SGD`, for Euclidean parameters; points have none.
        nesterov: look ahead; needs momentum without dampening.
        maximize: go up.

    Raises:
        ValueError: an option is out of range, or points are not in float32 or float64.

    Source: Bonnabel, Stochastic Gradient Descent on Riemannian Manifolds, IEEE TAC 2013.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        for name, value in options.items():
            if not value >= 0:
                raise ValueError(f"expected {name} >= 0, got {value}")
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError(f"expected momentum > 0 and dampening = 0 with nesterov, got {momentum} and {dampening}")
        super().__init__(params, {**options, "dampening": dampening, "nesterov": nesterov, "maximize": maximize})

    def _step_points(self, group: dict[str, Any]) -> None:
        for p, grad, c in points_of(group):
            options = {name: group[name] for name in ("lr", "momentum", "dampening", "nesterov")}
            momentum = []
            if group["momentum"]:
                state = self.state[p]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                    options["dampening"] = 0  # as in torch, the first gradient counts in full
                momentum = [state["momentum_buffer"]]
            rule = partial(sgd_step, c=c, **options)
            touched = moving(p, grad, *momentum)
            replace(rule, touched.grad, *touched.targets, rows=touched.rows)

    def _step_euclidean(self, group: dict[str, Any]) -> None:
        euclidean = euclidean_of(group)
        momenta = [self.state[p].get("momentum_buffer") if group["momentum"] else None for p, _ in euclidean]
        sgd(
            [p for p, _ in euclidean],
            [grad for _, grad in euclidean],
            momenta,
            has_sparse_grad=any(grad.is_sparse for _, grad in euclidean),
            **{name: group[name] for name in ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")},
        )
        if group["momentum"]:
            for (p, _), momentum in zip(euclidean, momenta, strict=True):
                self.state[p]["momentum_buffer"] = momentum

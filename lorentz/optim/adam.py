"""Riemannian Adam on points, AdamW on everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim._functional import sparse_adam
from torch.optim.adamw import adamw
from torch.optim.optimizer import ParamsT

from lorentz.optim._base import PointOptimizer, euclidean_of, moving, points_of
from lorentz_kernels.riemannian_adam import adam_step_


class RiemannianAdam(PointOptimizer):
    """Adam for points, each measured as one vector, and `torch.optim.AdamW` for the Euclidean parameters beside them.

    Points move by `adam_step`: they keep one second moment each, the mean square of the Riemannian length, where Adam
    has one for each coordinate. Take the groups from `param_groups(model)`; a `geoopt.ManifoldParameter` is a point in
    any group. Sparse gradients move the rows that they touch, and the moments of those only, as in
    `torch.optim.SparseAdam`, which is also what happens to Euclidean parameters with such gradients.

    Args:
        params: parameters or groups, as for torch's optimisers.
        lr: learning rate: the length of a step while gradients are steady.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled, for Euclidean parameters; points have none.
        amsgrad: divide by the largest second moment so far.
        maximize: go up.

    Raises:
        ValueError: an option is out of range, or points are not in float32 or float64.

    Source: Becigneul and Ganea, Riemannian Adaptive Optimization Methods, ICLR 2019.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"expected lr >= 0, got {lr}")
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise ValueError(f"expected betas in [0, 1), got {betas}")
        if not eps >= 0:
            raise ValueError(f"expected eps >= 0, got {eps}")
        if not weight_decay >= 0:
            raise ValueError(f"expected weight_decay >= 0, got {weight_decay}")
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "amsgrad": amsgrad, "maximize": maximize})

    def _step_points(self, group: dict[str, Any]) -> None:
        for p, grad, c in points_of(group):
            state = self._state_of(p, group, p[..., :1])
            touched = moving(p, grad, *(state[name] for name in _moments(group)))
            x, w, v, *largest = touched.targets
            options = {name: group[name] for name in ("lr", "betas", "eps")}
            v_max = largest[0] if largest else None
            adam_step_(x, touched.grad, w, v, _count(state["step"]), c=c, v_max=v_max, rows=touched.rows, **options)

    def _step_euclidean(self, group: dict[str, Any]) -> None:
        euclidean = euclidean_of(group)
        dense = [(p, grad) for p, grad in euclidean if not grad.is_sparse]
        states = [self._state_of(p, group, p) for p, _ in dense]
        beta1, beta2 = group["betas"]
        adamw(
            [p for p, _ in dense],
            [grad for _, grad in dense],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
            [state["step"] for state in states],
            has_complex=any(p.is_complex() for p, _ in dense),
            beta1=beta1,
            beta2=beta2,
            **{name: group[name] for name in ("amsgrad", "lr", "weight_decay", "eps", "maximize")},
        )
        for p, grad in euclidean:
            if grad.is_sparse:
                self._step_sparse(p, grad, group)

    def _step_sparse(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if group["weight_decay"] != 0 or group["amsgrad"]:
            raise ValueError(
                f"expected weight_decay=0 and amsgrad=False for the sparse gradient of a parameter {tuple(p.shape)}, "
                f"got {group['weight_decay']} and {group['amsgrad']}: give it a group of its own"
            )
        state = self._state_of(p, group, p)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        sparse_adam(
            [p],
            [grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [int(state["step"])],
            eps=group["eps"],
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            maximize=group["maximize"],
        )

    def _state_of(self, p: Tensor, group: dict[str, Any], square: Tensor) -> dict[str, Any]:
        """Return the state of p, made with second moments like `square` where there is none."""
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
            state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            for name in _moments(group)[1:]:
                state[name] = torch.zeros_like(square, memory_format=torch.preserve_format)
        return state


def _moments(group: dict[str, Any]) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg", "exp_avg_sq")


def _count(step: Tensor) -> float | Tensor:
    """Advance the counter; return it as a number, or, where each would be compiled anew, as the tensor."""
    step += 1
    return step if torch.compiler.is_compiling() else step.item()

"""What the optimisers of points share: groups and their checks, touched rows, the state as torch keeps it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import geoopt
import torch
from torch import Tensor

from lorentz._precision import Curvature
from lorentz.manifold import Lorentz
from lorentz.optim._groups import manifold_of


class PointOptimizer(torch.optim.Optimizer, ABC):
    """An optimiser whose groups can have a manifold: the key "manifold" of the group, or geoopt's of a parameter."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; with the key "manifold" its parameters are points of that `lorentz.Lorentz`.

        Raises:
            ValueError: points that are not rows of float32 or float64 numbers, or that have weight decay, or that
                lie on another manifold.
        """
        param_group = {"manifold": None, **param_group}
        params, manifold = param_group["params"], param_group["manifold"]
        if not isinstance(params, Tensor | set):
            params = param_group["params"] = list(params)
        if manifold is not None and not isinstance(manifold, Lorentz):
            raise ValueError(f"expected a lorentz.Lorentz as the manifold of a group, got {manifold!r}")
        if manifold is not None and param_group.setdefault("weight_decay", 0) != 0:
            raise ValueError(
                f"expected weight_decay=0 for points, got {param_group['weight_decay']}: "
                "to draw them to the origin, add lorentz.functional.dist0 to the loss"
            )
        for entry in [params] if isinstance(params, Tensor) else params:
            p = entry[1] if isinstance(entry, tuple) else entry
            if isinstance(p, Tensor) and (manifold is not None or manifold_of(p) is not None):
                check_points(p)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return what `closure`, called first with gradients enabled, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Points first, so that all of them move in the curvature that their gradients were taken in.
        for group in self.param_groups:
            self._step_points(group)
        for group in self.param_groups:
            self._step_euclidean(group)
        return loss

    @abstractmethod
    def _step_points(self, group: dict[str, Any]) -> None:
        """Move the points of a group."""

    @abstractmethod
    def _step_euclidean(self, group: dict[str, Any]) -> None:
        """Move the Euclidean parameters of a group."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as torch does: tensors and numbers, no manifold, which belongs to the model."""
        state = super().state_dict()
        for group in state["param_groups"]:
            group.pop("manifold", None)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state as torch does; the manifolds stay those of this optimiser's groups."""
        manifolds = [group["manifold"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, manifold in zip(self.param_groups, manifolds, strict=True):
            group["manifold"] = manifold


def check_points(p: Tensor) -> None:
    """Raise ValueError unless p can hold points and their moments."""
    if p.ndim == 0 or p.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"expected points (..., n) in float32 or float64, got {p.dtype} of shape {tuple(p.shape)}: "
            "keep parameters in float32 and compute in 16 bits under torch.autocast"
        )
    if any(shard.is_shard(p.ndim - 1) for shard in getattr(p, "placements", ())):
        raise ValueError(
            f"expected points whose rows are whole, got shape {tuple(p.shape)} sharded over the space coordinates: "
            "shard another dimension"
        )


def points_of(group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor, Curvature]]:
    """Yield the points of a group that have a gradient, the gradient to go down, and the curvature."""
    for p in group["params"]:
        manifold = group["manifold"] if group["manifold"] is not None else manifold_of(p)
        if p.grad is not None and manifold is not None:
            check_points(p)
            yield p, -p.grad if group["maximize"] else p.grad, _curvature_for(p, manifold)


def euclidean_of(group: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """Return the Euclidean parameters of a group that have a gradient, with it."""
    params = [] if group["manifold"] is not None else group["params"]
    return [(p, p.grad) for p in params if p.grad is not None and manifold_of(p) is None]


def _curvature_for(p: Tensor, manifold: Lorentz) -> Curvature:
    """Return c as a constant on the device and in the dtype of p."""
    c: Any = manifold.c
    if not isinstance(c, Tensor):
        return float(c)
    whole: Any = c.detach()
    return (whole.full_tensor() if hasattr(whole, "full_tensor") else whole).to(_local(p))


class Moving(NamedTuple):
    """What a step reads and writes: plain tensors on the memory of a parameter and its state."""

    grad: Tensor
    targets: list[Tensor]  # the points, then their state
    rows: tuple[Tensor, ...] | None  # indices of the rows that grad is of; none for all


def moving(p: Tensor, grad: Tensor, *state: Tensor) -> Moving:
    """Return the rows of p that the gradient touches, with the numbers that this process holds.

    Raises:
        ValueError: a sparse gradient cuts rows apart.
    """
    grad, targets = _local(grad), [_local(t) for t in (p, *state)]
    if not grad.is_sparse:
        return Moving(grad, targets, None)
    if grad.dense_dim() == 0:
        raise ValueError(
            f"expected a gradient that is sparse in rows, got one of shape {tuple(grad.shape)} sparse in all"
        )
    grad = grad.coalesce()
    return Moving(grad.values(), targets, tuple(grad.indices()))


def _local(tensor: Any) -> Tensor:
    """Return the numbers that this process holds, as a plain tensor on the same memory."""
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        return tensor.to_local()
    return tensor.as_subclass(Tensor) if isinstance(tensor, geoopt.ManifoldTensor) else tensor

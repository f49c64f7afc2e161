"""Which parameters are points, and on which manifold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import geoopt
from torch import Tensor
from torch.nn import Module, Parameter

from lorentz.manifold import Lorentz


def param_groups(model: Module, **defaults: Any) -> list[dict[str, Any]]:
    """Return the parameters of a model as the groups of an optimiser: points by manifold, Euclidean ones, biases.

    Points are found through the modules that own them, by their method `points()`, which yields pairs
    (parameter, manifold), and so also after FSDP2 has replaced the parameters; a `geoopt.ManifoldParameter` on a
    `lorentz.Lorentz` is a point as well. A parameter that several modules share appears once.

    Args:
        model: the model, also compiled or wrapped for parallel training.
        defaults: options for every group, for instance `lr`; `weight_decay` goes to Euclidean matrices only, not to
            points, nor to biases and other vectors, a learnable curvature among them.

    Returns:
        Groups for `RiemannianAdam` and `RiemannianSGD`: those of points first, with the key "manifold".

    Raises:
        TypeError: a method `points` yields something else.
        ValueError: one parameter is a point of two manifolds.
    """
    manifolds = _points(model)
    points: dict[Any, dict[str, Any]] = {}
    matrices: list[Tensor] = []
    vectors: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter in manifolds:
            manifold = manifolds[parameter]
            group = {"params": [], **defaults, "weight_decay": 0, "manifold": manifold}
            points.setdefault(_key(manifold), group)["params"].append(parameter)
        elif parameter.ndim < 2 or "bias" in name.rpartition(".")[2]:
            vectors.append(parameter)
        else:
            matrices.append(parameter)
    euclidean = [{"params": matrices, **defaults}, {"params": vectors, **defaults, "weight_decay": 0}]
    return [*points.values(), *(group for group in euclidean if group["params"])]


def manifold_of(parameter: Tensor) -> Lorentz | None:
    """Return the manifold of a `geoopt.ManifoldParameter`, or None for a Euclidean parameter.

    Raises:
        ValueError: the manifold is another than `lorentz.Lorentz`.
    """
    manifold = getattr(parameter, "manifold", None) if isinstance(parameter, geoopt.ManifoldTensor) else None
    if manifold is None or isinstance(manifold, Lorentz | geoopt.Euclidean):
        return manifold if isinstance(manifold, Lorentz) else None
    raise ValueError(f"expected points of a lorentz.Lorentz, got points of {manifold}: use geoopt.optim for those")


def _points(model: Module) -> dict[Tensor, Lorentz]:
    found: dict[Tensor, Lorentz] = {}
    for parameter, manifold in _pairs(model):
        if _key(found.setdefault(parameter, manifold)) != _key(manifold):
            raise ValueError(
                f"expected one manifold for a shared parameter of shape {tuple(parameter.shape)}, "
                f"got {found[parameter]} and {manifold}: give the modules that share it the same manifold"
            )
    return found


def _pairs(model: Module) -> Iterator[tuple[Parameter, Lorentz]]:
    for module in model.modules():
        owns = getattr(module, "points", None)
        for pair in owns() if callable(owns) else ():
            if not (isinstance(pair, tuple) and [*map(isinstance, pair, (Tensor, Lorentz))] == [True, True]):
                raise TypeError(
                    f"expected {type(module).__name__}.points() to yield (parameter, lorentz.Lorentz), got {pair!r:.80}"
                )
            yield pair
        for parameter in module.parameters(recurse=False):
            manifold = manifold_of(parameter)
            if manifold is not None:
                yield parameter, manifold


def _key(manifold: Lorentz) -> object:
    """Equal for manifolds that are always the same: learnable ones are themselves, fixed ones their curvature."""
    return manifold if manifold.learnable else manifold.c

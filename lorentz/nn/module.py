"""What the modules of `lorentz.nn` have in common: a manifold, the checkpoints of the torch twin, a one-line repr."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lorentz.manifold import Lorentz


@runtime_checkable
class PointOwner(Protocol):
    """A module some of whose own parameters are points: `lorentz.optim.param_groups` asks it which."""

    def points(self) -> Iterator[tuple[nn.Parameter, Lorentz]]:
        """Yield each parameter of this module, not of its children, whose rows are points, and their manifold."""
        ...


class LorentzModule(nn.Module):
    """Base of the layers. A subclass sets `manifold`; a learnable one may be shared and is then one parameter.

    Checkpoints of the torch twin load, also with `strict=True`: parameters named in `absent_in_twin` become zero, at
    which the layer is its twin, and a learnable curvature keeps its value.
    """

    manifold: Lorentz
    absent_in_twin: ClassVar[tuple[str, ...]] = ()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if isinstance(weight, Tensor):
            for name in self.absent_in_twin:
                zero = torch.zeros_like(self.get_parameter(name), device=weight.device, dtype=weight.dtype)
                state_dict.setdefault(prefix + name, zero)
        for name, child in self.named_children():
            if isinstance(child, Lorentz) and child.learnable:
                state_dict.setdefault(f"{prefix}{name}.log_c", child.log_c.detach())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __repr__(self) -> str:
        """Return the arguments on one line, as torch's layers do, and the manifolds that are not the default."""
        manifolds = {name: child for name, child in self.named_children() if isinstance(child, Lorentz)}
        if len(manifolds) < len(list(self.named_children())):
            return super().__repr__()
        shown = [f"{name}=Lorentz({m.extra_repr()})" for name, m in manifolds.items() if m.learnable or m.c != 1]
        return f"{self._get_name()}({', '.join(filter(None, [self.extra_repr(), *shown]))})"


def check_width(x: Tensor, n: int) -> None:
    """Raise ValueError unless x has n space coordinates, with a hint where it has n + 1."""
    if x.shape[-1] != n:
        hint = ": did you pass ambient points? use lorentz.from_ambient(x)" if x.shape[-1] == n + 1 else ""
        raise ValueError(f"expected space coordinates (..., {n}), got (..., {x.shape[-1]}){hint}")

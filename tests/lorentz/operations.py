"""Every function of `lorentz.functional` with operands for it: the table that the tests of the machinery run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import lorentz.functional as LF


@dataclass(frozen=True)
class Operation:
    """A function of tensors and c. `kinds` names the operands, one letter each; `result` is what comes out."""

    name: str
    kinds: str
    result: str  # "point" keeps the dtype of the input, "scalar" comes in float32 or better
    call: Callable[..., Tensor]

    def __call__(self, *arguments: Tensor | float) -> Tensor:
        return self.call(*arguments)

    def __str__(self) -> str:
        return self.name


def _isometry_inverse(u: Tensor, r: Tensor, c: object) -> Tensor:
    velocity, rotation = LF.isometry_inverse(u, r)
    return torch.cat([velocity.unsqueeze(-2), rotation], dim=-2)


def _attention(x: Tensor, y: Tensor, z: Tensor, c: Tensor | float) -> Tensor:
    # torch's fused implementations, which lack some derivatives, take four dimensions.
    return LF.attention(x[None, None], y[None, None], z[None, None], c=c)[0, 0]


def _segment_centroid(x: Tensor, w: Tensor, c: Tensor | float) -> Tensor:
    return LF.segment_centroid(x, torch.tensor([2, 0, 2], device=x.device), 4, w, c)


def _segment_softmax(x: Tensor, c: object) -> Tensor:
    return LF.segment_softmax(x, torch.tensor([1, 3, 1, 1], device=x.device), 4)


# x, y, z: points (3, 4). v: vectors (3, 4). u: a velocity (4). r: a rotation (4, 4). w: weights (3). t: fractions (3).
# m: a matrix (5, 4). b: a bias (5). p: points of a ball (3, 4).
OPERATIONS = [
    Operation("time", "x", "scalar", LF.time),
    Operation("inner", "xy", "scalar", LF.inner),
    Operation("sqdist", "xy", "scalar", LF.sqdist),
    Operation("dist", "xy", "scalar", LF.dist),
    Operation("dist0", "x", "scalar", LF.dist0),
    Operation("pairwise_inner", "xy", "scalar", LF.pairwise_inner),
    Operation("pairwise_sqdist", "xy", "scalar", LF.pairwise_sqdist),
    Operation("pairwise_dist", "xy", "scalar", LF.pairwise_dist),
    Operation("norm", "xv", "scalar", LF.norm),
    Operation("egrad2rgrad", "xv", "point", LF.egrad2rgrad),
    Operation("expmap", "xv", "point", LF.expmap),
    Operation("logmap", "xy", "point", LF.logmap),
    Operation("expmap0", "v", "point", LF.expmap0),
    Operation("logmap0", "x", "point", LF.logmap0),
    Operation("transp", "xyv", "point", LF.transp),
    Operation("transp0", "yv", "point", LF.transp0),
    Operation("geodesic", "txy", "point", LF.geodesic),
    Operation("half_aperture", "x", "scalar", lambda x, c: LF.half_aperture(x, 0.1, c)),
    Operation("exterior_angle", "xy", "scalar", LF.exterior_angle),
    Operation("centroid", "xw", "point", LF.centroid),
    Operation("segment_centroid", "xw", "point", _segment_centroid),
    Operation("segment_softmax", "x", "scalar", _segment_softmax),
    Operation("boost", "xu", "point", lambda x, u, c: LF.boost(x, u, c)),
    Operation("rotate", "xr", "point", lambda x, r, c: LF.rotate(x, r)),
    Operation("isometry_inverse", "ur", "point", _isometry_inverse),
    Operation("split_heads", "x", "point", lambda x, c: LF.split_heads(x, 2)),
    Operation("merge_heads", "x", "point", lambda x, c: LF.merge_heads(x.unflatten(-1, (2, 2)).transpose(-2, -3))),
    Operation("to_ambient", "x", "scalar", LF.to_ambient),
    Operation("from_ambient", "x", "scalar", lambda x, c: LF.from_ambient(LF.to_ambient(x, c), c)),
    Operation("to_poincare", "x", "point", LF.to_poincare),
    Operation("from_poincare", "p", "point", LF.from_poincare),
    Operation("to_klein", "x", "point", LF.to_klein),
    Operation("from_klein", "p", "point", LF.from_klein),
    Operation("linear", "xmbb", "point", LF.linear),
    Operation("attention", "xyz", "point", _attention),
    Operation(
        "wrapped_normal",
        "xv",
        "point",
        lambda x, v, c: LF.wrapped_normal(x, v.abs(), c, generator=torch.Generator().manual_seed(0)),
    ),
]


def operands(operation: Operation, dtype: torch.dtype, batch: int = 2) -> list[Tensor]:
    """Tensors of the operation's kinds with a leading batch dimension, the same on every call."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)

    kinds = {
        "r": lambda: torch.linalg.qr(normal(4, 4)).Q,
        "u": lambda: 0.2 * normal(4),
        "p": lambda: 0.008 * normal(3, 4),  # the ball of curvature -1000 has radius 0.03
        "w": lambda: normal(3).exp(),
        "t": lambda: normal(3),
        "m": lambda: normal(5, 4),
        "b": lambda: normal(5),
    }
    return [kinds.get(kind, lambda: normal(3, 4))().to(dtype) for kind in operation.kinds]

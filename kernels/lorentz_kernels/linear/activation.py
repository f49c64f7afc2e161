"""The functions that follow a linear map coordinate by coordinate, their derivatives, and what these are read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}
FROM_OUTPUT = ("", "relu", "tanh")
"""Those, "" being none, of which the backward needs the output; of the others, what came in."""


class Epilogue(NamedTuple):
    """What the backward knows of the end of the map."""

    activation: str
    kept: Tensor | None  # (N, out), output or input of the activation; none where neither is needed
    y0: Tensor | None  # (N, 1), time of the output, where it was asked for
    to_y0: Tensor | None  # (N, 1), its gradient


def check(name: str | None) -> str:
    """Return the name, "" for none.

    Raises:
        ValueError: there is no such activation.
    """
    if name is not None and name not in ACTIVATIONS:
        raise ValueError(f"expected an activation of {', '.join(ACTIVATIONS)}, or none, got {name!r}")
    return name or ""


def apply(name: str, y: Tensor) -> Tensor:
    """Return the activation of y, y itself without a name."""
    return ACTIVATIONS[name](y) if name else y


def gradient(grad: Tensor, epilogue: Epilogue) -> Tensor:
    """Return the gradient before the epilogue, (N, out), from that of the output."""
    name, kept, y0, to_y0 = epilogue
    if kept is None:
        return grad
    if y0 is not None and to_y0 is not None:
        output = kept if name in FROM_OUTPUT else apply(name, kept)
        grad = torch.addcmul(grad.to(y0.dtype), output.to(y0.dtype), to_y0 / y0).to(grad.dtype)
    if name == "relu":
        return torch.ops.aten.threshold_backward(grad, kept, 0)
    if name == "tanh":
        return torch.ops.aten.tanh_backward(grad, kept)
    if name == "gelu":
        return torch.ops.aten.gelu_backward(grad, kept)
    return torch.ops.aten.silu_backward(grad, kept) if name == "silu" else grad

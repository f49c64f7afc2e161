"""`gated_linear` for callers: on a CPU one function for both maps, elsewhere `linear` twice and `scaled_direction`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.dispatch import choose, composes
from lorentz_kernels.gated_linear import closed, naive
from lorentz_kernels.gated_linear.naive import Map, Radius
from lorentz_kernels.linear import linear
from lorentz_kernels.linear.naive import Curvature
from lorentz_kernels.precision import widen
from lorentz_kernels.scaled_direction import scaled_direction


def gated_linear(
    x: Tensor, direction: Map, gate: Map, radius: Radius, c: Curvature = 1.0, *parameters: float | Tensor
) -> Tensor:
    """Return r z / |z| for z = W x + w_t x0 + b and r = radius(v.x + w x0 + b', c, ...); a zero z stays zero.

    On a CPU in float32 the backward reads the result, which must not be changed in place.

    Args:
        x: points, (..., in).
        direction: W (out, in), w_t (out), b (out) or none.
        gate: v (1, in), w (1), b' (1) or none.
        radius: function of the logit (..., 1), c and the parameters, in torch's operators, by row; at least 0.
        c: the curvature is -c: a float, or a tensor that broadcasts to (..., 1).
        parameters: what else the radius depends on, floats or tensors of one number.

    Returns:
        (..., out) in the dtype of `linear`, differentiable in all tensors, at any order and in forward mode.

    Raises:
        ValueError: the shapes do not fit.
    """
    tensors = [t for t in (x, *direction, *gate, c, *parameters) if isinstance(t, Tensor)]
    if not _whole(x, tensors, [t for t in (c, *parameters) if isinstance(t, Tensor)]):
        length = radius(widen(linear(x, *gate, c)), c, *parameters)
        return scaled_direction(linear(x, *direction, c), length)
    _check(x, direction, gate)
    result: Tensor = _GatedLinear.apply(x, *direction, *gate, radius, c, *parameters)
    return result


def _whole(x: Tensor, tensors: list[Tensor], single: list[Tensor]) -> bool:
    """Whether one function does all: plain float32 on a CPU, without autocast, and what is not by row is one number."""
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    traced = torch.compiler.is_compiling() or composes(*tensors)
    cast = plain and torch.is_autocast_enabled("cpu")
    return plain and not traced and not cast and all(t.numel() == 1 for t in single) and choose(*tensors) == "torch"


def _check(x: Tensor, direction: Map, gate: Map) -> None:
    for name, (weight, time_weight, bias) in (("direction", direction), ("gate", gate)):
        out = weight.shape[:1]
        if weight.ndim != 2 or weight.shape[1:] != x.shape[-1:] or time_weight.shape != out:
            shapes = tuple(x.shape), tuple(weight.shape), tuple(time_weight.shape)
            raise ValueError(f"expected x (..., in), {name} (out, in) and (out), got {shapes}")
        if bias is not None and bias.shape != out:
            raise ValueError(f"expected bias of the {name} {tuple(out)} or none, got {tuple(bias.shape)}")
    if len(gate.weight) != 1:
        raise ValueError(f"expected a gate of one output, got {len(gate.weight)}")


class _GatedLinear(torch.autograd.Function):
    """x, both maps, the radius, c and its parameters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> Tensor:
        direction, gate, (radius, c, *parameters) = Map(*rest[:3]), Map(*rest[3:6]), rest[6:]
        rows = x.reshape(-1, x.shape[-1])
        x0, logit = closed.times_and_logits(rows, gate, c)
        length = radius(logit, c, *parameters)
        y = x.new_empty(*x.shape[:-1], len(direction.weight))
        of_z = closed.forward(y.view(-1, y.shape[-1]), rows, x0, direction, length)
        ctx.others = [None if isinstance(t, Tensor) else t for t in rest]
        ctx.save_for_backward(x, *(t if isinstance(t, Tensor) else None for t in rest), x0, logit, y, length, of_z)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, *kept = ctx.saved_tensors
        x0, logit, y, length, of_z = kept[-5:]
        rest = [other if t is None else t for t, other in zip(kept[:-5], ctx.others, strict=True)]
        if torch.is_grad_enabled():  # a second derivative is wanted: the specification knows it
            return _composed_gradients(grad, [x, *rest], ctx.needs_input_grad)
        direction, gate, (radius, c, *parameters) = Map(*rest[:3]), Map(*rest[3:6]), rest[6:]
        flat, points, out = (t.reshape(-1, t.shape[-1]) for t in (grad, x, y))
        to_radius = closed.of_radius(flat, out, length)
        to_logit, *to_rest = _through_radius(radius, [logit, c, *parameters], to_radius)
        needed = ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[8]
        found = closed.backward(
            flat, to_radius, to_logit, (points, x0, out, length, of_z), (direction, gate), c, needed
        )
        to_c = None if found.c is None else found.c.reshape(c.shape) + (0 if to_rest[0] is None else to_rest[0])
        of_x = None if found.x is None else found.x.view(x.shape)
        gradients = [of_x, *found.direction, *found.gate, None, to_c, *to_rest[1:]]
        return tuple(g if need else None for g, need in zip(gradients, ctx.needs_input_grad, strict=True))


def _through_radius(radius: Radius, inputs: list[Any], grad: Tensor) -> list[Any]:
    """Return the gradients of logit, c and parameters, none where it is no tensor, from a graph of a number a row."""
    leaves = [t.detach().requires_grad_() if isinstance(t, Tensor) else t for t in inputs]
    with torch.enable_grad():
        length = radius(*leaves)
    return _gradients(length, leaves, grad, [isinstance(t, Tensor) for t in leaves])


def _composed_gradients(grad: Tensor, inputs: list[Any], needed: tuple[bool, ...]) -> tuple[Any, ...]:
    """Return the gradients with graphs of their own."""
    leaves: list[Any] = [t.view_as(t) if isinstance(t, Tensor) else t for t in inputs]
    x, direction, gate, (radius, c, *parameters) = leaves[0], Map(*leaves[1:4]), Map(*leaves[4:7]), leaves[7:]
    y = naive.gated_linear(x, direction, gate, radius, c, *parameters)
    return tuple(_gradients(y, leaves, grad, needed, create_graph=True))


def _gradients(y: Tensor, leaves: list[Any], grad: Tensor, needed: Any, create_graph: bool = False) -> list[Any]:
    wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
    found: Iterator[Any] = iter(torch.autograd.grad(y, wanted, grad, create_graph=create_graph, allow_unused=True))
    return [next(found) if need else None for need in needed]

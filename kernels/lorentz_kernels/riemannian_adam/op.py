"""`riemannian_adam` for optimisers: one step in place, in one pass where Triton runs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.dispatch import choose
from lorentz_kernels.precision import on_device
from lorentz_kernels.registry import operator
from lorentz_kernels.riemannian_adam.geodesic import Curvature
from lorentz_kernels.riemannian_adam.in_place import Rows, replace
from lorentz_kernels.riemannian_adam.naive import adam_rows, rates

WIDEST = 16384  # a row is held in the registers of one block


def adam_step_(
    x: Tensor,
    grad: Tensor,
    w: Tensor,
    v: Tensor,
    step: float | Tensor,
    *,
    lr: float | Tensor = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    c: Curvature = 1.0,
    v_max: Tensor | None = None,
    rows: Rows | None = None,
    backend: str | None = None,
) -> None:
    """Put one step of Riemannian Adam, `naive.adam_step`, in the place of x, w, v and v_max.

    Args:
        x: points, (..., n), in float32 or float64, as all that follows.
        grad: Euclidean gradients, of the shape of x, or of x[rows].
        w: first moments, (..., n).
        v: second moments, (..., 1).
        step: number of this step, from 1; a tensor where each number would be compiled anew.
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the root of the second moment.
        c: the curvature is -c; a tensor is a constant here.
        v_max: the largest second moment so far, (..., 1), for AMSGrad.
        rows: indices into the first dimensions of x, none twice: the step is of these rows only.
        backend: "triton" or "torch" instead of what `dispatch.choose` picks. Triton takes rows of up to 16384 numbers
            and one curvature for all of them.

    Raises:
        ValueError: grad does not have the shape of the rows that move, or the backend cannot run.
    """
    expected = x.shape if rows is None else rows[0].shape + x.shape[len(rows) :]
    if grad.shape != expected:
        raise ValueError(f"expected grad of shape {tuple(expected)}, got {tuple(grad.shape)}")
    rate, bias2 = rates(step, lr, betas)
    one_pass = x.shape[-1] <= WIDEST and (not isinstance(c, Tensor) or c.numel() == 1)
    if not one_pass or choose(x, grad, w, v, backend=backend) == "torch":
        state = (w, v) if v_max is None else (w, v, v_max)
        rule = partial(_rule, rate=rate, bias2=bias2, c=c, betas=betas, eps=eps)
        replace(rule, grad, x, *state, rows=rows)
        return
    if grad.numel() == 0:
        return
    index = None if rows is None else _flat(rows, x.shape)
    settings = _settings(rate, bias2, c, x)
    numbers = (0.0, 0.0, 0.0) if settings is not None else (rate, bias2, c)
    targets = (x, w, v) if v_max is None else (x, w, v, v_max)
    whole = [target.contiguous() for target in targets]  # for every parameter that there is, the target itself
    y, *moments = (target.view(-1, target.shape[-1]) for target in whole)
    largest = moments[2] if len(moments) > 2 else None
    _adam_(
        y, grad.contiguous().view(-1, x.shape[-1]), *moments[:2], largest, index, settings, *numbers, list(betas), eps
    )
    for target, moved in zip(targets, whole, strict=True):
        if moved is not target:
            target.copy_(moved)


def _rule(
    x: Tensor, grad: Tensor, w: Tensor, v: Tensor, v_max: Tensor | None = None, **options: Any
) -> tuple[Tensor, ...]:
    return adam_rows(x, grad, w, v, v_max, **options)


def _flat(rows: Rows, shape: torch.Size) -> Tensor:
    """Return the indices of rows (n) of a tensor flattened to (N, n), given indices into its first dimensions."""
    index = rows[0]
    for size, more in zip(shape[1 : len(rows)], rows[1:], strict=True):
        index = index * size + more
    inner = shape[len(rows) : -1].numel()
    return index if inner == 1 else (index[:, None] * inner + torch.arange(inner, device=index.device)).flatten()


def _settings(rate: float | Tensor, bias2: float | Tensor, c: Curvature, like: Tensor) -> Tensor | None:
    """Return the three as one tensor beside `like` if one of them is a tensor, whose value nobody waits for."""
    numbers = (rate, bias2, c)
    if not any(isinstance(number, Tensor) for number in numbers):
        return None
    return torch.stack([on_device(n, like, torch.float32).reshape(()) for n in numbers])


def _launch(x: Tensor, grad: Tensor, w: Tensor, v: Tensor, v_max: Tensor | None, *options: Any) -> None:
    from lorentz_kernels.riemannian_adam.triton import step_rows

    step_rows(x, grad, w, v, v_max, *options)


def _compose(
    x: Tensor,
    grad: Tensor,
    w: Tensor,
    v: Tensor,
    v_max: Tensor | None,
    rows: Tensor | None,
    settings: Tensor | None,
    rate: float,
    bias2: float,
    c: float,
    betas: list[float],
    eps: float,
) -> None:
    numbers: Any = (rate, bias2, c) if settings is None else settings.unbind()
    options = dict(zip(("rate", "bias2", "c"), numbers, strict=True))
    rule = partial(_rule, **options, betas=tuple(betas), eps=eps)
    state = (w, v) if v_max is None else (w, v, v_max)
    replace(rule, grad, x, *state, rows=None if rows is None else (rows,))


_adam_ = operator(
    "riemannian_adam_(Tensor(a!) x, Tensor grad, Tensor(b!) w, Tensor(c!) v, Tensor(d!)? v_max, Tensor? rows, "
    "Tensor? settings, float rate, float bias2, float c, float[] betas, float eps) -> ()",
    triton=_launch,
    torch_path=_compose,
    fake=lambda *arguments: None,
)

"""The operators behind the public functions: which implementation runs, and the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.dispatch import transforming
from lorentz_kernels.linear_logsumexp import chunked, naive
from lorentz_kernels.registry import operator
from lorentz_kernels.score import Score, at, implementation, lift, of_pairs

_SCORE = "Tensor query, Tensor table, Tensor? bias, Tensor scale, Tensor? squared_radius"
_PARTS = len(Score._fields)


def logsumexp(score: Score, target: Tensor | None, precision: str, backend: str | None) -> Any:
    """Return the log-partition (N,), and with targets (N,) their scores, differentiable in every part of the score."""
    if target is not None and target.shape != score.query.shape[:1]:
        raise ValueError(f"expected target (N,) = ({len(score.query)},), got {tuple(target.shape)}")
    if transforming():
        return _specified(score, target)
    chosen = implementation(score, backend)
    if not torch.is_grad_enabled():
        lse = _logsumexp(*score, False, precision, chosen)[0]
        return lse if target is None else (lse, at(score, target))
    return _LogSumExp.apply(*score, target, precision, chosen)


def _specified(score: Score, target: Tensor | None) -> Any:
    lse = naive.logsumexp(score)
    return lse if target is None else (lse, at(score, target))


def moments(score: Score, precision: str, backend: str | None) -> tuple[Tensor, Tensor]:
    """Return the log-partition (N,) and the softmax mean of the table and its times (N, k), without gradient."""
    if transforming():
        return naive.moments(score)
    lse, mean = _logsumexp(*score, True, precision, implementation(score, backend))
    return lse, mean


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        score, (target, precision, backend) = Score(*arguments[:_PARTS]), arguments[_PARTS:]
        wanted = Score(*ctx.needs_input_grad[:_PARTS])
        # The mean is the gradient in the query: here it costs one product, later two and the exponentials.
        mean = wanted.query or wanted.scale or wanted.squared_radius
        lse, average = _logsumexp(*score, mean, precision, backend)
        ctx.save_for_backward(*score, target, lse, average)
        ctx.precision, ctx.backend = precision, backend
        return lse if target is None else (lse, at(score, target))

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_at: Tensor | None = None) -> tuple[Tensor | None, ...]:
        *parts, target, lse, average = ctx.saved_tensors
        score, wanted = Score(*parts), Score(*ctx.needs_input_grad[:_PARTS])
        if torch.is_grad_enabled():  # a second derivative is wanted: the specification knows it
            inputs = [part for part, needed in zip(parts, wanted, strict=True) if needed]
            upstream = grad if target is None else (grad, grad_at)
            found = iter(torch.autograd.grad(_specified(score, target), inputs, upstream, create_graph=True))
            return *(next(found) if needed else None for needed in wanted), None, None, None
        query = table = bias = scale = squared_radius = None
        if wanted.query or wanted.scale or wanted.squared_radius:
            query, scale, squared_radius = _query_gradients(score, average, grad)
        if wanted.table or wanted.bias or wanted.squared_radius:
            table, rest = _logsumexp_backward(grad, lse, *score, ctx.precision, ctx.backend)
            bias = None if score.bias is None else rest[:, -1]
            if score.squared_radius is not None and squared_radius is not None:  # dx0/d(1/c) = 1 / (2 x0)
                squared_radius = squared_radius + (rest[:, :1] / (2 * lift(score.table, score.squared_radius))).sum()
        gradients = Score(query, table, bias, scale, squared_radius)  # type: ignore[arg-type]
        if target is not None and grad_at is not None:
            gradients = _with_targets(gradients, score, target, grad_at)
        of_parts = zip(gradients, score, wanted, strict=True)
        return *(_like(each, part) if needed else None for each, part, needed in of_parts), None, None, None


def _like(gradient: Tensor | None, part: Tensor | None) -> Tensor | None:
    return None if gradient is None or part is None else gradient.to(part.dtype)


def _with_targets(gradients: Score, score: Score, target: Tensor, grad: Tensor) -> Score:
    """Add the gradients of the targets' scores, in place where a gradient is as large as the table."""
    bias = None if score.bias is None else score.bias[target]
    pairs = Score(score.query, score.table[target], bias, score.scale, score.squared_radius)
    with torch.enable_grad():
        leaves = [None if part is None else part.detach().requires_grad_() for part in pairs]
        value = of_pairs(Score(*leaves))  # type: ignore[arg-type]
        given = [leaf for leaf in leaves if leaf is not None]
        found = iter(torch.autograd.grad(value, given, grad))
    of_pair = Score(*(None if leaf is None else next(found) for leaf in leaves))  # type: ignore[arg-type]
    summed: list[Any] = []
    for name, total, more in zip(Score._fields, gradients, of_pair, strict=True):
        if total is None or more is None:
            summed.append(None)
        elif name in ("table", "bias"):  # an accumulating assignment adds in a fixed order on every device
            summed.append(total.contiguous().index_put_((target,), more.to(total.dtype), accumulate=True))
        else:
            summed.append(total + more)
    return Score(*summed)


def _query_gradients(score: Score, mean: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients in query, scale and, through the query's times, 1/c."""
    query, width = score.query.to(mean.dtype), score.query.shape[1]
    product = (query * mean[:, :width]).sum(dim=1)
    weight = (grad * score.scale)[:, None]
    grad_query = weight * mean[:, :width]
    if score.squared_radius is None:
        return grad_query, grad * product, None
    its_time = lift(query, score.squared_radius)
    product = product - (its_time * mean[:, width:]).squeeze(1)
    of_time = -weight * mean[:, width:] / its_time
    grad_query = grad_query.addcmul_(of_time, query)
    return grad_query, grad * product, of_time.sum() / 2


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    score, (mean, precision, backend) = Score(*arguments[:_PARTS]), arguments[_PARTS:]
    if backend == "triton":
        from lorentz_kernels.linear_logsumexp import triton

        return triton.moments(score, mean, precision)
    return chunked.moments(score, mean=mean)


def _forward_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    score, mean = Score(*arguments[:_PARTS]), arguments[_PARTS]
    n = score.query.shape[0]  # len() would fix it while tracing
    return score.scale.new_empty(n), score.scale.new_empty(n if mean else 0, _statistics(score))


def _backward(grad: Tensor, lse: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    score, (precision, backend) = Score(*arguments[:_PARTS]), arguments[_PARTS:]
    if backend == "triton":
        from lorentz_kernels.linear_logsumexp import triton

        return triton.table_gradient(score, lse, grad, precision)
    return chunked.table_gradient(score, lse, grad)


def _backward_fake(grad: Tensor, lse: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    score = Score(*arguments[:_PARTS])
    e, d = score.table.shape
    return lse.new_empty(e, d), lse.new_empty(e, _statistics(score) + 1 - d)


def _statistics(score: Score) -> int:
    """Return the number of columns of an entry, its time among them where there is one."""
    return score.table.shape[1] + int(score.squared_radius is not None)  # torch 2.11 adds no boolean while it traces


_logsumexp = operator(
    f"logsumexp({_SCORE}, bool mean, str precision, str backend) -> (Tensor, Tensor)",
    triton=_forward,
    torch_path=_forward,
    fake=_forward_fake,
)
_logsumexp_backward = operator(
    f"logsumexp_backward(Tensor grad, Tensor lse, {_SCORE}, str precision, str backend) -> (Tensor, Tensor)",
    triton=_backward,
    torch_path=_backward,
    fake=_backward_fake,
)

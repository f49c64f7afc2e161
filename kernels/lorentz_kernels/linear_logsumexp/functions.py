"""The public functions: a score, and what is reduced over its table."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from lorentz_kernels.linear_logsumexp.op import logsumexp, moments
from lorentz_kernels.precision import full_precision
from lorentz_kernels.score import Score, euclidean, lorentzian

Precision = Literal["bf16x3", "bf16x6", "bf16"]
"""How tensor cores multiply float32 tensors: relative errors of 2^-16, 2^-24 and 2^-8. Of 16 bits nothing is lost."""


@overload
def linear_logsumexp(
    query: Tensor,
    table: Tensor,
    bias: Tensor | None = ...,
    *,
    scale: float | Tensor = ...,
    target: None = ...,
    precision: Precision = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def linear_logsumexp(
    query: Tensor,
    table: Tensor,
    bias: Tensor | None = ...,
    *,
    scale: float | Tensor = ...,
    target: Tensor,
    precision: Precision = ...,
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...
def linear_logsumexp(
    query: Tensor,
    table: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | Tensor = 1.0,
    target: Tensor | None = None,
    precision: Precision = "bf16x3",
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-partition of a linear score over a large table, with its gradient, without the scores where they are many.

        Z_i = log sum_e exp(scale_i (query_i . table_e) + bias_e)
        dZ_i/dquery_i = scale_i sum_e P_ie table_e,  dZ_i/dtable_e = scale_i P_ie query_i,  dZ_i/dbias_e = P_ie,
        P = softmax

    Args:
        query: (N, d).
        table: (E, d), E > 0.
        bias: (E,) or none; minus infinity takes an entry out.
        scale: one number, or (N,).
        target: (N,) indices of rows of the table, whose scores are wanted too: `Z - score` is the cross-entropy.
        precision: of products of float32 tensors on a GPU. Sums, and the scores of the targets, are in float32.
        backend: "triton" or "torch", see `lorentz_kernels.dispatch`.

    Returns:
        Z (N,); with targets, Z (N,) and their scores (N,). In float32 or better, differentiable in all floating-point
        arguments, twice if need be (the second derivative holds all scores). Autocast does not reach inside.

    Raises:
        ValueError: the shapes do not fit.
    """
    with full_precision(query.device):
        return _logsumexp(euclidean(query, table, bias, scale), target, precision, backend)


@overload
def lorentz_logsumexp(
    query: Tensor,
    table: Tensor,
    bias: Tensor | None = ...,
    *,
    beta: float | Tensor = ...,
    c: float | Tensor = ...,
    target: None = ...,
    precision: Precision = ...,
    backend: str | None = ...,
) -> Tensor: ...
@overload
def lorentz_logsumexp(
    query: Tensor,
    table: Tensor,
    bias: Tensor | None = ...,
    *,
    beta: float | Tensor = ...,
    c: float | Tensor = ...,
    target: Tensor,
    precision: Precision = ...,
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...
def lorentz_logsumexp(
    query: Tensor,
    table: Tensor,
    bias: Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    c: float | Tensor = 1.0,
    target: Tensor | None = None,
    precision: Precision = "bf16x3",
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Log-partition of Minkowski products of points, given by their space parts, with those of a large table.

        Z_i = log sum_e exp(beta_i <query_i, table_e> + bias_e),  <q, t> = q . t - q0 t0,  x0 = sqrt(1/c + |x|^2)

    Since |q - t|_L^2 = -2/c - 2 <q, t>, a softmax of -s |q - t|_L^2 is one with beta = 2 s: the scores differ by the
    constant 2 s / c, which cancels in `Z - score`. A score has the error of a product, eps * beta * q0 * t0.

    Args:
        query: (N, n), points.
        table: (E, n), points, E > 0.
        bias: (E,) or none; minus infinity takes an entry out.
        beta: one number, or (N,).
        c: the curvature is -c; one number.
        target: as in `linear_logsumexp`.
        precision: as in `linear_logsumexp`; the products of times are in float32 always.
        backend: as in `linear_logsumexp`.

    Returns:
        As `linear_logsumexp`, differentiable also in `beta` and `c`.

    Raises:
        ValueError: the shapes do not fit.

    Source of the score: Chen et al., Fully Hyperbolic Neural Networks, ACL 2022.
    """
    with full_precision(query.device):
        return _logsumexp(lorentzian(query, table, bias, beta, c), target, precision, backend)


@torch.no_grad()
def linear_logsumexp_mean(
    query: Tensor,
    table: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | Tensor = 1.0,
    precision: Precision = "bf16x3",
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return Z as `linear_logsumexp` does, (N,), and the mean of the table under the softmax, (N, d).

    The mean is the gradient of Z in `scale * query`; the pair is what the KL divergence of two members of an
    exponential family needs. Not differentiable.

    Raises:
        ValueError: the shapes do not fit.
    """
    with full_precision(query.device):
        return moments(euclidean(query, table, bias, scale), precision, backend)


@torch.no_grad()
def lorentz_logsumexp_mean(
    query: Tensor,
    table: Tensor,
    bias: Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    c: float | Tensor = 1.0,
    precision: Precision = "bf16x3",
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return Z as `lorentz_logsumexp` does, (N,), and the mean of the table's ambient points, time first, (N, n + 1).

    The scores are linear in ambient coordinates, with natural parameter beta (-q0, q), so this pair is what the KL
    divergence of two such softmaxes needs. Not differentiable.

    Raises:
        ValueError: the shapes do not fit.
    """
    with full_precision(query.device):
        lse, mean = moments(lorentzian(query, table, bias, beta, c), precision, backend)
    return lse, mean.roll(1, dims=1)


def _logsumexp(
    score: Score, target: Tensor | None, precision: str, backend: str | None
) -> Tensor | tuple[Tensor, Tensor]:
    if precision not in ("bf16x3", "bf16x6", "bf16"):
        raise ValueError(f"expected precision bf16x3, bf16x6 or bf16, got {precision!r}")
    return logsumexp(score, target, precision, backend)

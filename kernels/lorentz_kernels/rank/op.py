"""The public functions and the operator behind them: which implementation counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorentz_kernels.dispatch import transforming
from lorentz_kernels.linear_logsumexp.functions import Precision
from lorentz_kernels.precision import full_precision
from lorentz_kernels.rank import chunked, naive
from lorentz_kernels.registry import operator
from lorentz_kernels.score import Score, euclidean, implementation, lorentzian

_PARTS = len(Score._fields)


@torch.no_grad()
def linear_rank(
    query: Tensor,
    table: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | Tensor = 1.0,
    exclude: tuple[Tensor, Tensor] | None = None,
    precision: Precision = "bf16x6",
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Count the entries of a table that score above each query's target, and those that score the same.

        score_ie = scale_i (query_i . table_e) + bias_e
        above_i = #{ e : score_ie > score_iy },  equal_i = #{ e != y : score_ie = score_iy },  y = target_i

    The rank is 1 + above if ties are resolved for the target, 1 + above + equal / 2 on average (the realistic rank).
    Scores are equal if the same floating-point operations, in the same order, give the same number: the target's comes
    from the arithmetic of all others, so equal rows of the table with equal biases always tie. No more than a block
    of scores is ever held.

    Args:
        query: (N, d).
        table: (E, d), E > 0.
        target: (N,) indices of rows of the table.
        bias: (E,) or none.
        scale: one number, or (N,); positive, or scores change their order.
        exclude: for each query, entries that do not count (the other known answers, in filtered evaluation): offsets
            (N + 1,) and indices (M,), those of query i at offsets[i]:offsets[i + 1]. The target always stays.
        precision: of products of float32 tensors on a GPU, see `linear_logsumexp`; by default 2^-24, that of float32.
        backend: "triton" or "torch", see `lorentz_kernels.dispatch`.

    Returns:
        above and equal, both (N,), int64. If the target's score is NaN, it is last: E - 1 and 0.

    Raises:
        ValueError: the shapes do not fit.

    Source of the realistic rank: Berrendorf et al., On the Ambiguity of Rank-Based Evaluation, 2020.
    """
    return _counts(euclidean(query, table, bias, scale), target, exclude, precision, backend)


@torch.no_grad()
def lorentz_rank(
    query: Tensor,
    table: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    c: float | Tensor = 1.0,
    exclude: tuple[Tensor, Tensor] | None = None,
    precision: Precision = "bf16x6",
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Count as `linear_rank` does, by Minkowski products of points given by their space parts.

        score_ie = beta_i <query_i, table_e> + bias_e

    With beta = 2 s this is the order of -s |query_i - table_e|_L^2 + bias_e: for beta > 0 the nearest is first. A score
    has the error of a product, eps * beta * q0 * t0: entries closer to each other than that are ordered by rounding.

    Args:
        query: (N, n), points.
        table: (E, n), points, E > 0.
        target: (N,) indices of rows of the table.
        bias: (E,) or none.
        beta: one number, or (N,).
        c: the curvature is -c; one number.
        exclude, precision, backend: as in `linear_rank`.

    Returns:
        above and equal, both (N,), int64.

    Raises:
        ValueError: the shapes do not fit.
    """
    return _counts(lorentzian(query, table, bias, beta, c), target, exclude, precision, backend)


def _counts(
    score: Score, target: Tensor, exclude: tuple[Tensor, Tensor] | None, precision: str, backend: str | None
) -> tuple[Tensor, Tensor]:
    n = score.query.shape[0]  # len() would fix it while tracing
    if target.shape != (n,):
        raise ValueError(f"expected target (N,) = ({n},), got {tuple(target.shape)}")
    if exclude is not None and (exclude[0].shape != (n + 1,) or exclude[1].ndim != 1):
        shapes = tuple(exclude[0].shape), tuple(exclude[1].shape)
        raise ValueError(f"expected exclude to be offsets (N + 1,) = ({n + 1},) and indices (M,), got {shapes}")
    with full_precision(score.query.device):
        if transforming():
            return naive.counts(score, target, *(exclude or ()))
        return _rank(*score, target, *(exclude or (None, None)), precision, implementation(score, backend))


def _run(*arguments: Any) -> tuple[Tensor, Tensor]:
    score, (target, offsets, excluded, precision, backend) = Score(*arguments[:_PARTS]), arguments[_PARTS:]
    if backend == "triton":
        from lorentz_kernels.rank import triton

        return triton.counts(score, target, offsets, excluded, precision)
    return chunked.counts(score, target, offsets, excluded)


def _fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    target = arguments[_PARTS]
    return torch.empty_like(target), torch.empty_like(target)


_rank = operator(
    "rank(Tensor query, Tensor table, Tensor? bias, Tensor scale, Tensor? squared_radius, Tensor target, "
    "Tensor? offsets, Tensor? excluded, str precision, str backend) -> (Tensor, Tensor)",
    triton=_run,
    torch_path=_run,
    fake=_fake,
)

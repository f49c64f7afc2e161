"""The score that log-partitions and ranks share: one product of a query with a row of a table.

    Euclidean:   score_ie = scale_i query_i . table_e + bias_e
    Lorentzian:  score_ie = scale_i (query_i . table_e - query_i0 table_e0) + bias_e,  x0 = sqrt(1/c + |x|^2)

Times are derived from the coordinates where they are needed, in float32 or better.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lorentz_kernels.dispatch import choose
from lorentz_kernels.precision import on_device

WIDEST = 512  # bytes of a row up to which it is one tile of the Triton kernels


class Score(NamedTuple):
    """The parts of a score. Query and table have one dtype, the rest is in float32 or better."""

    query: Tensor  # (N, d)
    table: Tensor  # (E, d)
    bias: Tensor | None  # (E,)
    scale: Tensor  # (N,)
    squared_radius: Tensor | None  # (), 1/c of a Lorentzian score


def euclidean(query: Tensor, table: Tensor, bias: Tensor | None, scale: float | Tensor) -> Score:
    """Return the score scale_i (query_i . table_e) + bias_e.

    Raises:
        ValueError: the shapes do not fit.
    """
    query, table = _aligned(query, table, bias)
    return Score(query, table, _wide(bias, query), _rows("scale", scale, query), None)


def lorentzian(query: Tensor, table: Tensor, bias: Tensor | None, beta: float | Tensor, c: float | Tensor) -> Score:
    """Return the score beta_i (query_i . table_e - query_i0 table_e0) + bias_e of points given by their space parts.

    Raises:
        ValueError: the shapes do not fit, or `c` is not one number.
    """
    query, table = _aligned(query, table, bias)
    if isinstance(c, Tensor) and c.numel() != 1:
        raise ValueError(f"expected c to be one number, got {tuple(c.shape)}: points of one table have one curvature")
    squared_radius = 1 / on_device(c, query, wide(query.dtype)).reshape(())
    return Score(query, table, _wide(bias, query), _rows("beta", beta, query), squared_radius)


def implementation(score: Score, backend: str | None) -> str:
    """Return "triton" or "torch", as `dispatch.choose` does; rows too wide for one tile take torch on every device.

    Raises:
        ValueError: the backend cannot run.
    """
    columns, widest = score.query.shape[1], WIDEST // score.query.element_size()
    if columns > widest and backend == "triton":
        raise ValueError(f"backend=triton cannot run here: it takes up to {widest} columns, got {columns}: use torch")
    if columns > widest:
        return "torch"
    return choose(score.query, score.table, score.scale, score.bias, backend=backend)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which times, scores and sums are formed: float32 or better."""
    return torch.promote_types(dtype, torch.float32)


def time(points: Tensor, squared_radius: Tensor) -> Tensor:
    """Return x0 = sqrt(1/c + |x|^2) of points (M, n), shape (M, 1)."""
    return (squared_radius + points.to(squared_radius.dtype).square().sum(-1, keepdim=True)).sqrt()


def lift(points: Tensor, squared_radius: Tensor) -> Tensor:
    """Return what `time` does, in one pass, for values only: a norm has no second derivative at the origin."""
    return torch.hypot(points.norm(dim=-1, keepdim=True, dtype=squared_radius.dtype), squared_radius.sqrt())


def logits(score: Score) -> Tensor:
    """Return all scores, (N, E): the specification."""
    query, table = score.query.to(score.scale.dtype), score.table.to(score.scale.dtype)
    product = query @ table.mT  # (N, d) x (d, E) -> (N, E)
    if score.squared_radius is not None:
        product = product - time(query, score.squared_radius) * time(table, score.squared_radius).mT
    product = score.scale[:, None] * product
    return product if score.bias is None else product + score.bias


def at(score: Score, target: Tensor) -> Tensor:
    """Return the scores of one row of the table for each query, (N,), as sums of products that are not rounded."""
    bias = None if score.bias is None else F.embedding(target, score.bias[:, None]).squeeze(1)
    return of_pairs(Score(score.query, F.embedding(target, score.table), bias, score.scale, score.squared_radius))


def of_pairs(score: Score) -> Tensor:
    """Return the scores of each query with the entry of the same index, (N,)."""
    query, entry = score.query.to(score.scale.dtype), score.table.to(score.scale.dtype)
    product = (query * entry).sum(-1)
    if score.squared_radius is not None:
        product = product - (time(query, score.squared_radius) * time(entry, score.squared_radius)).squeeze(1)
    product = score.scale * product
    return product if score.bias is None else product + score.bias


def columns(score: Score) -> tuple[Tensor, Tensor]:
    """Rows (N, k + 1) and entries (E, k + 1) whose product is the score; times and bias are columns. No gradient."""
    return query_columns(score), table_columns(score, table_times(score))


def query_columns(score: Score, shift: Tensor | None = None) -> Tensor:
    """Return the rows; with a shift (N,), one column more, by which the product with `table_columns` is lowered."""
    query = score.query.to(score.scale.dtype)
    parts = [score.scale[:, None] * query]
    if score.squared_radius is not None:
        parts.append(-score.scale[:, None] * lift(query, score.squared_radius))
    parts.append(query.new_ones(()).expand(len(query), 1))
    return torch.cat(parts if shift is None else [*parts, -shift[:, None]], dim=1)


def table_times(score: Score) -> Tensor | None:
    """Return the times of the entries, (E, 1), none of a Euclidean score."""
    return None if score.squared_radius is None else lift(score.table, score.squared_radius)


def table_columns(score: Score, times: Tensor | None, piece: slice = slice(None), *, shifted: bool = False) -> Tensor:
    """Return the entries, or a piece of them; with a column of ones more where the rows have a shift."""
    table = score.table[piece].to(score.scale.dtype)
    parts, one = [table], table.new_ones(()).expand(len(table), 1)
    if times is not None:
        parts.append(times[piece])
    parts.append(torch.zeros_like(one) if score.bias is None else score.bias[piece, None])
    return torch.cat([*parts, one] if shifted else parts, dim=1)


def _aligned(query: Tensor, table: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return query and table in one dtype, once their shapes are known to fit."""
    fits = query.ndim == table.ndim == 2 and query.shape[1] == table.shape[1] and len(table) > 0
    if not fits or (bias is not None and bias.shape != table.shape[:1]):
        shapes = tuple(query.shape), tuple(table.shape), None if bias is None else tuple(bias.shape)
        raise ValueError(f"expected query (N, d), table (E, d), bias (E,) or none, E > 0, got {shapes}")
    dtype = torch.promote_types(query.dtype, table.dtype)
    return query.to(dtype), table.to(dtype)


def _wide(bias: Tensor | None, like: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(wide(like.dtype))


def _rows(name: str, scale: float | Tensor, query: Tensor) -> Tensor:
    """Return a number for all queries, or one for each, as (N,)."""
    given = on_device(scale, query, wide(query.dtype))
    if given.numel() != 1 and given.shape != query.shape[:1]:
        raise ValueError(f"expected {name} to be one number or (N,) = ({len(query)},), got {tuple(given.shape)}")
    return given.reshape(-1).expand(query.shape[0])

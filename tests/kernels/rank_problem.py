"""Ranking problems whose scores are whole numbers, exact in every dtype and full of ties, and counting one by one."""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import Tensor

SHAPES = [(1, 1, 1), (2, 15, 16), (15, 2, 17), (16, 97, 33), (33, 70, 97), (64, 33, 2), (70, 128, 64), (0, 9, 4)]
Exclusion = tuple[Tensor, Tensor]


def whole_numbers(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query (N, d), table (E, d), bias (E,) and target (N,)."""
    n, e, d = shape
    generator = torch.Generator().manual_seed(n + 31 * e + 1009 * d)
    query, table, bias = (torch.randint(-2, 3, s, generator=generator).float() for s in ((n, d), (e, d), (e,)))
    return query, table, bias, torch.randint(e, (n,), generator=generator)


def exclusion(shape: tuple[int, int, int], target: Tensor) -> Exclusion:
    """For each query up to eight entries, none for some, the target among them for others."""
    n, e, _ = shape
    generator = torch.Generator().manual_seed(n + e)
    lists = [torch.randint(e, (i * 5 % 9,), generator=generator).tolist() for i in range(n)]
    lists = [[*list_, y] if i % 2 else list_ for i, (list_, y) in enumerate(zip(lists, target.tolist(), strict=True))]
    offsets = torch.tensor([0, *(len(list_) for list_ in lists)]).cumsum(0)
    return offsets, torch.tensor([*chain.from_iterable(lists)], dtype=torch.int64)


def enumerated(scores: list[list[float]], target: list[int], exclude: Exclusion | None) -> list[tuple[int, int]]:
    """Counts of entries above the target and of others equal to it; equality to a relative 1e-12 of float64 scores."""
    results = []
    for i, (row, y) in enumerate(zip(scores, target, strict=True)):
        out = set() if exclude is None else set(exclude[1][exclude[0][i] : exclude[0][i + 1]].tolist())
        others = [score for e, score in enumerate(row) if e != y and e not in out]
        equal = [math.isclose(score, row[y], rel_tol=1e-12) for score in others]
        above = sum(score > row[y] and not same for score, same in zip(others, equal, strict=True))
        results.append((above, sum(equal)))
    return results

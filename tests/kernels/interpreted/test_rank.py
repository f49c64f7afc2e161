"""The kernels of `linear_rank` against enumeration, ties to the bit."""

from __future__ import annotations

import pytest
import torch

from lorentz_kernels.rank import linear_rank, lorentz_rank
from lorentz_kernels.rank.triton import counts
from lorentz_kernels.score import euclidean, lorentzian
from tests.kernels.compare import padded, poisoned
from tests.kernels.rank_problem import SHAPES, enumerated, exclusion, whole_numbers

shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}-E{}-d{}".format(*s))


@shapes
@pytest.mark.parametrize("filtered", [True, False], ids=["filtered", "raw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_counts_are_those_of_enumeration(shape: tuple[int, int, int], filtered: bool, dtype: torch.dtype) -> None:
    query, table, bias, target = whole_numbers(shape)
    offsets, excluded = exclusion(shape, target) if filtered else (None, None)
    exclude = None if offsets is None or excluded is None else (offsets, excluded)
    expected = enumerated((query @ table.mT + bias).tolist(), target.tolist(), exclude)
    with poisoned():
        above, equal = counts(
            euclidean(padded(query.to(dtype)), table.to(dtype), bias, 1.0),
            target,
            offsets,
            excluded,
            "bf16x6",
            splits=2,
        )
    assert list(zip(above.tolist(), equal.tolist(), strict=True)) == expected


@pytest.mark.parametrize("far", [1.0, 300.0], ids=["near", "far"])
@pytest.mark.parametrize("kind", [euclidean, lorentzian], ids=["euclid", "lorentz"])
def test_copies_of_the_target_tie_with_it_wherever_they_stand(kind, far: float) -> None:  # type: ignore[no-untyped-def]
    query, entry = far * torch.randn(33, 33), torch.randn(1, 33)
    target = torch.randint(97, (33,))
    more = [1.0] if kind is lorentzian else []
    score = kind(query, entry.repeat(97, 1), torch.full((97,), 0.3), 0.7, *more)
    above, equal = counts(score, target, torch.arange(34), torch.arange(33) * 2, "bf16x6", splits=3)
    assert not above.any()
    assert torch.equal(equal, torch.where(torch.arange(33) * 2 == target, 96, 95))


@pytest.mark.parametrize("rank", [linear_rank, lorentz_rank], ids=["euclid", "lorentz"])
def test_both_implementations_agree(rank) -> None:  # type: ignore[no-untyped-def]
    query, table, bias = torch.randn(33, 20), torch.randn(97, 20), torch.randn(97)
    target = torch.randint(97, (33,))
    exclude = exclusion((33, 97, 20), target)
    results = [rank(query, table, target, bias, exclude=exclude, backend=name) for name in ("triton", "torch")]
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_a_target_without_a_score_is_last_and_others_without_one_are_not_above() -> None:
    query, table = torch.tensor([[1.0], [torch.nan]]), torch.tensor([[1.0], [torch.nan], [3.0], [1.0]])
    above, equal = linear_rank(query, table, torch.tensor([0, 0]), backend="triton")
    assert (above.tolist(), equal.tolist()) == ([1, 3], [1, 0])

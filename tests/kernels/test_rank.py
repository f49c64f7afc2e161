"""`linear_rank` and `lorentz_rank`: counts against enumeration in float64, ties to the bit, exclusion, lost scores."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lorentz.functional as LF
from lorentz_kernels.rank import chunked, linear_rank, lorentz_rank
from tests.kernels.rank_problem import SHAPES, enumerated, exclusion, whole_numbers

shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}-E{}-d{}".format(*s))


@shapes
@pytest.mark.parametrize("filtered", [True, False], ids=["filtered", "raw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_counts_are_those_of_enumeration(shape: tuple[int, int, int], filtered: bool, dtype: torch.dtype) -> None:
    query, table, bias, target = whole_numbers(shape)
    exclude = exclusion(shape, target) if filtered else None
    expected = enumerated((query @ table.mT + bias).tolist(), target.tolist(), exclude)
    above, equal = linear_rank(query.to(dtype), table.to(dtype), target, bias, exclude=exclude)
    assert list(zip(above.tolist(), equal.tolist(), strict=True)) == expected


@shapes
@pytest.mark.parametrize("c", [0.25, 1.0, 4.0], ids=lambda c: f"c{c:g}")
def test_lorentzian_ranks_are_those_of_distances(shape: tuple[int, int, int], c: float) -> None:
    n, e, d = shape
    query, table, bias = (torch.randn(s, dtype=torch.float64) for s in ((n, d), (e, d), (e,)))
    target = torch.randint(e, (n,))
    for offset in (None, bias):
        scores = -LF.pairwise_sqdist(query, table, c) + (0 if offset is None else bias)
        expected = enumerated(scores.tolist(), target.tolist(), exclusion(shape, target))
        above, equal = lorentz_rank(query, table, target, offset, beta=2.0, c=c, exclude=exclusion(shape, target))
        assert list(zip(above.tolist(), equal.tolist(), strict=True)) == expected


@given(st.integers(1, 9), st.integers(1, 700), st.integers(1, 70), st.integers(0, 99), st.booleans())
@settings(max_examples=60, deadline=None)
def test_copies_of_the_target_tie_with_it_wherever_they_stand(n: int, e: int, d: int, seed: int, far: bool) -> None:
    """One entry E times over: every score is the target's, to the bit, in every position of every product."""
    generator = torch.Generator().manual_seed(seed)
    query, entry = torch.randn(n, d, generator=generator), torch.randn(1, d, generator=generator)
    target = torch.randint(e, (n,), generator=generator)
    for rank in (linear_rank, lorentz_rank):
        above, equal = rank(query * (300 if far else 1), entry.repeat(e, 1), target)
        assert not above.any()
        assert (equal == e - 1).all()


def test_a_block_holds_few_scores_and_blocks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    query, table, bias, target = whole_numbers((41, 300, 8))
    exclude = exclusion((41, 300, 8), target)
    whole = linear_rank(query, table, target, bias, exclude=exclude)
    for size in (1, 600, 1500):  # blocks of 2, 2 and 5 queries, so that the last has one
        monkeypatch.setattr(chunked, "ON_CPU", size)
        for a, b in zip(whole, linear_rank(query, table, target, bias, exclude=exclude), strict=True):
            assert torch.equal(a, b)


def test_a_target_without_a_score_is_last_and_others_without_one_are_not_above() -> None:
    query = torch.tensor([[1.0], [torch.nan]])
    table = torch.tensor([[1.0], [torch.nan], [3.0], [1.0]])
    above, equal = linear_rank(query, table, torch.tensor([0, 0]))
    assert above.tolist() == [1, 3]
    assert equal.tolist() == [1, 0]
    above, equal = linear_rank(query[:1], table, torch.tensor([1]))
    assert (above.tolist(), equal.tolist()) == ([3], [0])


def test_excluded_entries_and_targets_with_a_bias_of_minus_infinity() -> None:
    """A target at the very bottom ties with entries that are there too, not with excluded ones."""
    query, table = torch.ones(1, 1), torch.tensor([[5.0], [1.0], [2.0], [3.0]])
    bias = torch.tensor([0.0, -torch.inf, -torch.inf, -torch.inf])
    exclude = torch.tensor([0, 2]), torch.tensor([3, 3])  # the same one twice
    above, equal = linear_rank(query, table, torch.tensor([1]), bias, exclude=exclude)
    assert (above.tolist(), equal.tolist()) == ([1], [1])


def test_scores_are_never_all_held(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = torch.mm
    monkeypatch.setattr(chunked.torch, "mm", lambda a, b, out: (sizes.append(out.numel()), original(a, b, out=out))[1])
    linear_rank(torch.randn(500, 4), torch.randn(20_000, 4), torch.randint(20_000, (500,)))
    assert len(sizes) == 20
    assert max(sizes) <= chunked.ON_CPU


@pytest.mark.parametrize(
    ("target", "exclude", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), None, r"expected target \(N,\) = \(2,\), got \(3,\)"),
        (
            torch.zeros(2, dtype=torch.int64),
            (torch.zeros(2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)),
            r"expected exclude to be offsets \(N \+ 1,\) = \(3,\) and indices \(M,\), got \(\(2,\), \(0,\)\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    target: Tensor, exclude: tuple[Tensor, Tensor] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        linear_rank(torch.zeros(2, 3), torch.zeros(4, 3), target, exclude=exclude)


def test_registration_holds_and_traces() -> None:
    query, table, bias, target = whole_numbers((7, 30, 4))
    exclude = exclusion((7, 30, 4), target)
    scale = torch.ones(7)
    torch.library.opcheck(
        torch.ops.lorentz_kernels.rank.default,
        (query, table, bias, scale, None, target, *exclude, "bf16x6", "torch"),
        test_utils=("test_schema", "test_faketensor"),
    )
    compiled = torch.compile(linear_rank, fullgraph=True, backend="aot_eager")
    results = [function(query, table, target, bias, exclude=exclude) for function in (compiled, linear_rank)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    mapped = torch.vmap(lambda q: linear_rank(q, table, target, bias))(query.expand(3, 7, 4))
    assert torch.equal(mapped[0][1], linear_rank(query, table, target, bias)[0])

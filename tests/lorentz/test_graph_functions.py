"""`segment_centroid` and `segment_softmax`: a loop over the segments, and exact also where a segment is large."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lorentz.functional as LF
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=lambda dtype: str(dtype)[6:])
several = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)

SEGMENTS = 5
INDEX = torch.tensor([3, 0, 3, 1, 0, 3, 4, 3])  # segment 2 is empty, 1 and 4 have one point


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@curvatures
@pytest.mark.parametrize("weighted", [False, True])
def test_each_segment_has_the_normalised_sum_of_its_ambient_points(weighted: bool, c: float) -> None:
    x, weights = normal(2, 3, 8, 4), normal(2, 3, 8, seed=1).exp()
    got = LF.segment_centroid(x, INDEX, SEGMENTS, weights if weighted else None, c)
    assert got.shape == (2, 3, SEGMENTS, 4)
    for i in range(SEGMENTS):
        mine = INDEX == i
        if not mine.any():
            assert not got[..., i, :].any()
            continue
        w = weights[..., mine] if weighted else torch.ones(2, 3, int(mine.sum()), dtype=torch.float64)
        expected = oracles.ambient_centroid(oracles.ambient(x[..., mine, :], c), w.unsqueeze(-2), c).squeeze(-2)
        torch.testing.assert_close(got[..., i, :], expected[..., 1:])


def test_one_segment_is_the_centroid_of_all() -> None:
    x, weights = normal(2, 8, 4), normal(2, 8, seed=1).exp()
    index = torch.zeros(8, dtype=torch.int64)
    torch.testing.assert_close(LF.segment_centroid(x, index, 1, weights)[:, 0], LF.centroid(x, weights))
    torch.testing.assert_close(LF.segment_centroid(x, index, 1)[:, 0], LF.centroid(x))


@dtypes
@curvatures
@pytest.mark.parametrize("spread", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("radius", [1e-3, 1.0, 5.0, 8.0])
def test_segments_of_neighbours_are_exact_far_out(radius: float, spread: float, c: float, dtype: torch.dtype) -> None:
    centres = oracles.points_at(radius / c**0.5, SEGMENTS, 4, seed=1, c=c)
    x = oracles.neighbours_at(centres[INDEX], spread / c**0.5, seed=2, c=c).to(dtype)
    weights = torch.tensor([0.1, 1.0, 2.0, 0.5, 3.0, 0.0, 4.0, 0.7], dtype=dtype)
    got = LF.segment_centroid(x, INDEX, SEGMENTS, weights, c)
    eps = torch.finfo(dtype).eps
    for i in (0, 1, 3, 4):
        mine = INDEX == i
        truth = oracles.centroid(oracles.rows(x[mine]), weights[mine].tolist(), c)
        # A mean of opposite points is as exact as the points are; a coordinate vector rounded by eps turns by eps * x0.
        cancelled = max((x[mine].norm(dim=-1).max() / got[i].norm()).item(), 1.0)
        turned = spread * c**0.5 * LF.time(got[i], c).item()
        assert oracles.relative_gaps(got[i : i + 1], [truth]).item() < eps * (2 * cancelled + 0.05 * turned)


@pytest.mark.parametrize("radius", [1.0, 5.0, 8.0])
def test_a_segment_of_many_points_is_as_exact_as_its_storage(radius: float) -> None:
    centre = oracles.points_at(radius, 1, 4, seed=1).expand(20_000, 4)
    x = oracles.neighbours_at(centre, 0.1, seed=2).float()
    truth = LF.centroid(x.double())
    got = LF.segment_centroid(x, torch.zeros(20_000, dtype=torch.int64), 1)[0].double()
    assert LF.dist(got, truth) < 2 * torch.finfo(torch.float32).eps * LF.time(truth)


@several
@given(seeds, st.floats(0.0, 3.0), st.floats(1e-3, 1e3))
def test_segment_centroids_commute_with_isometries(seed: int, rapidity: float, c: float) -> None:
    x, weights = normal(8, 3, seed=seed) / c**0.5, normal(8, seed=seed).exp()
    r = torch.linalg.qr(normal(3, 3, seed=seed)).Q
    u = torch.tensor(rapidity).tanh() * torch.nn.functional.normalize(normal(3, seed=seed), dim=0)
    mine = [0, 1, 3, 4]  # an empty segment stays at the origin
    before = LF.segment_centroid(x, INDEX, SEGMENTS, weights, c)[mine]
    after = LF.segment_centroid(LF.boost(LF.rotate(x, r), u, c), INDEX, SEGMENTS, weights, c)[mine]
    assert (c**0.5 * LF.dist(after, LF.boost(LF.rotate(before, r), u, c), c)).max() < 1e-7


@several
@given(seeds)
def test_the_order_of_the_points_is_immaterial(seed: int) -> None:
    x, weights = normal(8, 3, seed=seed), normal(8, seed=seed).exp()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        LF.segment_centroid(x[order], INDEX[order], SEGMENTS, weights[order]),
        LF.segment_centroid(x, INDEX, SEGMENTS, weights),
    )


@several
@given(seeds, st.lists(st.floats(1e-6, 1e6), min_size=SEGMENTS, max_size=SEGMENTS))
def test_the_scale_of_the_weights_of_a_segment_is_immaterial(seed: int, scales: list[float]) -> None:
    x, weights = normal(8, 3, seed=seed), normal(8, seed=seed).exp()
    scaled = torch.tensor(scales, dtype=torch.float64)[INDEX] * weights
    torch.testing.assert_close(
        LF.segment_centroid(x, INDEX, SEGMENTS, scaled), LF.segment_centroid(x, INDEX, SEGMENTS, weights)
    )


@pytest.mark.parametrize("radius", [1e-30, 1e-20, 1e-6, 1.0, 20.0, 40.0])
def test_gradients_are_finite_from_the_origin_to_the_edge_of_float32(radius: float) -> None:
    x = oracles.points_at(radius, 8, 4, seed=1).float().requires_grad_()
    weights = torch.ones(8, requires_grad=True)
    c = torch.ones(1, requires_grad=True)
    out = LF.segment_centroid(x, INDEX, SEGMENTS, weights, c)
    assert out.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), (x, weights, c)))


def test_weights_of_zero_and_no_points_at_all_give_the_origin_with_finite_gradients() -> None:
    x, weights = normal(8, 4).requires_grad_(), torch.zeros(8, dtype=torch.float64, requires_grad=True)
    out = LF.segment_centroid(x, INDEX, SEGMENTS, weights)
    assert not out.any()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), (x, weights)))
    assert torch.equal(LF.segment_centroid(x[:0], INDEX[:0], 2), torch.zeros(2, 4, dtype=torch.float64))
    assert LF.segment_centroid(x[:0], INDEX[:0], 0).shape == (0, 4)


def test_gradients_are_those_of_the_centroids_one_by_one() -> None:
    """Also those of the term that the forward pass holds constant, because it is zero but for rounding."""
    x, weights = normal(8, 4).requires_grad_(), normal(8, seed=1).exp().requires_grad_()
    c = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    cotangent = normal(SEGMENTS, 4, seed=2)
    out = LF.segment_centroid(x, INDEX, SEGMENTS, weights, c)
    one_by_one = [LF.centroid(x[INDEX == i], weights[INDEX == i], c) for i in range(SEGMENTS)]
    grads = torch.autograd.grad((cotangent * out).sum(), (x, weights, c))
    expected = torch.autograd.grad((cotangent * torch.stack(one_by_one)).sum(), (x, weights, c))
    torch.testing.assert_close(grads, expected)


def test_softmax_is_that_of_torch_segment_by_segment() -> None:
    scores = normal(2, 8)
    got = LF.segment_softmax(scores, INDEX, SEGMENTS)
    for i in (0, 1, 3, 4):
        torch.testing.assert_close(got[:, i == INDEX], scores[:, i == INDEX].softmax(-1))


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_softmax_does_not_overflow(shift: float) -> None:
    scores = (shift * torch.arange(SEGMENTS)[INDEX] + normal(8).float()).requires_grad_()
    weights = LF.segment_softmax(scores, INDEX, SEGMENTS)
    for i in (0, 1, 3, 4):
        torch.testing.assert_close(weights[i == INDEX], scores[i == INDEX].softmax(-1))
    (grad,) = torch.autograd.grad(weights[0], scores)
    assert grad.isfinite().all()
    assert not grad[INDEX != 3].any()


def test_scores_of_minus_infinity_get_no_weight() -> None:
    scores = normal(8)
    scores[[0, 3]] = float("-inf")  # one of four in segment 3, the only one in segment 1
    weights = LF.segment_softmax(scores.requires_grad_(), INDEX, SEGMENTS)
    assert not weights[[0, 3]].any()
    torch.testing.assert_close(weights[INDEX == 3], scores[INDEX == 3].softmax(-1))
    (grad,) = torch.autograd.grad(weights.square().sum(), scores)
    assert grad.isfinite().all()
    assert LF.segment_softmax(scores[:0], INDEX[:0], SEGMENTS).shape == (0,)


def test_an_index_out_of_range_is_an_error() -> None:
    for index in (torch.full((8,), SEGMENTS), torch.full((8,), -1)):
        with pytest.raises((IndexError, RuntimeError), match="index"):
            LF.segment_centroid(normal(8, 4), index, SEGMENTS)

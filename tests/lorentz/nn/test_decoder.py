"""`FermiDiracDecoder`: the Fermi-Dirac distribution of a distance."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def squared_geodesic(x: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
    return LF.dist(x, y, c) ** 2


@curvatures
def test_by_default_it_is_that_of_the_squared_lorentzian_distance(c: float) -> None:
    x, y = normal(7, 4), normal(7, 4, seed=1)
    square = -2 / c - 2 * oracles.ambient_inner(oracles.ambient(x, c), oracles.ambient(y, c))
    for r, t in ((2.0, 1.0), (0.7, 3.0)):
        expected = 1 / (((square - r) / t).exp() + 1)
        torch.testing.assert_close(lnn.FermiDiracDecoder(r, t, manifold=Lorentz(c))(x, y), expected)
    assert (lnn.FermiDiracDecoder().r, lnn.FermiDiracDecoder().t) == (2, 1)


@curvatures
@pytest.mark.parametrize(("distance", "power"), [(LF.dist, 1), (squared_geodesic, 2)])
def test_the_distance_may_be_geodesic_or_its_square(distance: object, power: int, c: float) -> None:
    x, y = normal(7, 4), normal(7, 4, seed=1)
    inner = oracles.ambient_inner(oracles.ambient(x, c), oracles.ambient(y, c))
    length = (-c * inner).acosh() / c**0.5
    expected = 1 / (((length**power - 1.5) / 0.5).exp() + 1)
    decoder = lnn.FermiDiracDecoder(1.5, 0.5, distance=distance, manifold=Lorentz(c))
    torch.testing.assert_close(decoder(x, y), expected)
    assert f"distance={distance.__name__}" in repr(decoder)
    assert torch.equal(pickle.loads(pickle.dumps(decoder))(x, y), decoder(x, y))


def test_all_pairs_are_decoded_at_once() -> None:
    x, y = normal(5, 4), normal(3, 4, seed=1)
    got = lnn.FermiDiracDecoder(distance=LF.pairwise_sqdist)(x, y)
    assert got.shape == (5, 3)
    torch.testing.assert_close(got[:, 1], lnn.FermiDiracDecoder()(x, y[1].expand(5, 4)))


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-3, 6.0), st.floats(0.1, 10.0), st.integers(0, 2**32 - 1), st.floats(1e-2, 1e2))
def test_the_probability_is_a_half_at_distance_r_and_falls_with_the_distance(
    r: float, t: float, seed: int, c: float
) -> None:
    x = oracles.points_at(1.0 / c**0.5, 4, 3, seed, c)
    near, at, far = (oracles.neighbours_at(x, share * r / c**0.5, seed + 1, c) for share in (0.9, 1.0, 1.1))
    decoder = lnn.FermiDiracDecoder(r / c**0.5, t / c**0.5, distance=LF.dist, manifold=Lorentz(c))
    torch.testing.assert_close(decoder(x, at), torch.full((4,), 0.5, dtype=torch.float64))
    assert (decoder(x, near) > 0.5).all()
    assert (decoder(x, far) < 0.5).all()


def test_logits_keep_the_gradient_where_probabilities_are_zero_or_one() -> None:
    x = oracles.points_at(6.0, 5, 4, seed=1).float().requires_grad_()
    y = -x.detach()
    decoder = lnn.FermiDiracDecoder()
    assert not decoder(x, y).any()
    torch.testing.assert_close(decoder.logits(x, y), 2 - LF.sqdist(x, y))
    loss = torch.nn.BCEWithLogitsLoss(reduction="sum")(decoder.logits(x, y), torch.ones(5))
    (grad,) = torch.autograd.grad(loss, x)
    expected = torch.autograd.grad(LF.sqdist(x, y).sum(), x)[0]
    torch.testing.assert_close(grad, expected)
    assert decoder.logits(x.half(), y.half()).dtype == torch.float32


@pytest.mark.parametrize("t", [0.0, -1.0, float("nan")])
def test_temperatures_that_are_not_positive_are_refused(t: float) -> None:
    with pytest.raises(ValueError, match=f"expected t > 0, got {t}"):
        lnn.FermiDiracDecoder(t=t)


def test_ambient_points_are_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match=r"expected space coordinates \(..., 4\), got \(..., 5\): .*from_ambient"):
        lnn.FermiDiracDecoder()(normal(2, 4), LF.to_ambient(normal(2, 4)))

"""`lorentz.diagnostics`: delta against brute force and closed forms, radii against what rounding does."""

from __future__ import annotations

import itertools
import math
import re
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lorentz.functional as LF
from lorentz.diagnostics import (
    RadiusWarning,
    delta_hyperbolicity,
    max_radius,
    radius_histogram,
    relative_delta,
    sampled_deltas,
    warn_radius,
)
from tests import oracles

seeds = st.integers(0, 2**32 - 1)
several = settings(max_examples=40, deadline=None)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def shortest_paths(graph: nx.Graph) -> Tensor:
    return torch.from_numpy(nx.floyd_warshall_numpy(graph))


def random_metric(seed: int, size: int) -> Tensor:
    """Shortest paths of a complete graph with random lengths."""
    generator = np.random.default_rng(seed)
    graph = nx.complete_graph(size)
    nx.set_edge_attributes(graph, {edge: generator.uniform(0.1, 1) for edge in graph.edges}, "weight")
    return shortest_paths(graph)


def four_point_delta(d: np.ndarray) -> float:
    """Half the gap between the two largest of the three sums, the largest over all quadruples."""
    worst = 0.0
    for p, q, r, s in itertools.combinations(range(len(d)), 4):
        sums = sorted([d[p, q] + d[r, s], d[p, r] + d[q, s], d[p, s] + d[q, r]])
        worst = max(worst, (sums[2] - sums[1]) / 2)
    return worst


def square(radius: float, c: float) -> Tensor:
    """Four points at equal angles and the distance `radius` from the origin."""
    directions = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    return LF.expmap0(radius * directions, c)


@several
@given(seeds, st.integers(2, 9))
def test_exact_delta_is_that_of_all_quadruples(seed: int, size: int) -> None:
    d = random_metric(seed, size)
    assert delta_hyperbolicity(d, base=None).item() == pytest.approx(four_point_delta(d.numpy()), abs=1e-12)


@several
@given(seeds, st.integers(2, 9))
def test_delta_at_a_base_point_is_within_a_factor_of_two(seed: int, size: int) -> None:
    d = random_metric(seed, size)
    exact = delta_hyperbolicity(d, base=None)
    for base in range(size):
        at_base = delta_hyperbolicity(d, base)
        assert at_base <= exact + 1e-12
        assert exact <= 2 * at_base + 1e-12


def test_delta_at_a_base_point_is_the_definition() -> None:
    d = random_metric(0, 7)
    for w in range(7):
        product = (d[w][:, None] + d[w] - d) / 2
        triples = itertools.product(range(7), repeat=3)
        truth = max(min(product[x, y], product[y, z]) - product[x, z] for x, y, z in triples)
        assert delta_hyperbolicity(d, w).item() == pytest.approx(truth.item(), abs=1e-12)


@several
@given(seeds, st.integers(1, 40))
def test_delta_of_a_tree_is_exactly_zero(seed: int, size: int) -> None:
    d = shortest_paths(nx.random_labeled_tree(size, seed=seed) if size > 1 else nx.empty_graph(1))
    assert delta_hyperbolicity(d, base=seed % size) == 0
    assert relative_delta(d) == 0


@pytest.mark.parametrize("size", range(4, 21))
def test_delta_of_a_cycle_is_the_known_one(size: int) -> None:
    # Four points that divide the cycle evenly; Wu and Zhang 2011: size // 4, less 1/2 if size = 1 modulo 4.
    d = shortest_paths(nx.cycle_graph(size))
    assert delta_hyperbolicity(d, base=None) == size // 4 - (size % 4 == 1) / 2
    assert four_point_delta(d.numpy()) == size // 4 - (size % 4 == 1) / 2


@several
@given(seeds, st.floats(1e-3, 1e3))
def test_delta_of_points_of_hyperbolic_space_is_at_most_log_2(seed: int, c: float) -> None:
    # Nica and Spakula, Strong hyperbolicity, 2016.
    x = oracles.points_at(8.0 / c**0.5, 12, 2, seed, c)
    d = LF.pairwise_dist(x, x, c)
    assert delta_hyperbolicity(d, base=None) <= math.log(2) / c**0.5 * (1 + 1e-9)
    assert sampled_deltas(x, lambda a, b: LF.dist(a, b, c), 200).max() <= math.log(2) / c**0.5 * (1 + 1e-9)


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
def test_delta_of_a_large_square_attains_log_2(c: float) -> None:
    x = square(12.0 / c**0.5, c)
    delta = delta_hyperbolicity(LF.pairwise_dist(x, x, c), base=None).item()
    assert delta == pytest.approx(math.log(2) / c**0.5, rel=1e-6)


def test_delta_scales_with_the_distances_and_relative_delta_does_not() -> None:
    d = random_metric(1, 8)
    assert delta_hyperbolicity(3 * d).item() == pytest.approx(3 * delta_hyperbolicity(d).item(), rel=1e-12)
    assert relative_delta(3 * d).item() == pytest.approx(relative_delta(d).item(), rel=1e-12)
    assert relative_delta(d).item() == pytest.approx(2 * delta_hyperbolicity(d).item() / d.max().item(), rel=1e-12)


def test_relative_delta_of_the_square_cycle_is_one() -> None:
    assert relative_delta(shortest_paths(nx.cycle_graph(4))) == 1


def test_batched_delta_is_that_of_each_matrix() -> None:
    d = torch.stack([random_metric(seed, 6) for seed in range(6)]).view(2, 3, 6, 6)
    for base in (0, 4, None):
        each = torch.stack([delta_hyperbolicity(m, base) for m in d.flatten(0, 1)]).view(2, 3)
        assert torch.equal(delta_hyperbolicity(d, base), each)
    assert relative_delta(d).shape == (2, 3)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 0)])
def test_delta_names_a_matrix_that_is_not_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"expected a matrix of distances (..., N, N), got {shape}")):
        delta_hyperbolicity(torch.zeros(shape))


def test_sampled_deltas_are_those_of_quadruples() -> None:
    d = random_metric(2, 4)
    deltas = sampled_deltas(torch.arange(4), lambda i, j: d[i, j], 500, generator=torch.Generator().manual_seed(0))
    exact = delta_hyperbolicity(d, base=None)
    assert deltas.shape == (500,)
    assert exact > 0
    # A quadruple with a repeated point has the delta of three points, which is zero.
    whole = torch.isclose(deltas, exact, atol=1e-12)
    assert torch.isclose(deltas[~whole], torch.zeros(1, dtype=deltas.dtype), atol=1e-12).all()
    assert whole.double().mean().item() == pytest.approx(24 / 256, abs=0.06)


def test_sampled_deltas_follow_the_generator_and_stay_below_the_exact_delta() -> None:
    x = oracles.points_at(3.0, 10, 5, seed=0)
    draw = [sampled_deltas(x, samples=2000, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    exact = delta_hyperbolicity(LF.pairwise_dist(x, x), base=None)
    assert draw[0].max() <= exact * (1 + 1e-12)
    assert draw[0].max() > 0.8 * exact


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
def test_histogram_counts_radii(c: float) -> None:
    x = torch.cat([oracles.points_at(r, n, 5, seed=n, c=c) for r, n in ((0.5, 3), (1.5, 4), (3.5, 5))])
    counts, edges = radius_histogram(x.view(3, 4, 5).requires_grad_(), c, bins=4, range=(0, 4))
    assert counts.tolist() == [3, 4, 0, 5]
    assert edges.tolist() == [0, 1, 2, 3, 4]


def test_histogram_takes_16_bits_and_finds_its_range() -> None:
    counts, edges = radius_histogram(torch.randn(100, 3).bfloat16(), bins=7)
    assert counts.sum() == 100
    assert edges.shape == (8,)


@pytest.mark.parametrize(
    ("dtype", "resolution", "radius"),
    [
        (torch.bfloat16, 0.1, 3.2),
        (torch.float16, 0.1, 5.3),
        (torch.float32, 0.1, 14.3),
        (torch.float64, 0.1, 34.4),
        (torch.float32, 0.01, 12.0),
    ],
)
def test_largest_radii_are_those_of_the_documentation(dtype: torch.dtype, resolution: float, radius: float) -> None:
    assert round(max_radius(dtype, resolution=resolution), 1) == radius
    assert max_radius(dtype, 4.0, resolution=resolution) == max_radius(dtype, resolution=resolution) / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("resolution", [0.1, 0.01])
def test_rounding_moves_points_by_less_than_the_resolution_up_to_the_largest_radius(
    dtype: torch.dtype, c: float, resolution: float
) -> None:
    def moved(radius: float) -> float:
        x = oracles.points_at(radius, 500, 3, seed=0, c=c)
        return (LF.dist(x, x.to(dtype).double(), c) * c**0.5).max().item()

    radius = max_radius(dtype, c, resolution=resolution)
    assert resolution / 8 < moved(radius) <= resolution / 2
    assert moved(radius + 3 / c**0.5) > resolution


@pytest.mark.parametrize("c", [0.25, torch.tensor([4.0], requires_grad=True)])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_warning_comes_beyond_the_largest_radius_only(dtype: torch.dtype, c: float | Tensor) -> None:
    value = float(torch.as_tensor(c).detach())
    limit = max_radius(dtype, value)
    near, far = (oracles.points_at(limit + s, 4, 3, seed=0, c=value).to(dtype) for s in (-0.2, 0.2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_radius(near, c)
    with pytest.warns(RadiusWarning, match=f"^4 of 8 points of codes are not within {limit:.3g} .* {dtype}"):
        warn_radius(torch.cat([near, far]).requires_grad_().view(2, 4, 3), c, name="codes")


def test_warning_counts_points_that_are_not_finite_and_says_what_to_do() -> None:
    x = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [math.inf, 0.0], [1e8, 0.0]])
    with pytest.warns(RadiusWarning) as caught:
        warn_radius(x)
    text = str(caught[0].message)
    assert "3 of 4 points of x" in text
    assert "the largest radius is 19.1, 2 are not finite" in text
    assert "keep them in float64" in text
    with pytest.warns(RadiusWarning, match="none is finite"):
        warn_radius(x[1:3])
    with pytest.warns(RadiusWarning, match="keep them in float32"):
        warn_radius(x.bfloat16())
    assert caught[0].filename == __file__


def test_warning_needs_one_curvature() -> None:
    with pytest.raises(ValueError, match=r"expected one curvature, got c of shape \(4, 1\)"):
        warn_radius(torch.zeros(4, 2), torch.ones(4, 1))

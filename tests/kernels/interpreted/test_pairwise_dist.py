"""The kernels of `pairwise_dist` against the specification in float64, at every radius and in any layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lorentz_kernels.pairwise_dist import chunked, naive, pairwise_dist, pairwise_sqdist
from lorentz_kernels.pairwise_dist.triton import backward, forward
from tests import oracles
from tests.kernels.compare import assert_close, error_ratio, expanded, padded, poisoned, strided

SHAPES = [(1, 1, 1), (2, 15, 16), (17, 2, 33), (33, 70, 5), (97, 16, 64), (128, 64, 15), (0, 5, 2), (5, 0, 2)]
SINGLE = 5e-6  # the error ratio allowed in float32


def points(*shape: int, radius: float = 1.0, seed: int = 0) -> Tensor:
    """Points whose coordinates have this length."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return radius * x / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0], ids=lambda c: f"c{c:g}")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}-M{}-n{}".format(*s))
def test_distances_and_gradients_are_those_of_the_specification(shape: tuple[int, int, int], c: float) -> None:
    n, m, d = shape
    x, y, weight = torch.randn(2, n, d), torch.randn(2, m, d), torch.randn(2, n, m)
    wide = [part.double() for part in (weight, x, y, torch.tensor(1 / c))]
    with poisoned():
        geodesic, square = (forward(x, y, torch.tensor(1 / c), on) for on in (True, False))
        found = backward(weight, x, y, torch.tensor(1 / c))
    assert_close("dist", naive.dist(*wide[1:]), geodesic, SINGLE)
    assert_close("sqdist", naive.sqdist(*wide[1:]), square, SINGLE)
    for name, want, got in zip("xyk", chunked.backward(*wide), found, strict=True):
        assert_close(name, want, got, SINGLE)


@pytest.mark.parametrize("other", [0.0, 1e-3, 1.0, 10.0, 100.0], ids=lambda r: f"length{r:g}")
@pytest.mark.parametrize("length", [0.0, 1e-3, 1.0, 10.0, 100.0], ids=lambda r: f"length{r:g}")
def test_each_distance_is_exact_at_lengths_however_different(length: float, other: float) -> None:
    x, y, one = points(1, 16, 8, radius=length), points(1, 17, 8, radius=other, seed=1), torch.ones(())
    expected = naive.dist(x.double(), y.double(), one.double())
    torch.testing.assert_close(forward(x, y, one, True).double(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("gap", [1e-6, 1e-3, 0.1], ids=lambda g: f"gap{g:g}")
@pytest.mark.parametrize("length", [1e-3, 1.0, 100.0], ids=lambda r: f"length{r:g}")
def test_neighbours_keep_their_distance_and_gradient(length: float, gap: float) -> None:
    x, one = points(1, 16, 8, radius=length), torch.ones(())
    y = x * (1 + gap) + gap * length * points(1, 16, 8, seed=1)
    expected = naive.dist(x.double(), y.double(), one.double())[0].diagonal()
    torch.testing.assert_close(forward(x, y, one, True)[0].diagonal().double(), expected, rtol=1e-5, atol=0)
    weight = torch.eye(16)[None]
    wanted = chunked.backward(weight.double(), x.double(), y.double(), one.double())
    for want, got in zip(wanted[:2], backward(weight, x, y, one)[:2], strict=True):
        assert_close("gradient", want, got, 1e-5)


@pytest.mark.parametrize("layout", [strided, padded, expanded])
def test_any_layout_is_read(layout: Callable[[Tensor], Tensor]) -> None:
    x, y, weight, one = layout(torch.randn(2, 5, 7)), layout(torch.randn(2, 6, 7)), torch.randn(2, 5, 6), torch.ones(())
    wide = [part.double() for part in (layout(weight), x, y, one)]
    assert_close("dist", naive.dist(*wide[1:]), forward(x, y, one, True), SINGLE)
    for want, got in zip(chunked.backward(*wide), backward(layout(weight), x, y, one), strict=True):
        assert_close("gradient", want, got, SINGLE)


@pytest.mark.parametrize("function", [pairwise_dist, pairwise_sqdist], ids=["dist", "sqdist"])
def test_public_functions_differentiate_through_the_kernels(function: Callable[..., Tensor]) -> None:
    def run(dtype: torch.dtype, backend: str) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.randn(n, 5, generator=generator).to(dtype).requires_grad_() for n in (9, 7))
        c = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        value = function(x, y, c, backend=backend)
        return [value, *torch.autograd.grad(value.square().sum(), (x, y, c))]

    for want, got in zip(run(torch.float64, "torch"), run(torch.float32, "triton"), strict=True):
        assert_close("value or gradient", want, got, SINGLE)


def test_coincident_points_have_distance_and_gradient_zero_and_results_repeat() -> None:
    x = (100 * torch.randn(33, 5)).requires_grad_()
    distances = pairwise_dist(x, x.detach(), backend="triton")
    assert torch.equal(distances, pairwise_dist(x, x.detach(), backend="triton"))
    assert not distances.diagonal().any()
    assert not torch.autograd.grad(distances.diagonal().sum(), x)[0].any()


@pytest.mark.parametrize("gap", [0.01, 1.0], ids=lambda g: f"gap{g:g}")
@pytest.mark.parametrize("radius", [1.0, 5.0, 8.0], ids=lambda r: f"radius{r:g}")
def test_gradients_of_neighbours_are_those_of_the_torch_path(radius: float, gap: float) -> None:
    """Where a coordinate's rounding moves the gradient, the kernels err no more than the specification in float32."""
    x = oracles.points_at(radius, 40, 6, seed=1)
    x, y, one, weight = (
        x.float()[None],
        oracles.neighbours_at(x, gap, seed=2).float()[None],
        torch.ones(()),
        torch.eye(40),
    )
    wanted = chunked.backward(weight[None].double(), x.double(), y.double(), one.double())
    plain = chunked.backward(weight[None], x, y, one)
    for want, theirs, ours in zip(wanted[:2], plain[:2], backward(weight[None], x, y, one)[:2], strict=True):
        assert_close("gradient", want, ours, 2 * error_ratio(want, theirs) + 1e-7)

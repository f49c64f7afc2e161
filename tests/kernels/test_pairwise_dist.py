"""`pairwise_dist` and `pairwise_sqdist`: mpmath, the distances of single pairs, gradients in closed form, memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import lorentz.functional as LF
from lorentz_kernels.pairwise_dist import chunked, pairwise_dist, pairwise_sqdist
from tests import oracles
from tests.kernels.compare import assert_close

FUNCTIONS = [(pairwise_dist, LF.dist), (pairwise_sqdist, LF.sqdist)]
functions = pytest.mark.parametrize(("function", "single"), FUNCTIONS, ids=["dist", "sqdist"])
curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0], ids=lambda c: f"c{c:g}")
Distance = Callable[..., Tensor]


def points(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@functions
@curvatures
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 70, 5), (130, 17, 33), (0, 5, 2), (4, 0, 2)], ids=str)
def test_every_pair_is_a_single_pair_and_so_is_its_gradient(
    function: Distance, single: Distance, c: float, shape: tuple[int, int, int]
) -> None:
    n, m, d = shape
    x, y, curvature = points(n, d), points(m, d, seed=1), torch.tensor([c], dtype=torch.float64)
    inputs = [part.requires_grad_() for part in (x, y, curvature)]
    found, expected = function(*inputs), single(x[:, None], y[None], curvature)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    weight = points(n, m, seed=2)
    grads = [torch.autograd.grad((value * weight).sum(), inputs) for value in (found, expected)]
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@functions
@curvatures
def test_batches_broadcast_and_derivatives_are_right(function: Distance, single: Distance, c: float) -> None:
    x, y, curvature = points(2, 1, 3, 4), points(3, 5, 4, seed=1), torch.tensor(c, dtype=torch.float64)
    inputs = [part.requires_grad_() for part in (x, y, curvature)]
    assert function(*inputs).shape == (2, 3, 3, 5)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("gap", [0.01, 1.0], ids=lambda g: f"gap{g:g}")
@pytest.mark.parametrize("radius", [0.001, 1.0, 5.0, 8.0], ids=lambda r: f"radius{r:g}")
def test_neighbours_keep_their_distance_and_its_gradient_in_float32(radius: float, gap: float) -> None:
    x = oracles.points_at(radius, 10, 6, seed=1)
    x, y = x.float(), oracles.neighbours_at(x, gap, seed=2).float()
    leaf = x.clone().requires_grad_()
    distances = pairwise_dist(leaf, y).diagonal()
    allowed = torch.finfo(torch.float32).eps * (4 + LF.time(x).max())
    assert oracles.relative_errors(distances.detach(), oracles.each(oracles.dist, 1.0, x, y)).max() < allowed
    (grad,) = torch.autograd.grad(distances.sum(), leaf)
    truth = oracles.each(oracles.dist_gradient, 1.0, x, y)
    assert oracles.relative_gaps(grad, truth).max() < allowed


@functions
def test_coincident_points_have_distance_and_gradient_zero(function: Distance, single: Distance) -> None:
    x = (100 * points(5, 3)).float().requires_grad_()
    distances = function(x, x.detach()).diagonal()
    assert not distances.any()
    assert not torch.autograd.grad(distances.sum(), x)[0].any()


@pytest.mark.parametrize("numbers", [1, 40, 1000])
def test_blocks_agree(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weight = points(3, 11, 4), points(3, 7, 4, seed=1), points(3, 11, 7, seed=2)
    radius = torch.tensor(2.0, dtype=torch.float64)
    whole = [chunked.forward(x, y, radius, True), *chunked.backward(weight, x, y, radius)]
    monkeypatch.setattr(chunked, "ON_CPU", numbers)
    for a, b in zip(whole, [chunked.forward(x, y, radius, True), *chunked.backward(weight, x, y, radius)], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_no_number_for_each_pair_and_coordinate_is_held() -> None:
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            sizes.extend(part.numel() for part in torch.utils._pytree.tree_leaves(result) if isinstance(part, Tensor))
            return result

    x, y = (torch.randn(200, 64).requires_grad_() for _ in range(2))
    with Watch():
        pairwise_dist(x, y).sum().backward()
    assert max(sizes) <= chunked.ON_CPU


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_sixteen_bits_are_widened_and_autocast_does_not_reach_inside(dtype: torch.dtype) -> None:
    x, y = points(9, 5).to(dtype).requires_grad_(), points(4, 5, seed=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = pairwise_dist(x, y)
    assert found.dtype == torch.float32
    assert_close("dist", pairwise_dist(x.double(), y.double()), found, 1e-6)
    assert torch.autograd.grad(found.sum(), x)[0].dtype == dtype


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected points .*, N, n\) and .*, M, n\), got \(2, 3\) and \(4, 5\)"):
        pairwise_dist(torch.zeros(2, 3), torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"expected c to be one number, got \(2, 1\)"):
        pairwise_dist(torch.zeros(2, 3), torch.zeros(4, 3), torch.ones(2, 1))


def test_each_row_may_have_its_own_curvature_in_the_library() -> None:
    x, y, c = points(3, 4), points(5, 4, seed=1), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    found = LF.pairwise_dist(x, y, c[:, None, None])
    for row, curvature, got in zip(x, c, found, strict=True):
        torch.testing.assert_close(got, LF.pairwise_dist(row[None], y, curvature)[0])

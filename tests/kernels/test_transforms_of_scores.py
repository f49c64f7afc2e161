"""What torch does to functions, done to log-partitions and pairwise distances: each transform, value and derivative."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.autograd import forward_ad

from lorentz_kernels.linear_logsumexp import linear_logsumexp, lorentz_logsumexp, naive
from lorentz_kernels.pairwise_dist import naive as naive_pairs
from lorentz_kernels.pairwise_dist import pairwise_dist, pairwise_sqdist
from lorentz_kernels.score import euclidean, lorentzian

Function = Callable[..., Tensor]
ONE = torch.ones((), dtype=torch.float64)
# An operation of two sets of points, and the same from torch's own operators.
PAIRS = [
    (linear_logsumexp, lambda x, y: naive.logsumexp(euclidean(x, y, None, 1.0))),
    (lorentz_logsumexp, lambda x, y: naive.logsumexp(lorentzian(x, y, None, 1.0, 1.0))),
    (pairwise_dist, lambda x, y: naive_pairs.dist(x, y, ONE.to(x.dtype))),
    (pairwise_sqdist, lambda x, y: naive_pairs.sqdist(x, y, ONE.to(x.dtype))),
]
every = pytest.mark.parametrize(("function", "plain"), PAIRS, ids=[pair[0].__name__ for pair in PAIRS])


@pytest.fixture
def points() -> tuple[Tensor, Tensor]:
    x, y = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (5, 7))
    return x.requires_grad_(), y.requires_grad_()


@every
def test_compiled_whole_forward_and_backward(
    function: Function, plain: Function, points: tuple[Tensor, Tensor]
) -> None:
    x, y = points
    compiled = torch.compile(lambda x, y: function(2 * x, y).sin(), fullgraph=True, backend="aot_eager")
    values = compiled(x, y), plain(2 * x, y).sin()
    torch.testing.assert_close(*values)
    grads = [torch.autograd.grad(value.sum(), (x, y)) for value in values]
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want)


@every
def test_compiled_once_for_every_length(function: Function, plain: Function, points: tuple[Tensor, Tensor]) -> None:
    compiles = CompileCounter()
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=compiles)
    y = points[1].detach()
    for length in (3, 8, 13):
        x = torch.randn(length, 4, dtype=torch.float64)
        torch.testing.assert_close(compiled(x, y), plain(x, y))
    assert compiles.frame_count == 1


@every
def test_vmap_is_a_loop(function: Function, plain: Function, points: tuple[Tensor, Tensor]) -> None:
    x, y = (part.detach() for part in points)
    many = torch.stack([x, 2 * x, -x])
    got = torch.vmap(function, in_dims=(0, None))(many, y)
    torch.testing.assert_close(got, torch.stack([plain(each, y) for each in many]))


@every
def test_functional_derivatives_of_both_modes(
    function: Function, plain: Function, points: tuple[Tensor, Tensor]
) -> None:
    x, y = (part.detach() for part in points)
    got = torch.func.grad(lambda x: function(x, y).sin().sum())(x)
    torch.testing.assert_close(got, torch.func.grad(lambda x: plain(x, y).sin().sum())(x))
    direction = torch.ones_like(x)
    tangents = [torch.func.jvp(lambda x, f=f: f(x, y), (x,), (direction,))[1] for f in (function, plain)]
    torch.testing.assert_close(*tangents)
    assert tangents[0].any()
    jacobian = torch.func.jacrev(lambda x: function(x, y))(x)
    torch.testing.assert_close(jacobian, torch.func.jacfwd(lambda x: plain(x, y))(x))
    with forward_ad.dual_level():
        dual = function(forward_ad.make_dual(x, direction), y)
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, tangents[1])


@every
def test_a_gradient_penalty_has_the_right_gradient(
    function: Function, plain: Function, points: tuple[Tensor, Tensor]
) -> None:
    """The inner upstream gradient needs none itself: a Function differentiable once would be silently wrong."""
    results = []
    for f in (function, plain):
        (inner,) = torch.autograd.grad(f(*points).sum(), points[0], create_graph=True)
        results.append(torch.autograd.grad(inner.square().sum(), points))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


@every
def test_checkpoint_and_export(function: Function, plain: Function, points: tuple[Tensor, Tensor]) -> None:
    value = torch.utils.checkpoint.checkpoint(function, *points, use_reentrant=False)
    grads = [torch.autograd.grad(each.sum(), points) for each in (value, plain(*points))]
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want)

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return function(x, y)

    x, y = (part.detach() for part in points)
    torch.testing.assert_close(torch.export.export(Module(), (x, y)).module()(x, y), plain(x, y))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_meta_tensors_have_the_shape(function: Function, plain: Function, dtype: torch.dtype) -> None:
    x, y = torch.empty(5, 4, dtype=dtype, device="meta"), torch.empty(7, 4, dtype=dtype, device="meta")
    assert function(x, y).shape == plain(x.new_empty(5, 4, device="cpu"), y.new_empty(7, 4, device="cpu")).shape


@pytest.mark.parametrize("permuted", [True, False], ids=["permuted", "plain"])
def test_registrations_hold(permuted: bool) -> None:
    x, y, bias, scale = torch.randn(5, 4), torch.randn(7, 4), torch.randn(7), torch.ones(5)
    if permuted:  # dense, in an order that `empty_like` would keep
        x, y = (part.mT.contiguous().mT for part in (x, y))
    radius, ops = torch.ones(()), torch.ops.lorentz_kernels
    utilities = ("test_schema", "test_faketensor")
    for given in ((None, None), (bias, None), (bias, radius)):
        score = (x, y, given[0], scale, given[1])
        for mean in (True, False):
            torch.library.opcheck(ops.logsumexp.default, (*score, mean, "bf16x3", "torch"), test_utils=utilities)
        backward = (torch.randn(5), torch.randn(5), *score, "bf16x3", "torch")
        torch.library.opcheck(ops.logsumexp_backward.default, backward, test_utils=utilities)
    pairs = torch.randn(2, 4, 5).mT, torch.randn(2, 7, 4), radius  # dense, permuted
    torch.library.opcheck(ops.pairwise_dist.default, (*pairs, True, "torch"), test_utils=utilities)
    backward = (torch.randn(2, 5, 7), *pairs, "torch")
    torch.library.opcheck(ops.pairwise_dist_backward.default, backward, test_utils=utilities)

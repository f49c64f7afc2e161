"""`linear`: value, gradients of any order, every transform of torch, by the plain-torch path and by the operators."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils.checkpoint import checkpoint

from lorentz_kernels.linear import linear, linear_with_time, naive, rows
from lorentz_kernels.linear.activation import Epilogue
from tests.kernels.compare import assert_close, error_ratio, expanded, padded, strided

SHAPES = [((1,), 1, 1), ((5,), 3, 2), ((2, 3), 17, 33), ((0,), 4, 5), ((), 6, 7), ((129,), 64, 16)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, (*s[0], *s[1:]))))


def problem(
    shape: tuple[tuple[int, ...], int, int], bias: bool = True, dtype: torch.dtype = torch.float64
) -> list[Any]:
    """Points, weights and, where asked for, a bias, and a curvature, all wanting gradients."""
    batch, fan_in, out = shape
    generator = torch.Generator().manual_seed(fan_in + 31 * out)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return [normal(*batch, fan_in), normal(out, fan_in), normal(out), normal(out) if bias else None, curvature(0.7)]


def curvature(c: float) -> Tensor:
    return torch.tensor([c], dtype=torch.float64, requires_grad=True)


def wanting(arguments: list[Any]) -> list[Tensor]:
    return [a for a in arguments if isinstance(a, Tensor)]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@shapes
def test_value_and_gradients_are_those_of_the_specification(
    shape: tuple[tuple[int, ...], int, int], bias: bool
) -> None:
    arguments = problem(shape, bias)
    y, expected = linear(*arguments), naive.linear(*arguments)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)
    upstream = torch.randn_like(y)
    got = torch.autograd.grad(y, wanting(arguments), upstream)
    for value, wanted in zip(got, torch.autograd.grad(expected, wanting(arguments), upstream), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12)


def test_gradients_are_made_for_those_only_that_want_them() -> None:
    arguments = problem(((5,), 3, 2))
    for wanted in wanting(arguments):
        for argument in wanting(arguments):
            argument.requires_grad_(argument is wanted)
        (grad,) = torch.autograd.grad(linear(*arguments).square().sum(), wanted)
        (expected,) = torch.autograd.grad(naive.linear(*arguments).square().sum(), wanted)
        torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
def test_gradcheck_and_second_derivatives(c: float) -> None:
    arguments = [*problem(((2, 2), 3, 4))[:4], curvature(c)]
    assert torch.autograd.gradcheck(linear, arguments)
    assert torch.autograd.gradgradcheck(linear, arguments)


def test_a_gradient_penalty_trains_the_weights_as_the_specification_does() -> None:
    """The upstream gradient needs none here, which is where a backward without second derivative stays silent."""

    def penalty(function: Callable[..., Tensor]) -> list[Tensor]:
        arguments = problem(((5,), 3, 4))
        (grad,) = torch.autograd.grad(function(*arguments).sum(), arguments[0], create_graph=True)
        return list(torch.autograd.grad(grad.square().sum(), [*arguments[:3], arguments[4]]))

    torch.testing.assert_close(penalty(linear), penalty(naive.linear), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [strided, padded, expanded], ids=lambda layout: layout.__name__)
def test_memory_layout_does_not_matter(layout: Callable[[Tensor], Tensor]) -> None:
    plain = [part.detach() for part in wanting(problem(((5,), 3, 4)))]
    laid = [layout(part).requires_grad_() for part in plain]
    upstream = layout(torch.randn(5, 4, dtype=torch.float64))
    same = [part.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for part in laid]
    expected = naive.linear(*same)
    torch.testing.assert_close(linear(*laid), expected)
    got = torch.autograd.grad(linear(*laid), laid, upstream)
    torch.testing.assert_close(got, torch.autograd.grad(expected, same, upstream.contiguous()))


@pytest.mark.parametrize("radius", [0.0, 1e-3, 1.0, 100.0])
def test_float32_is_as_exact_as_the_composition(radius: float) -> None:
    exact = problem(((40,), 16, 8))
    exact[0] = (radius * exact[0].detach() / exact[0].norm(dim=-1, keepdim=True)).requires_grad_()
    low = [part.detach().float().requires_grad_() for part in wanting(exact)]
    upstream = torch.randn(40, 8)
    truth = naive.linear(*exact)
    wanted = torch.autograd.grad(truth, exact, upstream.double())
    for function in (linear, naive.linear):
        y = function(*low)
        assert_close("y", truth, y, 3e-7)
        for name, expected, got in zip("xwtbc", wanted, torch.autograd.grad(y, low, upstream), strict=True):
            assert_close(name, expected, got, 2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_as_exact_as_torchs_own_linear(dtype: torch.dtype) -> None:
    low = [part.to(dtype).detach().requires_grad_() for part in wanting(problem(((40,), 16, 8)))]
    low[2].data *= 0.01  # the product dominates: its rounding is the limit
    exact = [part.detach().double().requires_grad_() for part in low]
    upstream = torch.randn(40, 8).to(dtype)
    peer, truth = F.linear(*low[:2], low[3]), F.linear(*exact[:2], exact[3])
    limit = 1.5 * error_ratio(truth, peer)
    assert_close("y", naive.linear(*exact), linear(*low), limit)
    wanted = torch.autograd.grad(naive.linear(*exact), exact, upstream.double())
    got = torch.autograd.grad(linear(*low), low, upstream)
    assert [grad.dtype for grad in got] == [dtype] * 5
    for name, expected, value in zip("xwtbc", wanted, got, strict=True):
        assert_close(name, expected, value, 2 * torch.finfo(dtype).eps)


def test_autocast_rounds_the_product_and_not_the_time() -> None:
    parts = [part.detach().float().requires_grad_() for part in wanting(problem(((6,), 8, 4)))]
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(*parts)
        expected = naive.linear(*parts)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    got = torch.autograd.grad(y.float().square().sum(), parts)
    wanted = torch.autograd.grad(expected.float().square().sum(), parts)
    assert [grad.dtype for grad in got] == [torch.float32] * 5
    for name, value, grad in zip("xwtbc", wanted, got, strict=True):
        assert_close(name, value, grad, 4 * torch.finfo(torch.bfloat16).eps)


def scalar(*arguments: Tensor) -> Tensor:
    return linear(*arguments).sin().sum()


def plain_scalar(*arguments: Tensor) -> Tensor:
    return naive.linear(*arguments).sin().sum()


@pytest.mark.parametrize("dynamic", [False, True])
def test_it_compiles_whole_forward_and_backward(dynamic: bool) -> None:
    torch.compiler.reset()
    compiled = torch.compile(scalar, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for batch in (5, 9):
        arguments = problem(((batch,), 3, 4))
        got = torch.autograd.grad(compiled(*arguments), wanting(arguments))
        torch.testing.assert_close(got, torch.autograd.grad(plain_scalar(*arguments), wanting(arguments)))


def test_it_compiles_once_for_every_number_of_rows() -> None:
    torch.compiler.reset()
    compiles = CompileCounter()
    compiled = torch.compile(linear, fullgraph=True, dynamic=True, backend=compiles)
    for batch in (5, 8, 13):
        arguments = problem(((batch,), 3, 4))
        torch.testing.assert_close(compiled(*arguments), naive.linear(*arguments))
    assert compiles.frame_count == 1


def test_transforms_of_torch_func() -> None:
    arguments = [part.detach() for part in wanting(problem(((5,), 3, 4)))]
    tangents = tuple(torch.randn_like(part) for part in arguments)
    rest = arguments[1:]
    batch = torch.stack([arguments[0]] * 3)
    torch.testing.assert_close(torch.vmap(lambda x: linear(x, *rest))(batch)[1], naive.linear(*arguments))
    torch.testing.assert_close(torch.func.grad(scalar)(*arguments), torch.func.grad(plain_scalar)(*arguments))
    got = torch.func.jvp(linear, tuple(arguments), tangents)
    torch.testing.assert_close(got, torch.func.jvp(naive.linear, tuple(arguments), tangents))
    got = torch.func.jacrev(lambda x: linear(x, *rest))(arguments[0])
    torch.testing.assert_close(got, torch.func.jacrev(lambda x: naive.linear(x, *rest))(arguments[0]))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(arguments[0], tangents[0])
        assert torch.autograd.forward_ad.unpack_dual(linear(dual, *rest)).tangent is not None


def test_checkpoints_recompute_it() -> None:
    arguments = problem(((5,), 3, 4))
    again: Tensor = checkpoint(scalar, *arguments, use_reentrant=False)
    got = torch.autograd.grad(again, wanting(arguments))
    torch.testing.assert_close(got, torch.autograd.grad(plain_scalar(*arguments), wanting(arguments)))


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        parts = [part.detach() for part in wanting(problem(((5,), 3, 4)))[1:4]]
        self.weight, self.time_weight, self.bias = (torch.nn.Parameter(part) for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.time_weight, self.bias, 0.7)


def test_it_exports() -> None:
    layer, x = Layer(), torch.randn(5, 3, dtype=torch.float64)
    dynamic = ({0: torch.export.Dim("batch", min=2)},)
    exported = torch.export.export(layer, (x,), dynamic_shapes=dynamic).module()
    more = torch.randn(8, 3, dtype=torch.float64)
    torch.testing.assert_close(exported(more), copy.deepcopy(layer)(more))


def test_one_curvature_for_each_row_is_composed() -> None:
    x, weight, time_weight, bias, _ = problem(((5,), 3, 4))
    c = torch.rand(5, 1, dtype=torch.float64) + 0.5
    expected = torch.stack([naive.linear(x[i], weight, time_weight, bias, c[i]) for i in range(5)])
    torch.testing.assert_close(linear(x, weight, time_weight, bias, c), expected)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            ((5, 4), (2, 3), (2,), (2,)),
            r"expected x \(..., in\), weight \(out, in\), time_weight \(out\), got \(\(5, 4\)",
        ),
        (((5, 3), (2, 3), (1,), (2,)), r"time_weight \(out\), got .*\(1,\)\)"),
        (((5, 3), (2, 3), (2,), (3,)), r"expected bias \(2,\) or none, got \(3,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(sizes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear(*(torch.zeros(size) for size in sizes))


def samples(dtype: torch.dtype = torch.float32) -> dict[str, tuple[Any, ...]]:
    """Arguments of each operator; x has its columns beside each other, rows farther apart than they are long."""
    x, weight, time_weight, bias = (part.detach().to(dtype) for part in wanting(problem(((5,), 3, 4)))[:4])
    product, x0 = torch.randn(5, 4).to(dtype), torch.rand(5, 1) + 1
    return {
        "linear_time": (padded(x), None, 1.0),
        "linear_epilogue": (product, x0, time_weight, bias, "", False, None, 1.0),
        "linear_epilogue, all": (product, x0, time_weight, None, "gelu", True, None, 0.7),
        "linear_product": (x, weight, x0, time_weight, None, "", False, None, 1.0),
        "linear_product, all": (x, weight, x0, time_weight, bias, "silu", True, torch.tensor([0.7]), 0.0),
        "linear_backward": (product, x0, time_weight, None, None, None, ""),
        "linear_backward, all": (product, x0, time_weight, product + 1, x0, x0, "gelu"),
        "linear_add_time": (torch.randn(5, 3).to(dtype), padded(x), x0),
    }


@pytest.mark.parametrize("permuted", [True, False], ids=["permuted", "plain"])
@pytest.mark.parametrize("name", samples())
def test_the_operators_keep_their_contract_with_torch(name: str, permuted: bool) -> None:
    arguments = samples()[name]
    if permuted:  # dense, in an order that `empty_like` would keep
        matrices = [isinstance(part, Tensor) and part.dim() == 2 for part in arguments]
        arguments = tuple(
            part.mT.contiguous().mT if matrix else part for part, matrix in zip(arguments, matrices, strict=True)
        )
    torch.library.opcheck(getattr(torch.ops.lorentz_kernels, name.split(",")[0]).default, arguments)


ENDS: list[dict[str, Any]] = [{"activation": name} for name in (None, "relu", "gelu", "silu", "tanh")]
ends = pytest.mark.parametrize("options", ENDS, ids=lambda options: str(options["activation"]))


def chain(functions: tuple[Callable[..., Any], ...], parts: list[Any], **options: Any) -> Tensor:
    """Two maps of which the second takes the time of the first; parts as of `problem`, the weight used twice."""
    with_time, plain = functions
    x, weight, time_weight, bias, c = parts
    y, y0 = with_time(x, weight, time_weight, bias, c, **options)
    z: Tensor = plain(y, weight.mT, x[0], None, c, x0=y0)
    return torch.cat([y, z, y0], dim=-1)


OURS, SPECIFIED = (linear_with_time, linear), (naive.linear_with_time, naive.linear)


@ends
def test_activation_and_time_are_those_of_the_specification(options: dict[str, Any]) -> None:
    arguments = problem(((2, 5), 3, 4))
    arguments[0] = arguments[0][0]
    y, expected = chain(OURS, arguments, **options), chain(SPECIFIED, arguments, **options)
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)
    upstream = torch.randn_like(y)
    got, wanted = (torch.autograd.grad(value, arguments, upstream) for value in (y, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@ends
def test_every_derivative_goes_through_activation_and_time(options: dict[str, Any]) -> None:
    arguments = problem(((3,), 3, 4))
    assert torch.autograd.gradcheck(lambda *parts: chain(OURS, list(parts), **options), arguments)
    assert torch.autograd.gradgradcheck(lambda *parts: chain(OURS, list(parts), **options), arguments)


@ends
def test_the_kernels_end_has_the_gradients_of_the_closed_form(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorentz_kernels.linear.op.choose", lambda *_, **__: "triton")  # a CPU runs their equations
    low = [part.detach().float().requires_grad_() for part in problem(((9,), 5, 6))]
    exact = [part.detach().double().requires_grad_() for part in low]
    y, expected = chain(OURS, low, **options), chain(SPECIFIED, exact, **options)
    assert_close("y", expected, y, 1e-6)
    upstream = torch.randn(y.shape)
    wanted = torch.autograd.grad(expected, exact, upstream.double())
    for name, value, grad in zip("xwtbc", wanted, torch.autograd.grad(y, low, upstream), strict=True):
        assert_close(name, value, grad, 2e-5 if name == "c" else 3e-6)  # c's is one number, a sum of either sign


@pytest.mark.parametrize(("activation", "kept"), [("relu", 1), ("tanh", 1), ("gelu", 1), ("silu", 1), (None, 0)])
def test_one_tensor_of_the_size_of_the_output_is_kept_at_most(activation: str | None, kept: int) -> None:
    x, weight, time_weight, bias, _ = problem(((64,), 32, 33), dtype=torch.float32)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda part: sizes.append(part.numel()) or part, lambda part: part):
        linear(x, weight, time_weight, bias, activation=activation)
    assert sizes.count(64 * 33) == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "elu"}, "expected an activation of relu, gelu, silu, tanh, or none, got 'elu'"),
        ({"x0": torch.zeros(5)}, r"expected the times of x, \(5, 1\), got \(5,\)"),
    ],
)
def test_an_end_that_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear(torch.zeros(5, 3), torch.zeros(2, 3), torch.zeros(2), **options)


def test_the_operators_in_the_order_that_triton_calls_them_are_the_closed_form() -> None:
    x, weight, time_weight, bias, c = (part.detach().float() for part in wanting(problem(((9,), 5, 6))))
    upstream = torch.randn(9, 6)
    exact = [part.double().requires_grad_() for part in (x, weight, time_weight, bias, c)]
    expected = naive.linear(*exact)
    y, x0, *_ = rows.forward(x, weight, time_weight, bias, c, None, torch.float32, "", False)
    assert_close("y", expected, y, 3e-7)
    wanted = torch.autograd.grad(expected, exact, upstream.double())
    none = Epilogue("", None, None, None)
    found = rows.backward(upstream, x, x0, weight, time_weight, c, True, none, [True] * 6)
    for name, truth, got in zip("xwtbc", wanted, found[:5], strict=True):
        assert got is not None
        assert_close(name, truth, got.reshape(truth.shape), 1e-6)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,)], ids=str)
def test_a_result_may_be_changed_in_place(shape: tuple[int, ...]) -> None:
    """As `torch.nn.ReLU(inplace=True)` does after `torch.nn.Linear`."""
    generator = torch.Generator().manual_seed(0)
    x, weight, time_weight = (torch.randn(size, generator=generator) for size in (shape, (6, 4), (6,)))
    results = []
    for relu in (torch.relu, torch.relu_):
        leaves = [t.clone().requires_grad_() for t in (x, weight, time_weight)]
        y = relu(linear(*leaves))
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    torch.testing.assert_close(*results, rtol=0, atol=0)

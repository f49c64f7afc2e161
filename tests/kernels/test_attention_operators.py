"""The operators of attention as torch sees them, plain torch in the kernels' place: contracts and transforms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from lorentz_kernels.attention import attention, naive, operators, tile
from tests.kernels.compare import assert_close

MASK = torch.tensor([[True, False, True, True, False]])
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True, "scale": torch.tensor([[[0.4]], [[0.9]]]), "c": 2.0},
    "masked": {"attn_mask": MASK, "c": torch.tensor([0.5]), "scale": 0.7},
}
calls = pytest.mark.parametrize("options", CALLS.values(), ids=CALLS)


@pytest.fixture(params=[32, 0], ids=["short", "long"])
def fused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Route `attention` to its operators, as on a GPU; a CPU that interprets nothing runs their equations."""
    monkeypatch.setattr("lorentz_kernels.attention.op.choose", lambda *_, **__: "triton")
    monkeypatch.setattr("lorentz_kernels.attention.tile.LONGEST", request.param)


def operands(length: int = 3, dtype: torch.dtype = torch.float32, grad: bool = True) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(length)
    shapes = (2, 2, length, 4), (2, 2, 5, 4), (2, 2, 5, 6)
    drawn = (torch.randn(s, generator=generator) / 2 for s in shapes)
    return tuple(x.to(dtype).requires_grad_(grad) for x in drawn)


def graph_targets(graphs: list[torch.fx.GraphModule]) -> set[str]:
    return {str(node.target) for graph in graphs for node in graph.graph.nodes}


@pytest.mark.parametrize("layout", ["dense", "permuted", "cut"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
def test_the_operators_keep_their_contracts(masked: bool, dtype: torch.dtype, layout: str) -> None:
    q, k, v = (x.detach() for x in operands(dtype=dtype))
    if layout == "permuted":  # dense, in an order that `empty_like` would keep
        q, k, v = (x.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0) for x in (q, k, v))
    if layout == "cut":
        q, k, v = (x.repeat(1, 1, 1, 2)[..., 1 : x.shape[-1] + 1] for x in (q, k, v))
    wide = torch.promote_types(dtype, torch.float32)
    given = (MASK[None, None], torch.ones(1, 2, 1, dtype=wide), torch.ones(1, dtype=wide)) if masked else (None,) * 3
    options = 0.5, 1.0, masked, 1, dtype != torch.bfloat16
    arguments = (q, k, v, *given, *options)
    torch.library.opcheck(operators.attention, arguments)
    saved = operators.attention(*arguments)
    grad = torch.ones_like(saved[0]).transpose(-1, -2).contiguous().transpose(-1, -2)
    torch.library.opcheck(operators.attention_backward, (grad, q, k, v, *given, *saved, *options))
    for qk_norm in (False, True):
        torch.library.opcheck(tile.attention_tile, (*arguments, qk_norm))
        torch.library.opcheck(tile.attention_tile_backward, (grad, *arguments, qk_norm))


@pytest.mark.usefixtures("fused")
@calls
def test_torch_func_transforms(options: dict[str, Any]) -> None:
    q, k, v = operands(grad=False)
    tangent = torch.ones_like(q)

    def loss(q: Tensor) -> Tensor:
        return attention(q, k, v, **options).square().sum()

    leaf = q.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    assert_close("grad", expected, torch.func.grad(loss)(q), 1e-5)
    _, along = torch.func.jvp(loss, (q,), (tangent,))
    assert_close("jvp", (expected * tangent).sum(), along, 1e-5)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(loss(forward_ad.make_dual(q, tangent)))
        assert_close("tangent", along, dual.tangent, 1e-6)
    jacobian = torch.func.jacrev(lambda q: attention(q, k, v, **options))(q).sum((0, 1, 2, 3))
    (summed,) = torch.autograd.grad(attention(leaf, k, v, **options).sum(), leaf)
    assert_close("jacobian", summed, jacobian, 1e-5)
    many = torch.stack([q, 2 * q])
    mapped = torch.vmap(lambda q: attention(q, k, v, **options))(many)
    assert_close("vmap", torch.stack([attention(x, k, v, **options) for x in many]), mapped, 1e-6)


@pytest.mark.usefixtures("fused")
@calls
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_penalty_has_the_gradient_that_float64_says(dtype: torch.dtype, options: dict[str, Any]) -> None:
    inputs = operands(dtype=dtype)

    def penalty(x: tuple[Tensor, ...], function: Any) -> list[Tensor]:
        cast = {
            n: o.to(x[0].dtype) if isinstance(o, Tensor) and o.is_floating_point() else o for n, o in options.items()
        }
        slopes = torch.autograd.grad(function(*x, **cast).sum(), x, create_graph=True)
        return [g.double() for g in torch.autograd.grad(sum(s.double().square().sum() for s in slopes), x)]

    found = penalty(inputs, attention)
    expected = penalty(tuple(x.detach().double().requires_grad_() for x in inputs), naive.attention)
    limit = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found, expected, rtol=limit, atol=limit * max(e.abs().max().item() for e in expected))


@pytest.mark.usefixtures("fused")
def test_checkpoint_and_a_frozen_input() -> None:
    q, k, v = operands()
    k = k.detach()
    out = checkpoint(attention, q, k, v, use_reentrant=False)
    gradients = torch.autograd.grad(out.sum(), (q, v))
    torch.testing.assert_close(gradients, torch.autograd.grad(attention(q, k, v).sum(), (q, v)))


@pytest.mark.usefixtures("fused")
@calls
def test_one_graph_with_the_operators_in_it_forward_and_backward(options: dict[str, Any]) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    compiled = torch.compile(lambda q, k, v: attention(q, k, v, **options).sin().sum(), fullgraph=True,
                             backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))  # fmt: skip
    q, k, v = operands()
    gradients = torch.autograd.grad(compiled(q, k, v), (q, k, v))
    expected = torch.autograd.grad(attention(q, k, v, **options).sin().sum(), (q, k, v))
    torch.testing.assert_close(gradients, expected)
    names = graph_targets(graphs)
    assert {"lorentz_kernels.attention.default", "lorentz_kernels.attention_backward.default"} <= names


@pytest.mark.usefixtures("fused")
def test_lengths_are_dynamic_and_a_second_one_compiles_nothing() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q, k, v: attention(q, k, v, is_causal=True), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for length in (3, 7):
        torch.testing.assert_close(compiled(*operands(length)), attention(*operands(length), is_causal=True))
    with torch._dynamo.config.patch(error_on_recompile=True):
        q, k, v = operands(11)
        torch.autograd.grad(compiled(q, k, v).sum(), (q, k, v))


@pytest.mark.usefixtures("fused")
def test_export_keeps_the_operator() -> None:
    class Layer(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v, is_causal=True)

    arguments = operands(grad=False)
    length = torch.export.Dim("length", min=2, max=64)
    program = torch.export.export(Layer(), arguments, dynamic_shapes=({2: length}, None, None))
    assert "lorentz_kernels.attention.default" in graph_targets([program.graph_module])
    longer = operands(9, grad=False)
    torch.testing.assert_close(program.module()(*longer), attention(*longer, is_causal=True))


@pytest.mark.usefixtures("fused")
def test_autocast_narrows_coordinates_and_not_times() -> None:
    q, k, v = operands()
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(30 * q, 30 * k, v, scale=1e-3)
    assert out.dtype == torch.bfloat16
    narrow = ((30 * q).bfloat16(), (30 * k).bfloat16(), v.bfloat16())
    expected = naive.attention(*(x.double() for x in narrow), scale=1e-3)
    torch.testing.assert_close(out.double(), expected, rtol=0.01, atol=0.01)
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(out.float().sum(), (q, k, v)))


@pytest.mark.usefixtures("fused")
def test_what_no_kernel_knows_takes_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = operands()
    expected = naive.attention(q, k, v)
    for each in ("op.operators.attention", "tile.Tile.attention"):
        monkeypatch.setattr(f"lorentz_kernels.attention.{each}", None)
    torch.testing.assert_close(attention(q, k, v, c=torch.ones(2, 1, 1, 1)), expected)
    mask = torch.zeros(3, 5, requires_grad=True)
    torch.testing.assert_close(attention(q, k, v, mask), expected)
    assert attention(q, k, v, dropout_p=0.5).shape == expected.shape
    wide = torch.randn(3, 200)
    torch.testing.assert_close(attention(wide, wide, wide), naive.attention(wide, wide, wide))
    torch.testing.assert_close(attention(q, k.half(), v), naive.attention(q, k.half().float(), v))


@pytest.mark.usefixtures("fused")
def test_a_mask_or_a_scale_of_another_shape_is_named() -> None:
    q, k, v = operands()
    with pytest.raises(ValueError, match=r"expected attn_mask to broadcast to \(2, 2, 3, 5\), got \(4, 1, 1, 3, 5\)"):
        attention(q, k, v, torch.ones(4, 1, 1, 3, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"expected scale to broadcast to \(2, 2, 3, 1\), got \(3, 2, 2, 3, 1\)"):
        attention(q, k, v, scale=torch.ones(3, 2, 2, 3, 1))

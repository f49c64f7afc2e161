"""`attention`: the centroid under a softmax of squared Lorentzian distances, with torch's mask semantics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import lorentz.functional as LF
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def operands(length: int = 5, keys: int = 7, m: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = ((2, 3, length, 4), (2, 3, keys, 4), (2, 3, keys, m))
    return [normal(*shape, seed=seed).to(dtype) for seed, shape in enumerate(shapes)]


def reference(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float = 0.5, c: float = 1.0
) -> Tensor:
    """The paper's equations on ambient points, float64."""
    bias = torch.zeros(q.shape[-2], k.shape[-2], dtype=torch.float64) if bias is None else bias
    return oracles.ambient_attention(*(oracles.ambient(x, c) for x in (q, k, v)), bias, scale, c)[..., 1:]


def bias_of(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, float("-inf"))


@curvatures
@pytest.mark.parametrize("m", [4, 6])
def test_attention_is_the_equation_of_the_paper(m: int, c: float) -> None:
    q, k, v = operands(m=m)
    torch.testing.assert_close(LF.attention(q, k, v, scale=0.3, c=c), reference(q, k, v, scale=0.3, c=c))
    torch.testing.assert_close(LF.attention(q, k, v, c=c), reference(q, k, v, scale=4**-0.5, c=c))
    torch.testing.assert_close(
        LF.attention(*(x.float() for x in (q, k, v)), c=c), reference(q, k, v, c=c).float(), rtol=1e-5, atol=1e-5
    )


def test_attention_without_batch_dimensions_and_with_packed_strides() -> None:
    q, k, v = operands()
    torch.testing.assert_close(LF.attention(q[0, 0], k[0, 0], v[0, 0]), LF.attention(q, k, v)[0, 0])
    packed = normal(2, 5, 3 * 12, dtype=torch.float32)
    q, k, v = (LF.split_heads(part, 3) for part in packed.chunk(3, dim=-1))
    expected = reference(q, k, v).float()
    torch.testing.assert_close(LF.attention(q, k, v), expected, rtol=1e-5, atol=1e-5)


def test_masks_mean_what_they_mean_in_torch() -> None:
    q, k, v = operands()
    mask = normal(5, 7, seed=9) > 0
    mask[:, 0] = True
    torch.testing.assert_close(LF.attention(q, k, v, mask), reference(q, k, v, bias_of(mask)))
    added = normal(5, 7, seed=8).masked_fill(~mask, float("-inf"))
    torch.testing.assert_close(LF.attention(q, k, v, added), reference(q, k, v, added))
    torch.testing.assert_close(
        LF.attention(*(x.bfloat16() for x in (q, k, v)), added.bfloat16()).double(),
        reference(q, k, v, added),
        rtol=0.1,
        atol=0.1,
    )
    for rows in (5, 7, 9):  # causal aligns at the first row and column, also where lengths differ
        queries = normal(2, 3, rows, 4, seed=4)
        causal = torch.ones(rows, 7, dtype=torch.bool).tril()
        expected = reference(queries, k, v, bias_of(causal))
        torch.testing.assert_close(LF.attention(queries, k, v, is_causal=True), expected)
    padding = torch.arange(7) < torch.tensor([7, 4])[:, None]  # (batch, keys)
    out = LF.attention(q, k, v, padding[:, None, None])
    torch.testing.assert_close(out[1], LF.attention(q[1], k[1, :, :4], v[1, :, :4]))


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_query_without_keys_gets_the_origin_and_moves_nothing(kind: str, dtype: torch.dtype) -> None:
    q, k, v = (x.requires_grad_() for x in operands(dtype=dtype))
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[2] = False
    out = LF.attention(q, k, v, mask if kind == "bool" else bias_of(mask).to(dtype))
    assert not out[:, :, 2].any()
    assert out.isfinite().all()
    grads = torch.autograd.grad(out.float().square().sum(), (q, k, v))
    without = torch.autograd.grad(LF.attention(q[:, :, mask[:, 0]], k, v).float().square().sum(), (q, k, v))
    torch.testing.assert_close(grads, without, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-3)
    assert not grads[0][:, :, 2].any()


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_without_keys_needs_no_care_from_the_softmax(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def textbook(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, *_: object, **__: object) -> Tensor:
        bias = bias_of(attn_mask) if attn_mask.dtype == torch.bool else attn_mask
        return torch.softmax(q @ k.mT + bias, dim=-1) @ v  # NaN, also in torch before 2.5

    q, k, v = (x.requires_grad_() for x in operands())
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[2] = False
    given = mask if kind == "bool" else bias_of(mask)
    expected = LF.attention(q, k, v, given)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", textbook)
    out = LF.attention(q, k, v, given)
    torch.testing.assert_close(out, expected)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), (q, k, v)))


def test_no_keys_at_all_give_the_origin() -> None:
    q, k, v = operands(keys=0)
    assert torch.equal(LF.attention(q, k, v), torch.zeros_like(q))


@curvatures
@pytest.mark.parametrize("radius", [0.0, 1.0, 5.0, 8.0, 12.0])
def test_one_key_returns_its_value_exactly(radius: float, c: float) -> None:
    v = oracles.points_at(radius / c**0.5, 3, 4, seed=0, c=c).float()[:, None]
    out = LF.attention(torch.zeros(3, 2, 4), v, v, c=c)
    torch.testing.assert_close(out, v.expand(3, 2, 4), rtol=1e-6, atol=0)


@pytest.mark.parametrize("radius", [1.0, 3.0, 5.0])
def test_clustered_values_keep_their_distances_in_float32(radius: float) -> None:
    centre = oracles.points_at(radius, 1, 8, seed=1)
    v = oracles.neighbours_at(centre.expand(32, 8), 0.5, seed=2).float()
    q = normal(6, 8, seed=3, dtype=torch.float32)
    gap = LF.dist(LF.attention(q, 0.1 * v, v).double(), reference(q, 0.1 * v, v, scale=8**-0.5))
    # Rounding the output alone moves it by eps * x0; the ambient form is off by eps * x0^2.
    assert gap.max() < 2 * torch.finfo(torch.float32).eps * LF.time(centre).item()


@pytest.mark.parametrize("radius", [8.0, 12.0, 16.0])
def test_values_far_apart_stay_finite(radius: float) -> None:
    v = oracles.points_at(radius, 40, 6, seed=1).float().requires_grad_()
    # Each query all but selects one value, so that the mean lies on the sheet up to rounding.
    mask = torch.full((40, 40), -60.0).fill_diagonal_(0.0)
    out = LF.attention(torch.zeros(40, 6), torch.zeros(40, 6), v, mask)
    torch.testing.assert_close(out, v, rtol=1e-4, atol=0)
    assert torch.autograd.grad(out.sum(), v)[0].isfinite().all()


@pytest.mark.parametrize("radius", [10.0, 12.0, 16.0])
def test_equal_values_far_out_among_others_give_a_finite_point_inside(radius: float) -> None:
    v = oracles.points_at(radius, 10, 6, seed=1).float().repeat_interleave(20, dim=0).requires_grad_()
    groups = torch.arange(200) // 20
    # The mean of equal values lies on the sheet; its rounding may put it below, where no point is.
    out = LF.attention(torch.zeros(10, 6), torch.zeros(200, 6), v, groups == torch.arange(10)[:, None])
    unit, length = torch.nn.functional.normalize(out, dim=-1), out.norm(dim=-1)
    torch.testing.assert_close(unit, torch.nn.functional.normalize(v[::20], dim=-1))
    assert (length < v[::20].norm(dim=-1) * (1 + 1e-5)).all()
    assert torch.autograd.grad(out.sum(), v)[0].isfinite().all()


@curvatures
def test_attention_commutes_with_isometries(c: float) -> None:
    q, k, v = operands()
    u, r = torch.tensor([0.5, -0.2, 0.1, 0.3], dtype=torch.float64), torch.linalg.qr(normal(4, 4)).Q

    def move(x: Tensor) -> Tensor:
        return LF.boost(LF.rotate(x, r), u, c)

    torch.testing.assert_close(LF.attention(move(q), move(k), move(v), c=c), move(LF.attention(q, k, v, c=c)))


def test_attention_is_equivariant_to_queries_and_invariant_to_the_order_of_keys() -> None:
    q, k, v = operands()
    rows, columns = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([6, 2, 0, 1, 5, 3, 4])
    out = LF.attention(q, k, v)
    torch.testing.assert_close(LF.attention(q[:, :, rows], k, v), out[:, :, rows])
    torch.testing.assert_close(LF.attention(q, k[:, :, columns], v[:, :, columns]), out)


def test_a_vanishing_scale_gives_the_centroid_of_the_values() -> None:
    q, k, v = operands()
    expected = LF.centroid(v)[:, :, None].expand_as(q)
    torch.testing.assert_close(LF.attention(q, k, v, scale=1e-12), expected)


def test_scale_may_be_learned_per_head() -> None:
    q, k, v = operands()
    scale = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)[:, None, None].requires_grad_()
    out = LF.attention(q, k, v, scale=scale)
    for head, each in enumerate((0.1, 0.5, 1.0)):
        torch.testing.assert_close(out[:, head], LF.attention(q[:, head], k[:, head], v[:, head], scale=each))
    assert torch.autograd.gradcheck(lambda scale: LF.attention(q, k, v, scale=scale), (scale,))


def test_dropout_gives_the_centroid_of_the_weights_that_are_left() -> None:
    # Equal scores: with the weights that survive, the centroid of one value repeated is that value, or the origin.
    q, k, v = torch.zeros(1, 4000, 3), torch.zeros(1, 3, 3), torch.tensor([[[3.0, 4.0, 0.0]]]).expand(1, 3, 3)
    torch.manual_seed(0)
    out = LF.attention(q, k, v, dropout_p=0.5)[0]
    empty = ~out.any(-1)
    torch.testing.assert_close(out[~empty], v[0, :1].expand_as(out[~empty]))
    assert abs(empty.double().mean().item() - 0.125) < 4.5 * (0.125 * 0.875 / 4000) ** 0.5
    # With different values, the survivors' mean is one of the seven centroids of subsets.
    v = normal(1, 3, 3, dtype=torch.float32)
    out = LF.attention(q, k, v, dropout_p=0.5)[0]
    subsets = torch.tensor([[a, b, c] for a in (0.0, 1) for b in (0.0, 1) for c in (0.0, 1)])
    centroids = LF.centroid(v.expand(8, 3, 3), subsets)
    assert LF.pairwise_dist(out, centroids).min(dim=-1).values.max() < 1e-5


def test_gradients_survive_dropout_of_every_key() -> None:
    q, k, v = (x.requires_grad_() for x in operands(keys=1))
    torch.manual_seed(0)
    out = LF.attention(q, k, v, dropout_p=0.5)
    assert not out.any(-1).all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), (q, k, v)))


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_right_with_masks_and_in_the_curvature(masked: bool) -> None:
    q, k, v = (x[:1, :1].requires_grad_() for x in operands(length=3, keys=4))
    c = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool) if masked else None

    def function(q: Tensor, k: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return LF.attention(q, k, v, mask, c=c)

    assert torch.autograd.gradcheck(function, (q, k, v, c))
    assert torch.autograd.gradgradcheck(function, (q, k, v, c), atol=1e-4)


@pytest.mark.parametrize("backends", [[SDPBackend.MATH], list(SDPBackend.__members__.values())], ids=["plain", "any"])
def test_second_derivatives_in_float32_are_those_of_float64(backends: list[SDPBackend]) -> None:
    q, k, v = (x.requires_grad_() for x in operands(dtype=torch.float32))
    with sdpa_kernel(backends):
        (grad,) = torch.autograd.grad(LF.attention(q, k, v).square().sum(), q, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), q)
    q64 = q.detach().double().requires_grad_()
    loss = LF.attention(q64, k.double(), v.double()).square().sum()
    (grad64,) = torch.autograd.grad(loss, q64, create_graph=True)
    (second64,) = torch.autograd.grad(grad64.square().sum(), q64)
    torch.testing.assert_close(second, second64.float(), rtol=1e-3, atol=1e-4)


def test_memory_does_not_grow_with_the_square_of_the_length() -> None:
    q = normal(1, 1, 4096, 8, dtype=torch.float32).requires_grad_()
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        LF.attention(q, q, q, is_causal=True)
    assert saved < 64 * q.numel() < 4096**2


def test_ambient_values_in_place_of_space_coordinates_are_refused() -> None:
    q, k, v = operands()
    with pytest.raises(ValueError, match=r"did you pass ambient points\?"):
        LF.attention(q, LF.to_ambient(k), v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mask_beside_causal_applies_as_well(dtype: torch.dtype) -> None:
    q, k, v = operands(length=6, dtype=dtype)
    mask = normal(6, 7, seed=9) > -0.5
    mask[0, 0], mask[1, 0] = False, True  # the first query has no key left
    both = mask & torch.ones(6, 7, dtype=torch.bool).tril()
    expected = LF.attention(q, k, v, both)
    assert not expected[:, :, 0].any()
    torch.testing.assert_close(LF.attention(q, k, v, mask, is_causal=True), expected)
    torch.testing.assert_close(LF.attention(q, k, v, bias_of(mask).to(dtype), is_causal=True), expected)

"""`MultiheadAttention`: the paper's equations, torch's arguments and masks, the cache, the ecosystem."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

curvatures = pytest.mark.parametrize("c", [0.25, 1.0, 4.0])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gap(got: Tensor, truth: Tensor) -> float:
    """The largest |got - truth| / |truth| of a position."""
    return ((got - truth).norm(dim=-1) / truth.norm(dim=-1)).max().item()


def attention(embed_dim: int = 8, num_heads: int = 2, seed: int = 0, **kwargs: Any) -> lnn.MultiheadAttention:
    """A module in float64 whose every parameter, the time weights and scales too, has left its initial value."""
    module = lnn.MultiheadAttention(embed_dim, num_heads, **{"batch_first": True, "dtype": torch.float64, **kwargs})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "log_c" not in name:
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(math.log(0.2) + 0.3 * drawn if name == "log_scale" else 0.4 * drawn)
    return module


def reference(
    module: lnn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The paper's equations on ambient points for one sequence, float64; `bias` (heads, L, S) is added to the scores.

    Heads are cut by hand; learned and zero keys come at the end, and no bias touches them.
    """
    c, d, groups = float(module.manifold.c), module.head_dim, module.num_heads // module.num_kv_heads
    widths = [module.embed_dim, module.num_kv_heads * d, module.num_kv_heads * d]
    spaces = []
    weights = (
        module.in_proj_weight.split(widths)
        if module.in_proj_weight is not None
        else [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    )
    biases = torch.zeros(sum(widths)).double() if module.in_proj_bias is None else module.in_proj_bias
    for x, w, t, b in zip(
        (query, key, value), weights, module.in_proj_time_weight.split(widths), biases.split(widths), strict=True
    ):
        matrix = torch.cat([t[:, None], w], dim=1)  # M, time column first
        spaces.append(oracles.ambient_linear(oracles.ambient(x, c), matrix, b, c)[:, 1:])
    q, k, v = spaces
    if module.bias_k is not None:
        k, v = torch.cat([k, module.bias_k[0]]), torch.cat([v, module.bias_v[0]])
    if module.add_zero_attn:
        k, v = torch.cat([k, 0 * k[:1]]), torch.cat([v, 0 * v[:1]])

    def placed(x: Tensor) -> Tensor:
        return x * d**0.5 / x.norm(dim=1, keepdim=True).clamp_min(1e-99) if module.qk_norm else x

    heads = []
    for h in range(module.num_heads):
        columns, shared = slice(h * d, (h + 1) * d), slice(h // groups * d, (h // groups + 1) * d)
        scores = torch.zeros(len(q), len(k)).double()
        if bias is not None:
            scores[:, : bias.shape[-1]] = bias[h]
        points = (oracles.ambient(x, c) for x in (placed(q[:, columns]), placed(k[:, shared]), v[:, shared]))
        heads.append(oracles.ambient_attention(*points, scores, module.log_scale[h].exp().item(), c)[:, 1:])
    merged = oracles.ambient(torch.cat(heads, dim=-1), c)
    matrix = torch.cat([module.out_proj.time_weight[:, None], module.out_proj.weight], dim=1)
    out_bias = torch.zeros(module.embed_dim).double() if module.out_proj.bias is None else module.out_proj.bias
    return oracles.ambient_linear(merged, matrix, out_bias, c)[:, 1:]


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "other widths": {"kdim": 5, "vdim": 3},
    "one other width": {"vdim": 3},
    "learned key": {"add_bias_kv": True},
    "zero key": {"add_zero_attn": True},
    "both keys": {"add_bias_kv": True, "add_zero_attn": True},
}
variants = pytest.mark.parametrize("kwargs", VARIANTS.values(), ids=VARIANTS.keys())


@curvatures
@pytest.mark.parametrize(
    "kwargs",
    [
        *VARIANTS.values(),
        {"num_kv_heads": 2},
        {"num_kv_heads": 1, "add_bias_kv": True},
        {"qk_norm": True},
        {"qk_norm": True, "num_kv_heads": 2, "add_bias_kv": True, "add_zero_attn": True},
    ],
)
def test_it_is_the_equations_of_the_paper(kwargs: dict[str, Any], c: float) -> None:
    module = attention(num_heads=4, manifold=Lorentz(c), **kwargs)
    query, key, value = normal(5, 8), normal(6, module.kdim, seed=1), normal(6, module.vdim, seed=2)
    bias = normal(4, 5, 6, seed=3).masked_fill(normal(4, 5, 6, seed=4) > 0.8, float("-inf"))
    out, _ = module(query, key, value, need_weights=False)
    torch.testing.assert_close(out, reference(module, query, key, value))
    out, weights = module(query, key, value, attn_mask=bias)
    torch.testing.assert_close(out, reference(module, query, key, value, bias))
    torch.testing.assert_close(weights.sum(-1), torch.ones(5).double())


@pytest.mark.parametrize("kwargs", [{}, {"num_kv_heads": 2}])
def test_self_attention_through_the_packed_product_is_cross_attention_to_a_copy(kwargs: dict[str, Any]) -> None:
    module, x = attention(num_heads=4, **kwargs), normal(3, 5, 8)
    torch.testing.assert_close(module(x, x, x)[0], module(x, x.clone(), x.clone())[0])
    torch.testing.assert_close(module(x, x, x)[0][1], reference(module, x[1], x[1], x[1]))


def test_layouts_agree() -> None:
    first, second = attention(), attention(batch_first=False)
    query, key = normal(3, 5, 8), normal(3, 6, 8, seed=1)
    padding = torch.arange(6) >= torch.tensor([6, 4, 5])[:, None]
    out, weights = first(query, key, key, padding)
    swapped, same = second(query.mT.mT.transpose(0, 1), *[key.transpose(0, 1)] * 2, padding)
    torch.testing.assert_close(swapped.transpose(0, 1), out)
    torch.testing.assert_close(same, weights)
    for module in (first, second):  # a single sequence has one layout
        alone, own = module(query[1], key[1], key[1], padding[1])
        torch.testing.assert_close(alone, out[1])
        torch.testing.assert_close(own, weights[1])
    assert first(query, key, key, average_attn_weights=False)[1].shape == (3, 2, 5, 6)
    assert first(query[0], key[0], key[0], average_attn_weights=False)[1].shape == (2, 5, 6)
    assert first(query, key, key, need_weights=False)[1] is None


def influence(module: nn.Module, query: Tensor, memory: Tensor, **kwargs: Any) -> Tensor:
    """Which memory positions move which output: (N, L, S)."""

    def per_query(memory: Tensor) -> Tensor:
        return module(query, memory, memory, **kwargs)[0].square().sum((0, 2))  # (L,), sequences do not mix

    rows = torch.autograd.functional.jacobian(per_query, memory)  # (L, N, S, E)
    return (rows != 0).any(-1).transpose(0, 1)


CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)
SOME = normal(5, 5, seed=7) > 0.5
PER_HEAD = (normal(6, 5, 5, seed=8) > 0.3) & ~torch.eye(5, dtype=torch.bool)
PADDING = torch.arange(5) >= torch.tensor([5, 3, 4])[:, None]
MASKS: dict[str, dict[str, Tensor]] = {
    "none": {},
    "causal": {"attn_mask": CAUSAL},
    "one for all": {"attn_mask": SOME & ~torch.eye(5, dtype=torch.bool)},
    "per head": {"attn_mask": PER_HEAD},
    "padding": {"key_padding_mask": PADDING},
    "causal and padding": {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
}


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True, "add_zero_attn": True}], ids=["", "more keys"])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS.keys())
def test_masks_cut_the_paths_that_torch_cuts(
    masks: dict[str, Tensor], extra: dict[str, bool], need_weights: bool, kind: str
) -> None:
    if kind == "float":
        zeros = {name: torch.zeros(mask.shape, dtype=torch.float64) for name, mask in masks.items()}
        masks = {name: zero.masked_fill(masks[name], float("-inf")) for name, zero in zeros.items()}
    ours, torchs = attention(**extra), nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64, **extra)
    query, memory = normal(3, 5, 8), normal(3, 5, 8, seed=1)
    expected = influence(torchs, query, memory, need_weights=need_weights, **masks)
    assert expected.any()
    assert torch.equal(influence(ours, query, memory, need_weights=need_weights, **masks), expected)
    assert ours(query, memory, memory, **masks)[1].shape == torchs(query, memory, memory, **masks)[1].shape


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True, "add_zero_attn": True}], ids=["", "more keys"])
def test_is_causal_needs_no_mask_and_adds_to_one(extra: dict[str, bool], need_weights: bool) -> None:
    module, x = attention(**extra), normal(3, 5, 8)
    expected = module(x, x, x, attn_mask=CAUSAL)[0]
    torch.testing.assert_close(module(x, x, x, is_causal=True, need_weights=need_weights)[0], expected)
    hinted = module(x, x, x, attn_mask=CAUSAL, is_causal=True, need_weights=need_weights)[0]
    torch.testing.assert_close(hinted, expected)
    floats = normal(5, 5, seed=6)
    both = module(x, x, x, attn_mask=floats.masked_fill(CAUSAL, float("-inf")))[0]
    torch.testing.assert_close(module(x, x, x, attn_mask=floats, is_causal=True, need_weights=need_weights)[0], both)
    padded = module(x, x, x, PADDING, attn_mask=CAUSAL)[0]
    torch.testing.assert_close(module(x, x, x, PADDING, is_causal=True, need_weights=need_weights)[0], padded)


def test_a_boolean_and_a_float_mask_combine() -> None:
    module, x = attention(), normal(3, 5, 8)
    floats = torch.zeros(3, 5, dtype=torch.float64).masked_fill(PADDING, float("-inf"))
    torch.testing.assert_close(
        module(x, x, x, floats, attn_mask=CAUSAL)[0], module(x, x, x, PADDING, attn_mask=CAUSAL)[0]
    )


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kwargs", [{}, {"num_kv_heads": 2, "add_bias_kv": True}])
def test_weights_sum_to_one_and_the_output_is_the_centroid_under_them(kwargs: dict[str, Any], train: bool) -> None:
    module = attention(num_heads=4, dropout=0.4, manifold=Lorentz(0.5), **kwargs).train(train)
    x, heads = normal(3, 5, 8), []
    module.out_proj.register_forward_pre_hook(lambda _, inputs: heads.append(inputs[0]))
    torch.manual_seed(0)
    _, weights = module(x, x, x, PADDING, average_attn_weights=False)
    sums = weights.sum(-1)
    assert ((sums - 1).abs().min(sums.abs()) < 1e-12).all()
    assert train or (sums > 0.5).all()
    v = LF.linear(x, module.in_proj_weight, module.in_proj_time_weight, module.in_proj_bias, 0.5)
    v = LF.split_heads(v[..., -module.num_kv_heads * 2 :], module.num_kv_heads)
    if module.bias_v is not None:
        v = torch.cat([v, LF.split_heads(module.bias_v, module.num_kv_heads).expand(3, -1, -1, -1)], dim=-2)
    v = v.repeat_interleave(4 // module.num_kv_heads, dim=1)
    expected = LF.merge_heads(LF.centroid(v.unsqueeze(-3), weights, 0.5))
    torch.testing.assert_close(heads[0], expected)
    torch.manual_seed(0)
    averaged = module(x, x, x, PADDING)[1]
    torch.testing.assert_close(averaged, weights.mean(1))


def test_dropout_drops_the_stated_share_of_the_weights_and_only_in_training() -> None:
    module = attention(dropout=0.3)
    x = 0.1 * normal(2, 100, 8)
    torch.manual_seed(0)
    weights = module(x, x, x, average_attn_weights=False)[1]
    assert abs((weights == 0).double().mean().item() - 0.3) < 4.5 * (0.21 / weights.numel()) ** 0.5
    noisy = module(x, x, x, need_weights=False)[0]
    module.eval()
    quiet = module(x, x, x, need_weights=False)[0]
    assert not torch.allclose(noisy, quiet)
    torch.testing.assert_close(quiet, module(x, x, x)[0])


def test_permutation_equivariance_without_masks() -> None:
    module, x, order = attention(), normal(2, 6, 8), torch.tensor([4, 2, 0, 5, 1, 3])
    out, weights = module(x, x, x)
    moved, same = module(x[:, order], *[x[:, order]] * 2)
    torch.testing.assert_close(moved, out[:, order])
    torch.testing.assert_close(same, weights[:, order][:, :, order])


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_query_without_keys_attends_to_the_origin(dtype: torch.dtype, need_weights: bool, kind: str) -> None:
    module, x = attention().to(dtype), normal(3, 5, 8, dtype=dtype).requires_grad_()
    attended: list[Tensor] = []
    module.out_proj.register_forward_pre_hook(lambda _, inputs: attended.append(inputs[0]))
    everything = torch.zeros(3, 5, dtype=torch.bool)
    everything[1] = True
    floats = torch.zeros(3, 5, dtype=dtype).masked_fill(everything, float("-inf"))
    out, weights = module(x, x, x, everything if kind == "bool" else floats, need_weights=need_weights)
    assert not attended[0][1].any()
    assert attended[0][0].any(-1).all()
    assert weights is None or not weights[1].any()
    loss = out.square().sum() + (0.0 if weights is None else weights.square().sum())
    grads = torch.autograd.grad(loss, [x, *module.parameters()])
    assert out.isfinite().all()
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[0][1].any()  # nothing reaches the sequence that nobody may see


CACHED: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"num_heads": 4, "num_kv_heads": 2},
    "more keys": {"add_bias_kv": True, "add_zero_attn": True},
    "time first": {"batch_first": False},
    "one radius": {"qk_norm": True, "add_bias_kv": True},
}


# Values are measured from the mean of the keys at hand, which differs: a value near the origin is rounded beside it.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 4e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("chunks", [[1] * 6, [3, 1, 2], [6]], ids=str)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kwargs", CACHED.values(), ids=CACHED.keys())
def test_steps_with_a_cache_equal_the_causal_forward(
    kwargs: dict[str, Any], need_weights: bool, chunks: list[int], dtype: torch.dtype, tolerance: float
) -> None:
    module = attention(**kwargs).to(dtype)
    axis = 1 if module.batch_first else 0
    x = normal(3, 6, 8, dtype=dtype).transpose(1, axis)
    padding = torch.arange(6) >= torch.tensor([6, 3, 5])[:, None]
    expected, weights = module(x, x, x, padding, is_causal=True)
    cache, outs, at = module.make_cache(), [], 0
    for part in x.split(chunks, dim=axis):
        at += part.shape[axis]
        out, step = module(part, part, part, padding[:, :at], need_weights, is_causal=True, cache=cache)
        outs.append(out)
    assert gap(torch.cat(outs, dim=axis), expected) < tolerance
    assert len(cache) == 6
    if need_weights:
        torch.testing.assert_close(step, weights[:, -step.shape[1] :], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("unbatched", [False, True], ids=["batch", "one"])
@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
@pytest.mark.parametrize(
    "kwargs", [{}, CACHED["grouped"], {"qk_norm": True, "batch_first": False, "bias": False}], ids=str
)
def test_one_function_of_autograd_gives_what_the_steps_give(
    kwargs: dict[str, Any], cross: bool, unbatched: bool
) -> None:
    module, c = attention(**kwargs).float(), Lorentz(c=0.5, learnable=True)
    module.manifold = module.out_proj.manifold = c
    query = normal(*(() if unbatched else (3,)), 3, 8, dtype=torch.float32).requires_grad_()
    memory = (
        normal(*(() if unbatched else (3,)), 3, 8, dtype=torch.float32, seed=1).requires_grad_() if cross else query
    )
    leaves = [query, *([memory] if cross else []), *module.parameters()]
    mask = torch.tensor([False, True, False]).repeat(3, 1)

    def derived() -> list[Tensor]:
        out = module(query, memory, memory, need_weights=False, attn_mask=mask, is_causal=True)[0]
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    found = derived()
    assert type(found[0].grad_fn).__name__ in ("_MultiheadBackward", "TransposeBackward0", "SelectBackward0")
    module.out_proj.register_forward_hook(lambda *_: None)
    for one, other in zip(found, derived(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_memory_for_all_queries_and_a_map_of_another_space_go_by_steps() -> None:
    module, query, memory = attention().float(), normal(3, 4, 8).float(), normal(1, 5, 8).float()
    out = module(query, memory, memory, need_weights=False)[0]
    several = memory.expand(3, 5, 8)
    torch.testing.assert_close(out, module(query, several, several, need_weights=False)[0])
    module.out_proj.manifold = Lorentz(c=2.0)
    expected = module(query, query, query)[0]
    torch.testing.assert_close(module(query, query, query, need_weights=False)[0], expected)


def test_at_one_radius_the_lengths_of_queries_and_keys_do_not_count() -> None:
    module, x = attention(qk_norm=True, bias=False), normal(3, 6, 8)
    expected = module(x, x, x)[0]
    with torch.no_grad():
        for name in ("in_proj_weight", "in_proj_time_weight"):
            getattr(module, name)[:8] *= 3
            getattr(module, name)[8:16] *= 0.2
    torch.testing.assert_close(module(x, x, x)[0], expected, rtol=1e-6, atol=1e-9)


def test_a_static_cache_projects_the_memory_once() -> None:
    module, query, memory = attention(kdim=5, vdim=5), normal(3, 4, 8), normal(3, 6, 5, seed=1)
    expected = module(query, memory, memory)[0]
    cache = module.make_cache(static=True)
    first = module(query[:, :1], memory, memory, cache=cache)[0]
    rest = module(query[:, 1:], torch.full_like(memory, float("nan")), memory, cache=cache)[0]
    torch.testing.assert_close(torch.cat([first, rest], dim=1), expected)
    assert len(cache) == 6
    with pytest.raises(ValueError, match="expected no is_causal with a static cache"):
        module(query, memory, memory, is_causal=True, cache=cache)


def test_a_cache_follows_the_survivors_of_a_beam_search() -> None:
    module, x, survivors = attention(), normal(3, 4, 8), torch.tensor([2, 2, 0])
    cache = module.make_cache()
    cache.reorder(survivors)  # nothing to do
    module(x[:, :3], *[x[:, :3]] * 2, is_causal=True, cache=cache)
    cache.reorder(survivors)
    last = torch.cat([x[survivors, :3], x[:, 3:]], dim=1)
    out = module(x[:, 3:], *[x[:, 3:]] * 2, is_causal=True, cache=cache)[0]
    torch.testing.assert_close(out, module(last, last, last, is_causal=True)[0][:, 3:])
    with pytest.raises(ValueError, match="expected a batch of 3, the cache's, got 2"):
        module(x[:2], x[:2], x[:2], cache=cache)


@variants
@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_of_torch_loads(kwargs: dict[str, Any], assign: bool) -> None:
    torchs = nn.MultiheadAttention(8, 2, **kwargs)
    ours = attention(batch_first=False, dtype=torch.float32, **kwargs)
    ours.load_state_dict(torchs.state_dict(), strict=True, assign=assign)
    state = ours.state_dict()
    assert all(torch.equal(state[name], value) for name, value in torchs.state_dict().items())
    assert set(state) - set(torchs.state_dict()) == {"in_proj_time_weight", "out_proj.time_weight", "log_scale"}
    assert not state["in_proj_time_weight"].any()
    assert not state["out_proj.time_weight"].any()
    torch.testing.assert_close(2 * ours.scale, torch.full((2,), 4**-0.5))


def test_a_checkpoint_of_torch_loads_into_a_curved_stack_and_a_meta_module() -> None:
    torchs = nn.Sequential(nn.MultiheadAttention(8, 2))
    nn.Sequential(attention(manifold=Lorentz(2.0, learnable=True))).load_state_dict(torchs.state_dict(), strict=True)
    empty = nn.Sequential(lnn.MultiheadAttention(8, 2, device="meta"))
    empty.load_state_dict(torchs.state_dict(), strict=True, assign=True)
    assert not any(parameter.is_meta for parameter in empty.parameters())
    x = normal(4, 3, 8, dtype=torch.float32)
    assert empty[0](x, x, x)[0].isfinite().all()


def test_a_checkpoint_with_holes_is_refused() -> None:
    module = attention()
    for name in ("log_scale", "in_proj_time_weight"):
        state = module.state_dict()
        del state[name]
        with pytest.raises(RuntimeError, match=rf"Missing key.*{name}"):
            module.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Missing key.*in_proj_time_weight"):
        module.load_state_dict({})


@variants
def test_the_same_seed_draws_the_weights_of_torch(kwargs: dict[str, Any]) -> None:
    torch.manual_seed(0)
    torchs = nn.MultiheadAttention(8, 2, **kwargs).state_dict()
    torch.manual_seed(0)
    ours = lnn.MultiheadAttention(8, 2, **kwargs)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in torchs.items())
    changed = attention(**kwargs)
    changed.reset_parameters()
    torch.testing.assert_close(2 * changed.scale, torch.full((2,), 4**-0.5).double())
    zeros = ("time_weight", "proj.bias", "proj_bias")
    assert not any(value.any() for name, value in changed.state_dict().items() if name.endswith(zeros))


def test_a_fresh_module_scores_with_the_factor_of_torch() -> None:
    torchs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    ours = lnn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    ours.load_state_dict(torchs.state_dict())
    x, y = 1e-4 * normal(1, 1, 8), 1e-4 * normal(1, 5, 8, seed=1)
    # Near the origin <q, k> = q.k - |q|^2 / 2 - |k|^2 / 2 - 1/c: log-weights differ by -|k|^2 / 2 in torch's units.
    ours_log = ours(x, y, y, average_attn_weights=False)[1].log()
    torchs_log = torchs(x, y, y, average_attn_weights=False)[1].log()
    k = LF.split_heads(nn.functional.linear(y, ours.in_proj_weight[8:16]), 2)
    difference = ours_log - torchs_log + 4**-0.5 * k.square().sum(-1)[:, :, None] / 2
    torch.testing.assert_close(
        difference - difference.mean(-1, keepdim=True), torch.zeros_like(difference), rtol=0, atol=1e-14
    )


def test_a_learnable_curvature_is_one_parameter_and_learns() -> None:
    manifold = Lorentz(0.7, learnable=True)
    module, x = attention(manifold=manifold), normal(2, 5, 8)
    assert sum(parameter is manifold.log_c for parameter in module.parameters()) == 1
    module(x, x, x)[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())
    assert not any("manifold" in name for name in attention().state_dict())


@pytest.mark.parametrize("kwargs", [{}, {"add_bias_kv": True, "num_kv_heads": 1, "kdim": 2}, {"qk_norm": True}])
def test_gradients_are_right(kwargs: dict[str, Any]) -> None:
    module = attention(4, 2, **kwargs)
    query, key, value = (normal(1, 3, n, seed=n).requires_grad_() for n in (4, module.kdim, module.vdim))
    parameters = dict(module.named_parameters())

    def function(query: Tensor, key: Tensor, value: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        state = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(module, state, (query, key, value), {"is_causal": True})

    assert torch.autograd.gradcheck(function, (query, key, value, *parameters.values()))


def test_copies_and_checkpoints_compute_the_same() -> None:
    module, x = attention(num_heads=4, num_kv_heads=2, add_bias_kv=True), normal(2, 5, 8)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    loaded = attention(num_heads=4, num_kv_heads=2, add_bias_kv=True, seed=1)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert torch.equal(other(x, x, x)[0], module(x, x, x)[0])


def test_it_compiles_whole() -> None:
    torch.compiler.reset()
    module, x = attention(dtype=torch.float32), normal(3, 5, 8, dtype=torch.float32)
    got = torch.compile(module, backend="aot_eager", fullgraph=True)(x, x, x, PADDING, is_causal=True)
    expected = module(x, x, x, PADDING, is_causal=True)
    torch.testing.assert_close(got, expected)
    grads, truths = (torch.autograd.grad(out[0].square().sum(), list(module.parameters())) for out in (got, expected))
    for grad, truth in zip(grads, truths, strict=True):  # sums in another order: rounding of the largest terms
        torch.testing.assert_close(grad, truth, rtol=1e-5, atol=1e-6 * float(truth.abs().max()))


@pytest.mark.slow
def test_it_exports() -> None:
    module, x = attention(dtype=torch.float32).eval(), normal(3, 5, 8, dtype=torch.float32)
    program = torch.export.export(module, (x, x, x), {"key_padding_mask": PADDING})
    torch.testing.assert_close(program.module()(x, x, x, key_padding_mask=PADDING), module(x, x, x, PADDING))


@pytest.mark.parametrize("need_weights", [True, False])
def test_autocast_stays_close_and_finite(need_weights: bool) -> None:
    module, x = attention(dtype=torch.float32), normal(3, 5, 8, dtype=torch.float32)
    expected = module(x, x, x, PADDING, is_causal=True)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = module(x, x, x, PADDING, need_weights, is_causal=True)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.1)
    out.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters() if parameter.grad is not None)
    sixteen, y = copy.deepcopy(module).bfloat16(), x.bfloat16()
    torch.testing.assert_close(sixteen(y, y, y, PADDING, is_causal=True)[0].float(), expected, rtol=0.05, atol=0.1)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    module, x = attention(), normal(3, 5, 8)
    with pytest.raises(ValueError, match=r"expected a query .* \(\.\.\., 8\), got \(3, 5, 9\): did you pass ambient"):
        module(LF.to_ambient(x), x, x)
    with pytest.raises(ValueError, match=r"expected a value of two dimensions"):
        module(x, x, x[0])
    with pytest.raises(ValueError, match=r"expected attn_mask \(5, 5\) or \(6, 5, 5\), got \(5, 4\)"):
        module(x, x, x, attn_mask=torch.zeros(5, 4))
    with pytest.raises(ValueError, match=r"expected key_padding_mask \(3, 5\), got \(5, 3\)"):
        module(x, x, x, torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"expected a key_padding_mask of booleans or floats, got torch\.int64"):
        module(x, x, x, torch.zeros(3, 5, dtype=torch.int64))
    for sizes in ((8, 3), (0, 1), (8, 4, 3)):
        with pytest.raises(ValueError, match=r"expected .*embed_dim"):
            lnn.MultiheadAttention(*sizes[:2], num_kv_heads=sizes[2] if len(sizes) > 2 else None)


def test_repr_names_what_differs_from_the_defaults() -> None:
    assert "8, 4, dropout=0.1, batch_first=True, num_kv_heads=2" in repr(
        lnn.MultiheadAttention(8, 4, 0.1, batch_first=True, num_kv_heads=2)
    )
    assert "(out_proj): Linear(in_features=8, out_features=8, bias=True)" in repr(lnn.MultiheadAttention(8, 4))
    assert repr(lnn.MultiheadAttention(8, 4, qk_norm=True)).startswith(
        "MultiheadAttention(\n  8, 4, batch_first=False, qk_norm=True"
    )

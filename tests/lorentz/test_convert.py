"""`lorentz.convert` keeps what a model computes, or says what it left alone; attention alone becomes Lorentzian."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import lorentz
import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz, convert
from tests.lorentz.nn.modules import LAYERS, Layer, first

layers_of_torch = pytest.mark.parametrize("layer", [each for each in LAYERS if hasattr(nn, each.name)], ids=str)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shaken(module: nn.Module) -> nn.Module:
    """The module with parameters and statistics away from the values of the constructor."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.add_(0.2 * torch.rand(value.shape, generator=generator, dtype=torch.float64))
    return module


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Dropout(0.1), nn.Linear(8, 3))


def same_state(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)


def kinds(module: nn.Module) -> list[type[nn.Module]]:
    return [type(each) for each in module.modules()]


# What a twin keeps


@layers_of_torch
def test_every_layer_becomes_what_loading_its_checkpoint_gives(layer: Layer) -> None:
    assert layer.twin is not None
    twin = shaken(layer.twin())
    converted = convert(twin)
    assert type(converted) is getattr(lnn, layer.name)
    expected = layer.build()
    expected.load_state_dict(twin.state_dict())
    assert same_state(converted, expected)
    assert all(torch.equal(converted.state_dict()[name], value) for name, value in twin.state_dict().items())
    assert repr(converted) == repr(expected)
    inputs = layer.inputs()
    output = first(converted.eval()(*inputs))
    assert torch.equal(output, first(expected.eval()(*inputs)))
    if layer.same_space:
        torch.testing.assert_close(output, first(twin.eval()(*inputs)))


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(4, 3, bias=False),
        nn.LayerNorm((3, 4), 1e-3, bias=False),
        nn.LayerNorm(4, elementwise_affine=False),
        nn.RMSNorm(4, 0.1),
        nn.BatchNorm1d(3, 1e-3, None, affine=False),
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.ReLU(inplace=True),
        nn.GELU("tanh"),
        nn.Dropout(0.3, inplace=True),
        nn.Conv1d(3, 6, 3, 2, 1, 1, 3, bias=False, padding_mode="circular"),
        nn.Conv2d(4, 2, (3, 1), padding="same"),
        nn.ConvTranspose1d(3, 6, 3, 2, 1, 1, 3, dilation=2),
        nn.ConvTranspose2d(4, 2, (3, 1), 2, bias=False),
        nn.AvgPool1d(2, 1, 1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(2, 1, divisor_override=3),
        nn.MaxPool1d(2, 1, 1, return_indices=True),
        nn.MaxPool2d(2, None, 1, 2, ceil_mode=True),
        nn.AdaptiveAvgPool2d((None, 1)),
        nn.Flatten(0, 1),
    ],
    ids=repr,
)
def test_arguments_that_are_not_the_default_are_kept(module: nn.Module) -> None:
    shaken(module).eval()
    converted = convert(module)
    assert type(converted) is getattr(lnn, type(module).__name__)
    x = normal(2, 4, 5, 5) if "2d" in type(module).__name__ else normal(2, 3, 4)
    expected = first(module(x.clone()))
    torch.testing.assert_close(first(converted(x.clone())), expected)
    mine = {name: value for name, value in vars(converted).items() if name in vars(module) and name[0] != "_"}
    assert mine == {name: value for name, value in vars(module).items() if name[0] != "_"}


def test_embeddings_keep_their_arguments_and_become_points() -> None:
    table = nn.Embedding(7, 4, padding_idx=2, max_norm=1.5, norm_type=1.0, scale_grad_by_freq=True, sparse=True)
    converted = convert(table)
    assert repr(converted) == repr(table)
    rows = torch.tensor([0, 2, 2, 6])
    assert torch.equal(converted(rows), table(rows))
    assert len(list(converted.points())) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"batch_first": True},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"kdim": 4, "vdim": 6},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_scores_of_attention_are_torchs_less_the_product_of_times(options: dict[str, Any]) -> None:
    attention = shaken(nn.MultiheadAttention(8, 2, **options)).eval()
    query, key, value = normal(3, 8), normal(5, options.get("kdim", 8)), normal(5, options.get("vdim", 8))
    converted = convert(attention, Lorentz(0.5))
    _, weights = converted(query, key, value, average_attn_weights=False)

    if attention.in_proj_weight is None:
        w_q, w_k = attention.q_proj_weight, attention.k_proj_weight
    else:
        w_q, w_k, _ = attention.in_proj_weight.chunk(3)
    b_q, b_k, _ = (None, None, None) if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
    q, k = F.linear(query, w_q, b_q), F.linear(key, w_k, b_k)
    if attention.bias_k is not None:
        k = torch.cat([k, attention.bias_k[0]])
    if attention.add_zero_attn:
        k = torch.cat([k, torch.zeros(1, 8)])
    q, k = (x.unflatten(-1, (2, 4)).transpose(0, 1) for x in (q, k))
    time = (2 + q.square().sum(-1)).sqrt()[:, :, None] * (2 + k.square().sum(-1)).sqrt()[:, None, :]
    torch.testing.assert_close(weights, ((q @ k.mT - time) / 4**0.5).softmax(-1))
    _, theirs = attention(query, key, value, average_attn_weights=False)
    torch.testing.assert_close(theirs, (q @ k.mT / 4**0.5).softmax(-1))


def test_attention_near_the_origin_approaches_torchs_with_the_square_of_the_radius() -> None:
    attention = nn.MultiheadAttention(8, 2, dtype=torch.float64)
    converted = convert(attention)
    x = normal(6, 8, dtype=torch.float64)
    errors = []
    for radius in (0.02, 0.01):
        mine, theirs = converted(*[radius * x] * 3)[0], attention(*[radius * x] * 3)[0]
        errors.append(((mine - theirs).norm() / theirs.norm()).item())
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)


# Whole models


@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_a_model_without_attention_computes_what_it_did(c: float) -> None:
    model = shaken(mlp()).eval()
    x = normal(5, 6)
    torch.testing.assert_close(convert(model, Lorentz(c))(x), model(x), rtol=1e-6, atol=1e-6)


def test_a_convolutional_model_computes_what_it_did() -> None:
    block = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*block, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    shaken(model).eval()
    converted = convert(model)
    assert all(isinstance(each, lnn.module.LorentzModule) for each in converted)
    x = normal(2, 3, 8, 8)
    torch.testing.assert_close(converted(x), model(x), rtol=1e-6, atol=1e-6)


def softplus_of_twice(x: Tensor) -> Tensor:
    return F.softplus(2 * x)


TRANSFORMERS: dict[str, dict[str, Any]] = {
    "default": {},
    "batch first": {"batch_first": True},
    "norm first": {"norm_first": True},
    "gelu": {"activation": "gelu"},
    "function": {"activation": softplus_of_twice},
    "module": {"activation": nn.SiLU()},
    "no bias": {"bias": False},
}


def transformer(kind: type[nn.Transformer] = nn.Transformer, **options: Any) -> nn.Transformer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says at length why nested tensors will not be used
        return shaken(kind(8, 2, 2, 2, 16, **options))


def assert_same_without_attention(model: nn.Module, converted: nn.Module) -> None:
    """With attention switched off on both sides, all that is left must agree."""
    model, converted = copy.deepcopy(model).eval(), copy.deepcopy(converted).eval()
    with torch.no_grad():
        for each in (model, converted):
            for name, value in each.named_parameters():
                if "out_proj" in name:
                    value.zero_()
    src, tgt = normal(5, 4, 8), normal(3, 4, 8)
    if model.batch_first:
        src, tgt = src.transpose(0, 1), tgt.transpose(0, 1)
    torch.testing.assert_close(converted(src, tgt), model(src, tgt), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_a_transformer_keeps_its_weights_and_differs_by_its_attention_only(options: dict[str, Any]) -> None:
    model = transformer(**options)
    converted = convert(model)
    assert type(converted) is lnn.Transformer
    assert (converted.d_model, converted.nhead, converted.batch_first) == (8, 2, model.batch_first)
    assert not {each for each in kinds(converted) if each.__module__.startswith("torch.")} - {nn.ModuleList}
    state = converted.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name
    assert_same_without_attention(model, converted)


def test_a_converted_transformer_takes_masks_and_trains() -> None:
    model = convert(transformer(batch_first=True), Lorentz(0.7, learnable=True))
    src, tgt = normal(2, 5, 8), normal(2, 3, 8, seed=1)
    causal = nn.Transformer.generate_square_subsequent_mask(3)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    options = {"tgt_mask": causal, "src_key_padding_mask": padding, "memory_key_padding_mask": padding}
    rule = lorentz.optim.RiemannianAdam(lorentz.optim.param_groups(model), lr=1e-2)
    losses = []
    for _ in range(5):
        rule.zero_grad()
        torch.manual_seed(0)
        loss = (model(src, tgt, **options) - 1).square().mean()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
        rule.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval()
    other = src.clone()
    other[1, 3:] = 7.0
    torch.testing.assert_close(model(src, tgt, **options), model(other, tgt, **options))
    later = tgt.clone()
    later[:, 2] = 7.0
    torch.testing.assert_close(model(src, tgt, **options)[:, :2], model(src, later, **options)[:, :2])


def test_a_stack_whose_layers_were_dropped_or_norm_left_out_converts() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 3, enable_nested_tensor=False)
    del model.layers[1]
    converted = convert(model)
    assert converted.norm is None
    assert converted(normal(4, 2, 8)).shape == (4, 2, 8)
    assert same_state(converted, convert(converted))
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2, nn.LayerNorm(8))
    del decoder.layers[0]
    assert convert(decoder)(normal(4, 2, 8), normal(3, 2, 8)).shape == (4, 2, 8)


def test_a_custom_transformer_keeps_its_forward_over_converted_stacks() -> None:
    class Reader(nn.Transformer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.embed = nn.Embedding(9, 8)
            self.head = nn.Linear(8, 9)

        def forward(self, rows: Tensor) -> Tensor:
            x = self.embed(rows)
            return self.head(super().forward(x, x))

    converted = convert(transformer(Reader))
    assert type(converted) is Reader
    assert type(converted.encoder) is lnn.TransformerEncoder
    assert type(converted.head) is lnn.Linear
    assert converted(torch.tensor([[1, 2, 3]])).shape == (1, 3, 9)


def test_a_converted_model_is_as_good_as_any_other() -> None:
    model = convert(nn.Sequential(mlp(), nn.Linear(3, 3)).eval(), Lorentz(2.0, learnable=True))
    x = normal(5, 6)
    for other in (copy.deepcopy(model), convert(nn.Sequential(mlp(), nn.Linear(3, 3)).eval(), Lorentz(1.0, True))):
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x))
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.slow
def test_a_converted_transformer_compiles_whole() -> None:
    torch.compiler.reset()
    model = convert(transformer().eval())
    src, tgt = normal(5, 2, 8), normal(3, 2, 8)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(src, tgt), model(src, tgt))


# What the copy shares, and with whom


def test_the_original_is_left_alone_and_shares_nothing_with_the_copy() -> None:
    model = transformer()
    before, structure = copy.deepcopy(model.state_dict()), kinds(model)
    converted = convert(model)
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.fill_(3.0)
    assert kinds(model) == structure
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_random_numbers_are_drawn() -> None:
    model = nn.Sequential(transformer(), nn.Embedding(5, 4), nn.Conv2d(3, 4, 2))
    before = torch.get_rng_state()
    convert(model)
    assert torch.equal(before, torch.get_rng_state())


def test_shared_parameters_and_modules_stay_shared() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 4)
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self.again = self.block
            self.first_again = self.block[0]
            self.head = nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight
            self.other = nn.Bilinear(4, 4, 4)
            self.other.bias = self.block[0].bias
            self.other_again = self.other
            self.order = [self.block[0], self.head]

    with pytest.warns(UserWarning, match=r"left alone: Bilinear \(other\)$"):
        converted = convert(Model())
    assert type(converted.embed) is lnn.Embedding
    assert type(converted.block[0]) is lnn.Linear
    assert converted.again is converted.block
    assert converted.first_again is converted.block[0]
    assert converted.head.weight is converted.embed.weight
    assert converted.other.bias is converted.block[0].bias
    assert converted.other_again is converted.other
    assert converted.order == [converted.block[0], converted.head]


def test_dtype_device_mode_and_frozen_parameters_are_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.MultiheadAttention(4, 2).eval(), nn.BatchNorm1d(3)).to(torch.bfloat16)
    model[0].requires_grad_(False)
    model[1].in_proj_bias.requires_grad_(False)
    converted = convert(model)
    assert {value.dtype for value in converted.state_dict().values() if value.is_floating_point()} == {torch.bfloat16}
    assert [each.training for each in converted] == [True, False, True]
    assert not converted[1].out_proj.training
    frozen = {name for name, parameter in converted.named_parameters() if not parameter.requires_grad}
    assert frozen == {"0.weight", "0.bias", "0.time_weight", "1.in_proj_bias"}
    meta = convert(nn.Sequential(mlp(), nn.MultiheadAttention(4, 2)).to("meta"), Lorentz(2.0, learnable=True))
    assert {name for name, value in meta.named_parameters() if not value.is_meta} == {"0.0.manifold.log_c"}


def test_all_twins_lie_in_one_space() -> None:
    space = Lorentz(2.0, learnable=True)
    converted = convert(nn.Sequential(mlp(), transformer()), space)
    assert {each for each in converted.modules() if isinstance(each, Lorentz)} == {space}
    assert sum(parameter is space.log_c for parameter in converted.parameters()) == 1
    partly = convert(nn.Sequential(lnn.Linear(3, 3, manifold=space), nn.Linear(3, 3)), space)
    assert [each.manifold is space for each in partly] == [True, True]
    default = [each for each in convert(mlp()).modules() if isinstance(each, Lorentz)]
    assert [each.extra_repr() for each in default] == ["c=1, learnable=False"]


@pytest.mark.gpu
def test_a_learnable_curvature_goes_to_the_device_of_the_model() -> None:
    model = convert(mlp().cuda(), Lorentz(2.0, learnable=True))
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    assert model(normal(5, 6).cuda()).isfinite().all()


def test_what_was_set_on_a_module_is_kept() -> None:
    linear = nn.Linear(3, 3)
    linear.scale_at_start = 0.5
    linear.register_buffer("mask", torch.ones(3), persistent=False)
    linear.register_parameter("gain", nn.Parameter(torch.full((3,), 2.0)))
    linear.inner = nn.Linear(2, 2)
    converted = convert(linear)
    assert converted.scale_at_start == 0.5
    assert torch.equal(converted.mask, linear.mask)
    assert torch.equal(converted.gain, linear.gain)
    assert type(converted.inner) is lnn.Linear
    assert converted.state_dict().keys() - linear.state_dict().keys() == {"time_weight", "inner.time_weight"}


def test_converting_again_changes_nothing() -> None:
    once = convert(nn.Sequential(mlp(), transformer(activation=nn.SiLU())), Lorentz(2.0))
    twice = convert(once)
    assert kinds(twice) == kinds(once)
    assert same_state(twice, once)
    assert repr(twice) == repr(once)


# What is left alone


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def linear(change: Callable[[nn.Module], Any]) -> nn.Module:
    module = nn.Linear(3, 3)
    change(module)
    return module


def call_twice(module: nn.Module) -> None:
    inner = module.forward
    module.forward = lambda x: inner(inner(x))


LEFT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no twin": (lambda: nn.Bilinear(3, 3, 3), "Bilinear"),
    "recurrent": (lambda: nn.LSTM(3, 3), "LSTM"),
    "subclass": (lambda: Doubled(3, 3), "Doubled"),
    "forward hook": (
        lambda: linear(lambda m: m.register_forward_hook(lambda m, x, y: 2 * y)),
        "Linear with hooks or a forward of its own",
    ),
    "backward hook": (
        lambda: linear(lambda m: m.register_full_backward_hook(lambda *_: None)),
        "Linear with hooks or a forward of its own",
    ),
    "forward on the instance": (lambda: linear(call_twice), "Linear with hooks or a forward of its own"),
    "parametrisation": (lambda: parametrizations.weight_norm(nn.Linear(3, 3)), "ParametrizedLinear"),
    "pruning": (
        lambda: linear(lambda m: prune.l1_unstructured(m, "bias", 1)),
        "Linear with hooks or a forward of its own",
    ),
    "lazy": (lambda: nn.LazyLinear(3), "LazyLinear"),
    "quantised": (lambda: torch.ao.nn.quantized.dynamic.Linear(3, 3), "Linear"),
    "parameters without module": (lambda: nn.ParameterList([torch.ones(3)]), "ParameterList"),
}


@pytest.mark.parametrize(("build", "kind"), LEFT.values(), ids=LEFT)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # torch.ao announces its end
def test_what_a_twin_would_break_is_left_alone_and_named(build: Callable[[], nn.Module], kind: str) -> None:
    module = build()
    with pytest.warns(UserWarning, match="left alone") as caught:
        converted = convert(nn.ModuleDict({"a": module, "b": nn.Linear(3, 3), "c": nn.ModuleList([build()])}))
    assert [str(each.message) for each in caught] == [f"lorentz.convert left alone: {kind} (a, c.0)"]
    assert caught[0].filename == __file__
    assert type(converted["a"]) is type(module)
    assert type(converted["b"]) is lnn.Linear
    with pytest.warns(UserWarning, match="left alone") as caught:
        assert kinds(convert(module)) == kinds(module)
    assert [str(each.message) for each in caught] == [f"lorentz.convert left alone: {kind} (the module itself)"]
    if type(module) in (nn.Linear, Doubled):
        x = normal(2, 3)
        assert torch.equal(converted["a"](x), module(x))


def test_what_needs_no_twin_is_not_named() -> None:
    silent = [nn.Identity(), nn.Unflatten(1, (2, 3)), nn.LeakyReLU(), nn.Sigmoid(), nn.Dropout1d()]
    model = nn.Sequential(nn.ModuleDict({"a": nn.ModuleList([*silent, mlp()])}))
    assert kinds(convert(model))[3 : 3 + len(silent)] == [type(each) for each in silent]


def test_a_custom_module_keeps_its_forward_and_its_own_parameters_are_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([3.0]))
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.inner(x)

    model = nn.Sequential(Scaled(), Scaled())
    with pytest.warns(UserWarning, match=r"left alone: parameters of Scaled \(0.scale, 1.scale\)$"):
        converted = convert(model)
    assert type(converted[0]) is Scaled
    assert type(converted[0].inner) is lnn.Linear
    x = normal(2, 3)
    torch.testing.assert_close(converted(x), model(x))


class Loud(nn.MultiheadAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return 5 * super().forward(*args, **kwargs)[0], None


class Post(nn.TransformerEncoderLayer):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return 5 * super().forward(*args, **kwargs)


def test_layers_that_read_the_weights_of_their_children_are_left_alone_with_them() -> None:
    foreign = nn.TransformerDecoderLayer(8, 2, 16)
    foreign.multihead_attn = Loud(8, 2)
    hooked = nn.TransformerEncoderLayer(8, 2, 16)
    hooked.self_attn.register_forward_hook(lambda *_: None)
    model = nn.ModuleList([Post(8, 2, 16), Loud(8, 2), foreign, hooked]).eval()
    message = (
        r"left alone: Post \(0\), Loud \(1\), TransformerDecoderLayer with an attention that has no twin \(2\), "
        r"TransformerEncoderLayer with an attention that has no twin \(3\)$"
    )
    with pytest.warns(UserWarning, match=message):
        converted = convert(model)
    assert kinds(converted) == kinds(model)
    x = normal(4, 2, 8)
    with torch.no_grad():  # torch's fast path
        assert torch.equal(converted[0](x), model[0](x))


def test_a_module_shared_with_one_that_is_left_alone_stays_with_it() -> None:
    layer = Post(8, 2, 16)
    with pytest.warns(UserWarning, match=r"left alone: Post \(0\), Linear shared with one of these \(1\)$"):
        converted = convert(nn.ModuleList([layer, layer.linear1]))
    assert converted[1] is converted[0].linear1


def test_the_parts_of_an_attention_layer_may_be_others_than_torchs() -> None:
    class Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.norm(dim=-1, keepdim=True)

    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
    layer.norm1 = Norm()
    layer.self_attn.out_proj = parametrizations.weight_norm(nn.Linear(8, 8))
    with pytest.warns(UserWarning, match=r"left alone: ParametrizedLinear \(self_attn.out_proj\)$"):
        converted = convert(layer)
    assert type(converted) is lnn.TransformerEncoderLayer
    assert type(converted.norm1) is Norm
    assert converted(normal(4, 2, 8)).isfinite().all()


def test_lorentz_is_to_be_used_as_torch_is() -> None:
    assert lorentz.nn is lnn
    assert callable(lorentz.convert)
    assert lorentz.optim.RiemannianAdam
    assert torch.equal(LF.time(torch.zeros(2)), lorentz.functional.time(torch.zeros(2)))

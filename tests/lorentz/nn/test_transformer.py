"""The transformer: blocks as the paper writes them in ambient coordinates, torch's checkpoints, stepwise decoding."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lorentz.nn as lnn
from lorentz import Lorentz
from tests import oracles

torchs_advice = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # torch, on what it is slower with
norm_orders = pytest.mark.parametrize("norm_first", [False, True], ids=["norm after", "norm first"])
WIDTH, HEADS, INNER = 8, 2, 12
CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)
PADDING = torch.arange(6) >= torch.tensor([6, 4, 5])[:, None]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gap(got: Tensor, truth: Tensor) -> float:
    """The largest |got - truth| / |truth| of a position."""
    return ((got - truth).norm(dim=-1) / truth.norm(dim=-1)).max().item()


def stir(module: nn.Module, seed: int = 0) -> Any:
    """Move every parameter, the time weights and scales too, away from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


ARGUMENTS: dict[str, Any] = {
    "d_model": WIDTH,
    "nhead": HEADS,
    "dim_feedforward": INNER,
    "dropout": 0.0,
    "batch_first": True,
    "dtype": torch.float64,
}


def build(kind: str, where: Any = lnn, layers: int = 2, **kwargs: Any) -> Any:
    """A layer or a stack of `lorentz.nn`, or of `torch.nn`, by the name of its class."""
    arguments = {**ARGUMENTS, **kwargs}
    if kind == "Transformer":
        return where.Transformer(num_encoder_layers=layers, num_decoder_layers=layers, **arguments)
    layer = getattr(where, kind.removesuffix("Layer") + "Layer")(**arguments)
    if kind.endswith("Layer"):
        return layer
    own = {"manifold": kwargs["manifold"]} if "manifold" in kwargs else {}
    norm = where.LayerNorm(WIDTH, dtype=arguments["dtype"], **own)
    extra = {"enable_nested_tensor": False} if kind == "TransformerEncoder" else {}
    return getattr(where, kind)(layer, layers, norm, **extra)


KINDS = (
    "TransformerEncoderLayer",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerDecoder",
    "Transformer",
)
kinds = pytest.mark.parametrize("kind", KINDS)


def inputs(kind: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    first, second = normal(3, 5, WIDTH, dtype=dtype), normal(3, 6, WIDTH, seed=1, dtype=dtype)
    return (first,) if "Encoder" in kind else (second, first) if kind == "Transformer" else (first, second)


class Paper:
    """The blocks on ambient points (length, width + 1) of one sequence, float64, from the names in a state_dict.

    Parameters that torch lacks count as what its twin implies: no time weights, and s = 1 / (2 sqrt(head_dim)).
    """

    def __init__(self, state: Mapping[str, Tensor], c: float, norm_first: bool, activation: Callable[[Tensor], Tensor]):
        self.state, self.c, self.norm_first, self.activation = state, c, norm_first, activation

    def lift(self, x: Tensor) -> Tensor:
        return oracles.ambient(x, self.c)

    def matrix(self, weight: str, time_weight: str, rows: slice = slice(None)) -> Tensor:
        space = self.state[weight][rows]
        times = self.state.get(time_weight)
        return torch.cat([space.new_zeros(len(space), 1) if times is None else times[rows, None], space], dim=1)

    def linear(self, name: str, p: Tensor) -> Tensor:
        matrix = self.matrix(f"{name}.weight", f"{name}.time_weight")
        return oracles.ambient_linear(p, matrix, self.state[f"{name}.bias"], self.c)

    def norm(self, name: str, p: Tensor) -> Tensor:
        x = p[:, 1:] - p[:, 1:].mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return self.lift(x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"])

    def attention(self, name: str, p: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        d, heads = WIDTH // HEADS, []
        scales = self.state.get(f"{name}.log_scale", torch.full((HEADS,), math.log(0.5 * d**-0.5)))
        for h in range(HEADS):
            parts = []
            for i, source in enumerate((p, memory, memory)):
                rows = slice(i * WIDTH + h * d, i * WIDTH + (h + 1) * d)
                matrix = self.matrix(f"{name}.in_proj_weight", f"{name}.in_proj_time_weight", rows)
                parts.append(oracles.ambient_linear(source, matrix, self.state[f"{name}.in_proj_bias"][rows], self.c))
            heads.append(oracles.ambient_attention(*parts, bias, scales[h].exp().item(), self.c)[:, 1:])
        return self.linear(f"{name}.out_proj", self.lift(torch.cat(heads, dim=-1)))

    def block(self, p: Tensor, f: Callable[[Tensor], Tensor], norm: str) -> Tensor:
        """Eq. 7: the sum of the space parts, before or after the norm."""
        y = f(self.norm(norm, p) if self.norm_first else p)
        total = self.lift(p[:, 1:] + y[:, 1:])
        return total if self.norm_first else self.norm(norm, total)

    def feed_forward(self, name: str, p: Tensor) -> Tensor:
        inner = self.lift(self.activation(self.linear(f"{name}linear1", p)[:, 1:]))
        return self.linear(f"{name}linear2", inner)

    def encoder_layer(self, name: str, p: Tensor, bias: Tensor) -> Tensor:
        p = self.block(p, lambda x: self.attention(f"{name}self_attn", x, x, bias), f"{name}norm1")
        return self.block(p, lambda x: self.feed_forward(name, x), f"{name}norm2")

    def decoder_layer(self, name: str, p: Tensor, memory: Tensor, bias: Tensor, memory_bias: Tensor) -> Tensor:
        p = self.block(p, lambda x: self.attention(f"{name}self_attn", x, x, bias), f"{name}norm1")
        p = self.block(p, lambda x: self.attention(f"{name}multihead_attn", x, memory, memory_bias), f"{name}norm2")
        return self.block(p, lambda x: self.feed_forward(name, x), f"{name}norm3")

    def transformer(self, src: Tensor, tgt: Tensor, layers: int, src_bias: Tensor, tgt_bias: Tensor) -> Tensor:
        p, q = self.lift(src), self.lift(tgt)
        for i in range(layers):
            p = self.encoder_layer(f"encoder.layers.{i}.", p, src_bias.expand(len(p), -1))
        p = self.norm("encoder.norm", p)
        for i in range(layers):
            q = self.decoder_layer(f"decoder.layers.{i}.", q, p, tgt_bias, src_bias.expand(len(q), -1))
        return self.norm("decoder.norm", q)[:, 1:]


def bias_of(ignored: Tensor) -> Tensor:
    return torch.zeros(ignored.shape, dtype=torch.float64).masked_fill(ignored, float("-inf"))


@norm_orders
@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
@pytest.mark.parametrize(
    ("activation", "function"), [("gelu", F.gelu), ("relu", F.relu), (lnn.SiLU(), F.silu)], ids=["gelu", "relu", "silu"]
)
def test_layers_are_the_blocks_of_the_paper(
    activation: Any, function: Callable[[Tensor], Tensor], c: float, norm_first: bool
) -> None:
    arguments = {"activation": activation, "norm_first": norm_first, "manifold": Lorentz(c)}
    x, memory = normal(1, 5, WIDTH), normal(1, 6, WIDTH, seed=1)
    layer = stir(build("TransformerEncoderLayer", **arguments))
    paper = Paper(layer.state_dict(), c, norm_first, function)
    expected = paper.encoder_layer("", paper.lift(x[0]), bias_of(CAUSAL))[:, 1:]
    torch.testing.assert_close(layer(x, CAUSAL)[0], expected)
    torch.testing.assert_close(layer(x, is_causal=True)[0], expected)
    layer = stir(build("TransformerDecoderLayer", **arguments))
    paper = Paper(layer.state_dict(), c, norm_first, function)
    unseen = normal(5, 6, seed=3) > 0.7
    expected = paper.decoder_layer("", paper.lift(x[0]), paper.lift(memory[0]), bias_of(CAUSAL), bias_of(unseen))
    torch.testing.assert_close(layer(x, memory, CAUSAL, unseen)[0], expected[:, 1:])
    torch.testing.assert_close(layer(x, memory, memory_mask=unseen, tgt_is_causal=True)[0], expected[:, 1:])
    triangle = torch.ones(5, 6, dtype=torch.bool).triu(1)
    torch.testing.assert_close(layer(x, memory, memory_is_causal=True), layer(x, memory, memory_mask=triangle))


@torchs_advice
@norm_orders
def test_with_the_weights_of_torch_only_scores_and_centroids_differ(norm_first: bool) -> None:
    torchs = stir(build("Transformer", nn, norm_first=norm_first))
    ours = build("Transformer", norm_first=norm_first)
    ours.load_state_dict(torchs.state_dict(), strict=True)
    src, tgt = normal(3, 6, WIDTH), normal(3, 5, WIDTH, seed=1)
    arguments = {"src_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING}
    out = ours(src, tgt, tgt_mask=CAUSAL, **arguments)
    paper = Paper(torchs.state_dict(), 1.0, norm_first, F.relu)
    expected = [
        paper.transformer(s, t, 2, bias_of(pad), bias_of(CAUSAL)) for s, t, pad in zip(src, tgt, PADDING, strict=True)
    ]
    torch.testing.assert_close(out, torch.stack(expected))
    assert not torch.allclose(out, torchs(src, tgt, tgt_mask=CAUSAL, **arguments), rtol=0.01)
    mask = lnn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    assert torch.equal(mask, nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64))
    torch.testing.assert_close(ours(src, tgt, tgt_mask=mask, **arguments), out)
    torch.testing.assert_close(ours(src, tgt, tgt_is_causal=True, **arguments), out)


@norm_orders
def test_one_position_at_the_scale_of_torch_gives_the_output_of_torch(norm_first: bool) -> None:
    # One key is its own centroid whatever its score, so nothing of the layer is left to differ.
    torchs = stir(build("TransformerEncoder", nn, norm_first=norm_first))
    ours = build("TransformerEncoder", norm_first=norm_first)
    ours.load_state_dict(torchs.state_dict(), strict=True)
    x = normal(3, 1, WIDTH)
    torch.testing.assert_close(ours(x), torchs(x))


@torchs_advice
@kinds
@pytest.mark.parametrize("bias", [True, False])
def test_checkpoints_of_torch_load_and_the_same_seed_draws_their_weights(kind: str, bias: bool) -> None:
    torch.manual_seed(0)
    torchs = build(kind, nn, bias=bias).state_dict()
    torch.manual_seed(0)
    ours = build(kind, bias=bias)
    fresh = ours.state_dict()
    assert all(torch.equal(fresh[name], value) for name, value in torchs.items())
    lorentz_only = {name for name in fresh if name.endswith(("time_weight", "log_scale"))}
    assert set(fresh) == set(torchs) | lorentz_only
    stir(ours).load_state_dict(torchs, strict=True)
    torch.testing.assert_close(dict(ours.state_dict()), dict(fresh))
    curved = build(kind, bias=bias, manifold=Lorentz(0.5, learnable=True))
    curved.load_state_dict(torchs, strict=True)


@norm_orders
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("chunks", [[1] * 5, [2, 1, 2]], ids=str)
@pytest.mark.parametrize("kwargs", [{}, {"num_kv_heads": 1}, {"batch_first": False}, {"manifold": Lorentz(2.0)}])
def test_stepwise_decoding_equals_the_causal_forward(
    kwargs: dict[str, Any], chunks: list[int], dtype: torch.dtype, tolerance: float, norm_first: bool
) -> None:
    decoder = stir(build("TransformerDecoder", norm_first=norm_first, layers=3, **kwargs)).to(dtype).eval()
    axis = 1 if kwargs.get("batch_first", True) else 0
    tgt = normal(3, 5, WIDTH, dtype=dtype).transpose(1, axis)
    memory = normal(3, 6, WIDTH, seed=1, dtype=dtype).transpose(1, axis)
    padded = torch.arange(5) >= torch.tensor([5, 2, 4])[:, None]
    expected = decoder(tgt, memory, tgt_is_causal=True, tgt_key_padding_mask=padded, memory_key_padding_mask=PADDING)
    cache, outs, seen = decoder.make_cache(), [], 0
    for part in tgt.split(chunks, dim=axis):
        seen += part.shape[axis]
        masks = {"tgt_key_padding_mask": padded[:, :seen], "memory_key_padding_mask": PADDING}
        outs.append(decoder(part, memory, tgt_is_causal=True, cache=cache, **masks))
    assert gap(torch.cat(outs, dim=axis), expected) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_a_causal_encoder_reads_step_by_step(dtype: torch.dtype, tolerance: float) -> None:
    encoder = stir(build("TransformerEncoder", layers=3)).to(dtype)
    x, cache = normal(3, 5, WIDTH, dtype=dtype), encoder.make_cache()
    steps = [encoder(part, is_causal=True, cache=cache) for part in x.split([2, 1, 1, 1], dim=1)]
    assert gap(torch.cat(steps, dim=1), encoder(x, is_causal=True)) < tolerance


def test_a_beam_search_reorders_the_cache() -> None:
    decoder, survivors = stir(build("TransformerDecoder")), torch.tensor([1, 1, 0])
    tgt, memory = normal(3, 4, WIDTH), normal(3, 6, WIDTH, seed=1)
    cache = decoder.make_cache()
    decoder(tgt[:, :3], memory, tgt_is_causal=True, cache=cache)
    for layer in cache:
        layer.reorder(survivors)
    out = decoder(tgt[:, 3:], memory[survivors], tgt_is_causal=True, cache=cache)
    whole = torch.cat([tgt[survivors, :3], tgt[:, 3:]], dim=1)
    torch.testing.assert_close(out, decoder(whole, memory[survivors], tgt_is_causal=True)[:, 3:])
    with pytest.raises(ValueError, match=r"expected a cache for 2 layers, got one for 1: use make_cache\(\)"):
        decoder(tgt, memory, cache=cache[:1])
    with pytest.raises(ValueError, match=r"expected a cache for 2 layers, got one for 3"):
        build("TransformerEncoder")(tgt, cache=cache + cache[:1])


@norm_orders
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sequences_of_padding_alone_stay_finite(dtype: torch.dtype, norm_first: bool) -> None:
    model = stir(build("Transformer", norm_first=norm_first)).to(dtype)
    src, tgt = normal(3, 6, WIDTH, dtype=dtype).requires_grad_(), normal(3, 5, WIDTH, seed=1, dtype=dtype)
    empty = torch.zeros(3, 6, dtype=torch.bool)
    empty[1] = True
    out = model(
        src,
        tgt.requires_grad_(),
        src_key_padding_mask=empty,
        tgt_key_padding_mask=empty[:, :5],
        memory_key_padding_mask=empty,
        tgt_is_causal=True,
    )
    grads = torch.autograd.grad(out.square().sum(), [src, tgt, *model.parameters()], allow_unused=True)
    assert out.isfinite().all()
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    assert not grads[0][1].any()
    # The block without keys adds W 0 + w_t / sqrt(c) + b, whatever the sequence.
    alone = model.encoder(src[1:2], src_key_padding_mask=empty[1:2])
    torch.testing.assert_close(alone, model.encoder(src, src_key_padding_mask=empty)[1:2])


def test_padding_changes_nothing_for_what_is_not_padded() -> None:
    model = stir(build("Transformer"))
    src, tgt = normal(3, 6, WIDTH), normal(3, 5, WIDTH, seed=1)
    out = model(src, tgt, src_key_padding_mask=PADDING, memory_key_padding_mask=PADDING)
    for i, length in enumerate((~PADDING).sum(-1)):
        torch.testing.assert_close(out[i], model(src[i, :length], tgt[i]))  # a single sequence, unbatched


def test_layouts_agree() -> None:
    first, second = stir(build("Transformer")), build("Transformer", batch_first=False)
    second.load_state_dict(first.state_dict())
    src, tgt = normal(3, 6, WIDTH), normal(3, 5, WIDTH, seed=1)
    swapped = second(src.transpose(0, 1), tgt.transpose(0, 1), src_key_padding_mask=PADDING, src_is_causal=True)
    expected = first(src, tgt, src_key_padding_mask=PADDING, src_is_causal=True)
    torch.testing.assert_close(swapped.transpose(0, 1), expected)


def test_without_masks_and_positions_the_encoder_is_permutation_equivariant() -> None:
    encoder, x, order = stir(build("TransformerEncoder")), normal(2, 5, WIDTH), torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(encoder(x[:, order]), encoder(x)[:, order])


@norm_orders
@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_residual_takes_the_place_of_the_sum(kind: str, norm_first: bool) -> None:
    class Weighted(nn.Module):
        """A residual that a test can see through: x + 3 y."""

        def __init__(self, *, manifold: Lorentz, device: Any, dtype: Any) -> None:
            super().__init__()
            assert (manifold.c, dtype) == (0.5, torch.float64)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + 3 * y

    arguments = {"norm_first": norm_first, "manifold": Lorentz(0.5)}
    plain, weighted = stir(build(kind, **arguments)), build(kind, residual=Weighted, **arguments)
    weighted.load_state_dict(plain.state_dict())
    blocks = [plain.self_attn.out_proj, plain.linear2]
    if kind == "TransformerDecoderLayer":
        blocks.append(plain.multihead_attn.out_proj)
    with torch.no_grad():  # three times the last linear map of each block
        for block in blocks:
            for parameter in block.parameters():
                parameter.mul_(3)
    torch.testing.assert_close(weighted(*inputs(kind)), plain(*inputs(kind)))


def test_the_learnable_residual_is_the_centroid_of_input_and_update() -> None:
    layer = stir(build("TransformerEncoderLayer", residual=lnn.Residual, norm_first=True, manifold=Lorentz(0.5)))
    paper, x = Paper(layer.state_dict(), 0.5, True, F.relu), normal(5, WIDTH)

    def join(name: str, p: Tensor, q: Tensor) -> Tensor:
        ratio = paper.state[f"{name}.log_ratio"].exp()
        pair = torch.stack([p, q], dim=-2)
        return oracles.ambient_centroid(pair, torch.cat([torch.ones_like(ratio), ratio])[None], 0.5).squeeze(-2)

    p = paper.lift(x)
    n = paper.norm("norm1", p)
    p = join("residual1", p, paper.attention("self_attn", n, n, torch.zeros(5, 5)))
    p = join("residual2", p, paper.feed_forward("", paper.norm("norm2", p)))
    torch.testing.assert_close(layer(x), p[:, 1:])


@kinds
def test_a_learnable_curvature_is_one_parameter_of_the_whole_stack(kind: str) -> None:
    manifold = Lorentz(0.7, learnable=True)
    model = stir(build(kind, manifold=manifold))
    assert [name for name, _ in model.named_parameters() if "log_c" in name] != []
    assert sum(parameter.shape == (1,) for parameter in model.parameters()) == 1
    model(*inputs(kind)).square().sum().backward()
    assert manifold.log_c.grad.isfinite().all()
    assert manifold.log_c.grad.any()
    copied = copy.deepcopy(model)
    assert sum(parameter.shape == (1,) for parameter in copied.parameters()) == 1
    assert not any(parameter is manifold.log_c for parameter in copied.parameters())


def test_copies_of_a_layer_have_weights_of_their_own() -> None:
    encoder = build("TransformerEncoder")
    with torch.no_grad():
        encoder.layers[0].linear1.weight.zero_()
    assert encoder.layers[1].linear1.weight.any()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_dropout_of_everything_leaves_the_residual(kind: str) -> None:
    layer, arguments = build(kind, dropout=1.0, norm_first=True), inputs(kind)
    assert torch.equal(layer(*arguments), arguments[0])
    assert not torch.equal(layer.eval()(*arguments), arguments[0])


@pytest.mark.parametrize("kind", KINDS[:2])
def test_dropout_stands_where_that_of_torch_stands(kind: str) -> None:
    def visits(layer: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
        seen: list[tuple[str, tuple[int, ...]]] = []
        for name, module in layer.named_modules():
            if isinstance(module, nn.Dropout):
                module.register_forward_hook(lambda _, x, out, name=name: seen.append((name, tuple(out.shape))))
        layer(*inputs(kind))
        return seen

    ours, torchs = build(kind, dropout=0.3), build(kind, nn, dropout=0.3)
    assert visits(ours) == visits(torchs) != []
    assert {module.p for module in ours.modules() if isinstance(module, nn.Dropout)} == {0.3}


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match='expected the activation "relu", "gelu" or a function, got "tanh"'):
        build("TransformerEncoderLayer", activation="tanh")


def test_custom_encoders_and_decoders_of_torch_take_their_place() -> None:
    encoder = nn.TransformerEncoder(build("TransformerEncoderLayer", nn), 1, enable_nested_tensor=False)
    model = lnn.Transformer(custom_encoder=encoder, **{**ARGUMENTS, "num_decoder_layers": 1})
    assert model.encoder is encoder
    assert model(*inputs("Transformer")).shape == (3, 5, WIDTH)
    stack = lnn.TransformerEncoder(build("TransformerEncoderLayer", nn), 2)
    assert stack(inputs("Transformer")[0]).shape == (3, 6, WIDTH)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_gradients_are_right(kind: str) -> None:
    layer = stir(build(kind, d_model=4, dim_feedforward=3, norm_first=True, activation="gelu"))
    points = tuple(normal(1, length, 4, seed=length).requires_grad_() for length in (3, 2))[: len(inputs(kind))]
    parameters = dict(layer.named_parameters())

    def function(*values: Tensor) -> Tensor:
        state = dict(zip(parameters, values[len(points) :], strict=True))
        return torch.func.functional_call(layer, state, values[: len(points)])

    assert torch.autograd.gradcheck(function, (*points, *parameters.values()))


@kinds
def test_copies_and_checkpoints_compute_the_same(kind: str) -> None:
    model, arguments = stir(build(kind)), inputs(kind)
    loaded = build(kind)
    loaded.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert torch.equal(other(*arguments), model(*arguments))


@pytest.mark.parametrize("kind", [pytest.param(KINDS[0], marks=pytest.mark.slow), KINDS[1]])
def test_it_compiles_whole(kind: str) -> None:
    torch.compiler.reset()
    model, arguments = stir(build(kind, dtype=torch.float32)), inputs(kind, torch.float32)
    causal = {"is_causal": True} if "Encoder" in kind else {"tgt_is_causal": True}
    out = torch.compile(model, backend="aot_eager", fullgraph=True)(*arguments, **causal)
    expected = model(*arguments, **causal)
    torch.testing.assert_close(out, expected)
    grads = torch.autograd.grad(out.square().sum(), list(model.parameters()))
    torch.testing.assert_close(
        grads, torch.autograd.grad(expected.square().sum(), list(model.parameters())), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
@kinds
def test_it_exports(kind: str) -> None:
    model, arguments = stir(build(kind, dtype=torch.float32)).eval(), inputs(kind, torch.float32)
    torch.testing.assert_close(torch.export.export(model, arguments).module()(*arguments), model(*arguments))


@kinds
def test_autocast_stays_close_and_finite(kind: str) -> None:
    model, arguments = build(kind, dtype=torch.float32), inputs(kind, torch.float32)
    expected = model(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(*arguments)
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.15)
    out.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    sixteen = copy.deepcopy(model).bfloat16()(*(x.bfloat16() for x in arguments))
    assert sixteen.dtype == torch.bfloat16
    torch.testing.assert_close(sixteen.float(), expected, rtol=0.1, atol=0.15)


def test_a_meta_model_materialises_from_a_checkpoint() -> None:
    source = stir(build("Transformer"))
    model = build("Transformer", device="meta")
    assert model(*(x.to("meta") for x in inputs("Transformer"))).is_meta
    model.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(model(*inputs("Transformer")), source(*inputs("Transformer")))


def test_it_learns_to_reverse_a_sequence() -> None:
    torch.manual_seed(0)
    model = lnn.Transformer(16, 2, 1, 1, 32, 0.0, batch_first=True, norm_first=True)
    embed, positions, read = nn.Embedding(5, 16), nn.Parameter(torch.randn(5, 16)), lnn.Linear(16, 5)
    tokens = torch.randint(1, 5, (64, 5))
    shifted = torch.cat([torch.zeros(64, 1, dtype=torch.long), tokens.flip(1)[:, :-1]], dim=1)
    optimiser = torch.optim.Adam([*model.parameters(), *embed.parameters(), positions, *read.parameters()], 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        out = model(embed(tokens) + positions, embed(shifted) + positions, tgt_is_causal=True)
        logits = read(out)
        F.cross_entropy(logits.flatten(0, 1), tokens.flip(1).flatten()).backward()
        optimiser.step()
    assert (logits.argmax(-1) == tokens.flip(1)).double().mean() > 0.9


def test_every_attention_of_a_transformer_has_the_norm_of_queries_and_keys_that_was_asked_for() -> None:
    for wanted in (False, True):
        model = lnn.Transformer(8, 2, 2, 2, 16, qk_norm=wanted)
        found = [module.qk_norm for module in model.modules() if isinstance(module, lnn.MultiheadAttention)]
        assert found == [wanted] * 6

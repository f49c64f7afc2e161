"""Convolutions: a window's points join to one point of the ambient space, and Eq. 2 of the paper maps it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import lorentz.functional as LF
import lorentz.nn as lnn
from lorentz import Lorentz
from lorentz.nn._window_time import transposed_window_time, window_time
from tests import oracles

Convolution = lnn.Conv1d | lnn.Conv2d | lnn.ConvTranspose1d | lnn.ConvTranspose2d
NAMES = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"]
every_convolution = pytest.mark.parametrize("name", NAMES)
several = settings(max_examples=40, deadline=None)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(name: str, *args: Any, c: float = 0.7, **kwargs: Any) -> Convolution:
    """A layer whose parameters are all away from zero."""
    layer = getattr(lnn, name)(*args, manifold=Lorentz(c), dtype=torch.float64, **kwargs)
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed))
    return layer


def image(name: str, channels: int, *batch: int, seed: int = 9) -> Tensor:
    return normal(*batch, channels, *((7,) if name.endswith("1d") else (7, 6)), seed=seed)


def padded(layer: Convolution, x: Tensor) -> Tensor:
    """The image that a convolution reads."""
    before_and_after = []
    for d, (k, dilation) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
        missing = dilation * (k - 1) if layer.padding == "same" else 0
        sides = (missing // 2, missing - missing // 2) if isinstance(layer.padding, str) else (layer.padding[d],) * 2
        before_and_after = [*sides, *before_and_after]
    return F.pad(x, before_and_after, "constant" if layer.padding_mode == "zeros" else layer.padding_mode)


def links(layer: Convolution, size: tuple[int, ...], out: tuple[int, ...]) -> list[tuple[tuple[int, ...], ...]]:
    """The pixels (of the output, the kernel, the input) that meet, one dimension after the other."""

    def along(d: int) -> Iterator[tuple[int, int, int]]:
        s, dilation = layer.stride[d], layer.dilation[d]
        for o, k, i in itertools.product(range(out[d]), range(layer.kernel_size[d]), range(size[d])):
            if layer.transposed and o == i * s + k * dilation - layer.padding[d]:
                yield o, k, i
            if not layer.transposed and i == o * s + k * dilation:
                yield o, k, i

    products = itertools.product(*(list(along(d)) for d in range(len(size))))
    return [tuple(zip(*each, strict=True)) for each in products]


def joined_and_mapped(layer: Convolution, x: Tensor, out: tuple[int, ...]) -> Tensor:
    """The definition, pixel by pixel in ambient coordinates: x (N, in, *size) to (N, out, *out)."""
    x = x if layer.transposed else padded(layer, x)
    dims, g = len(out), layer.groups
    weight = layer.weight.detach()
    if layer.transposed:  # (in, out / g, *kernel) to (out, in / g, *kernel)
        weight = weight.unflatten(0, (g, -1)).transpose(1, 2).flatten(0, 1)
    result = torch.full((len(x), layer.out_channels, *out), torch.nan, dtype=x.dtype)
    meetings = links(layer, tuple(x.shape[-dims:]), out)
    for o in itertools.product(*map(range, out)):
        here = [(k, i) for other, k, i in meetings if other == o]
        for rows, channels in zip(torch.arange(len(weight)).chunk(g), torch.arange(x.shape[1]).chunk(g), strict=True):
            points = [x[(slice(None), channels, *i)] for _, i in here]
            matrices = [weight[(rows, slice(None), *k)] for k, _ in here]
            joined = torch.cat([x.new_zeros(len(x), 0), *points], dim=1)
            matrix = torch.cat([layer.time_weight[rows, None], *matrices], dim=1)
            bias = 0 if layer.bias is None else layer.bias[rows]
            c = float(layer.manifold.c)
            result[(slice(None), rows, *o)] = oracles.ambient_linear(oracles.ambient(joined, c), matrix, bias, c)[:, 1:]
    return result.detach()


def assert_definition_holds(layer: Convolution, x: Tensor) -> None:
    got = layer(x)
    torch.testing.assert_close(got, joined_and_mapped(layer, x, tuple(got.shape[2:])))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Conv1d", {"kernel_size": 3}),
        ("Conv1d", {"kernel_size": 4, "padding": "same", "groups": 2, "dilation": 2}),
        ("Conv1d", {"kernel_size": 3, "stride": 2, "padding": 2, "padding_mode": "reflect"}),
        ("Conv2d", {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 2), "dilation": (2, 1)}),
        ("Conv2d", {"kernel_size": (3, 1), "padding": "valid", "groups": 2, "bias": False}),
        ("Conv2d", {"kernel_size": 3, "padding": "same", "padding_mode": "circular", "groups": 4}),
        ("Conv2d", {"kernel_size": (5, 2), "padding": (2, 1), "padding_mode": "replicate", "stride": 2}),
        ("Conv2d", {"kernel_size": (3, 2), "padding": (1, 0), "padding_mode": "reflect"}),
        ("ConvTranspose1d", {"kernel_size": 3, "stride": 2, "output_padding": 1, "groups": 4}),
        ("ConvTranspose1d", {"kernel_size": 2, "stride": 3, "padding": 1, "dilation": 3}),
        ("ConvTranspose2d", {"kernel_size": (2, 3), "stride": (3, 2), "padding": (0, 2), "output_padding": (2, 1)}),
        ("ConvTranspose2d", {"kernel_size": 3, "groups": 2, "dilation": (1, 2), "bias": False}),
        ("ConvTranspose2d", {"kernel_size": 1, "stride": 2, "padding": 1, "output_padding": 1}),
    ],
)
def test_a_window_joins_to_one_ambient_point_that_a_matrix_maps(name: str, arguments: dict[str, Any]) -> None:
    assert_definition_holds(trained(name, 4, 8, **arguments), image(name, 4, 2))


@several
@given(st.data())
@every_convolution
def test_the_definition_holds_for_every_shape(name: str, data: st.DataObject) -> None:
    dims, transposed = int(name[-2]), "Transpose" in name

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(dims))

    kernel, stride, padding, dilation, size = each(1, 3), each(1, 3), each(0, 2), each(1, 2), each(1, 5)
    groups = data.draw(st.sampled_from([1, 2]))
    more: dict[str, Any] = {}
    span = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if transposed:
        more["output_padding"] = tuple(
            data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
        )
        outs = zip(size, stride, padding, span, more["output_padding"], strict=True)
        assume(all((n - 1) * s - 2 * p + e + o >= 0 for n, s, p, e, o in outs))
    else:
        more["padding_mode"] = data.draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
        assume(all(n + 2 * p > e and p < n for n, p, e in zip(size, padding, span, strict=True)))
    layer = trained(name, 2 * groups, 3 * groups, kernel, stride, padding, dilation=dilation, groups=groups, **more)
    assert_definition_holds(layer, normal(1, 2 * groups, *size, seed=9))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_linear_on_the_unfolded_windows(groups: int) -> None:
    layer, x = trained("Conv2d", 4, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups), image("Conv2d", 4, 2)
    parts = []
    for each, weight, t, bias in zip(
        *(
            part.chunk(groups, dim)
            for part, dim in ((x, 1), (layer.weight, 0), (layer.time_weight, 0), (layer.bias, 0))
        ),
        strict=True,
    ):
        windows = F.unfold(each, (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1)).mT
        parts.append(LF.linear(windows, weight.flatten(1), t, bias, layer.manifold.c).mT)
    got = layer(x)
    torch.testing.assert_close(got, torch.cat(parts, dim=1).view_as(got))


@every_convolution
def test_one_pixel_wide_it_is_linear_on_every_pixel(name: str) -> None:
    layer, x = trained(name, 4, 3, 1), image(name, 4, 2)
    linear = lnn.Linear(4, 3, manifold=layer.manifold, dtype=torch.float64)
    weight = layer.weight.flatten(1).detach()
    linear.load_state_dict({**layer.state_dict(), "weight": weight.T if layer.transposed else weight})
    torch.testing.assert_close(layer(x), linear(x.movedim(1, -1)).movedim(-1, 1))


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "padding"), [((3,), (2,), (1,), (1,)), ((2, 3), (1, 3), (3, 1), (2, 0))]
)
def test_the_sums_of_the_transposed_windows_are_the_adjoint(
    kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], padding: tuple[int, ...]
) -> None:
    x = normal(1, *(8, 9)[: len(kernel)])
    both = [p for p in reversed(padding) for _ in range(2)]
    there = window_time(x, kernel, stride, dilation, both).square() - 1
    y = normal(*there.shape, seed=1)
    back = transposed_window_time(y, kernel, stride, dilation, padding, x.shape[1:]).square() - 1
    torch.testing.assert_close((there * y.square()).sum(), (back * x.square()).sum())


@every_convolution
def test_a_fresh_layer_is_its_twin_drawn_from_the_same_numbers(name: str) -> None:
    torch.manual_seed(0)
    layer = getattr(lnn, name)(4, 6, 3, 2, 1, groups=2)
    torch.manual_seed(0)
    twin = getattr(nn, name)(4, 6, 3, 2, 1, groups=2)
    x = image(name, 4, 2).float()
    assert layer.time_weight.shape == (6,)
    assert not layer.time_weight.any()
    torch.testing.assert_close(layer(x), twin(x), rtol=0, atol=0)
    assert isinstance(layer, getattr(nn, name))


@every_convolution
def test_an_image_without_batch_is_a_batch_of_one(name: str) -> None:
    layer, x = trained(name, 4, 6, 3, 2, 1, groups=2), image(name, 4)
    torch.testing.assert_close(layer(x), layer(x[None])[0])


@pytest.mark.parametrize("size", [(13, 12), (14, 11)])
def test_output_size_chooses_what_the_stride_leaves_open(size: tuple[int, int]) -> None:
    layer, x = trained("ConvTranspose2d", 2, 3, 3, 2, (1, 1)), image("ConvTranspose2d", 2, 1)
    got = layer(x, list(size))
    assert got.shape[2:] == size
    torch.testing.assert_close(got, joined_and_mapped(layer, x, size))


@every_convolution
def test_out_manifold_scales_distances(name: str) -> None:
    layer, x = trained(name, 4, 3, 3, c=0.5), image(name, 4, 2)
    points = layer(x).movedim(1, -1)
    layer.out_manifold = Lorentz(2.0)
    scaled = layer(x).movedim(1, -1)
    torch.testing.assert_close(LF.dist(scaled[0], scaled[1], 2.0), LF.dist(points[0], points[1], 0.5) / 2)
    assert "out_manifold=Lorentz(c=2" in repr(layer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_time_is_formed_in_float32_also_under_autocast(dtype: torch.dtype, transposed: bool) -> None:
    x = (300 * image("Conv2d", 4, 2)).to(dtype)  # squares that float16 cannot hold

    def time(x: Tensor) -> Tensor:
        if transposed:
            return transposed_window_time(x, (3, 3), (2, 1), (1, 2), (1, 1), (13, 8))
        return window_time(x, (3, 3), (2, 1), (1, 2), (1, 1, 1, 1))

    with torch.autocast("cpu", torch.bfloat16):
        got = time(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), time(x.double()), rtol=4e-7, atol=0)


@every_convolution
def test_autocast_rounds_the_sum_and_not_the_time(name: str) -> None:
    layer, x = trained(name, 4, 3, 3, c=64.3**-2).float(), torch.zeros_like(image(name, 4, 2)).float()
    with torch.no_grad():
        layer.bias.fill_(-64)
        layer.time_weight.fill_(1)  # times of 64.3, which bfloat16 knows as 64.5
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), torch.full_like(got, 0.3).float(), rtol=4e-3, atol=0)


@every_convolution
def test_gradients_are_finite_at_the_origin(name: str) -> None:
    layer, x = trained(name, 4, 3, 3, 2), torch.zeros_like(image(name, 4, 2)).requires_grad_()
    grads = torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters()))
    assert all(grad.isfinite().all() for grad in grads)


@every_convolution
def test_per_sample_gradients_are_those_of_a_loop(name: str) -> None:
    layer, x = trained(name, 4, 6, 3, 2, 1, groups=2), image(name, 4, 3)
    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], each: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, each).square().sum()

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i, each in enumerate(x):
        expected = torch.autograd.grad(loss(parameters, each), list(parameters.values()))
        torch.testing.assert_close([grad[i] for grad in got.values()], list(expected))


@every_convolution
def test_points_of_another_width_are_refused(name: str) -> None:
    layer = getattr(lnn, name)(4, 3, 3)
    with pytest.raises(ValueError, match=r"expected space coordinates \(N, 4, .*\) or \(4, .*\), got .*ambient points"):
        layer(image(name, 5, 2).float())
    with pytest.raises(ValueError, match=r"expected .* \(4, .*\), got \(1, 1, 4, 2, 2\)$"):
        layer(torch.zeros(1, 1, 4, 2, 2))

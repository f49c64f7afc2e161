"""Every module goes through torch's machinery: copies, files, devices, dtypes, autocast, transforms, compilers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import lorentz.nn as lnn
from lorentz import Lorentz
from tests.lorentz.nn.modules import LAYERS, Layer, first

every_layer = pytest.mark.parametrize("layer", LAYERS, ids=str)
layers_with_twin = pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer.twin], ids=str)
layers_with_weights_of_a_twin = pytest.mark.parametrize(
    "layer", [layer for layer in LAYERS if layer.twin and layer.twin().state_dict()], ids=str
)
layers_in_time = pytest.mark.parametrize(
    "layer", [pytest.param(each, marks=[pytest.mark.slow] if each.stack else []) for each in LAYERS], ids=str
)
layers_with_parameters = pytest.mark.parametrize("layer", [each for each in LAYERS if each.makes_parameters], ids=str)


def differentiable(layer: Layer, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    return tuple(x.requires_grad_(x.is_floating_point()) for x in layer.inputs(dtype))


def gradients(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> list[Tensor]:
    """Of a generic function of the output, with respect to the parameters and the inputs."""
    weights = torch.linspace(-1.0, 1.3, output.numel(), dtype=output.dtype).view_as(output)
    leaves = [leaf for leaf in (*module.parameters(), *inputs) if leaf.requires_grad]
    loss = (weights * output).sum() + output.square().sum()
    return list(torch.autograd.grad(loss, leaves, materialize_grads=True)) if leaves else []


def assert_same_function(layer: Layer, module: nn.Module, other: nn.Module) -> None:
    inputs = layer.inputs()
    assert torch.equal(first(module(*inputs)), first(other(*inputs)))


def test_every_exported_module_is_in_the_table() -> None:
    exported = [name for name in lnn.__all__ if issubclass(getattr(lnn, name), nn.Module)]
    assert sorted({layer.name for layer in LAYERS}) == sorted(exported)


@every_layer
def test_modules_say_their_arguments(layer: Layer) -> None:
    text = repr(layer.build())
    assert text.startswith(layer.text) if layer.text.endswith("(\n") else text == layer.text


@every_layer
def test_a_manifold_that_is_not_the_default_is_shown_and_kept(layer: Layer) -> None:
    manifold = Lorentz(2.0, learnable=True)
    module = layer.build(manifold=manifold)
    assert any(each is manifold for each in module.modules())
    assert "Lorentz(c=2, learnable=True)" in repr(module)
    assert sum(name.endswith("log_c") for name, _ in module.named_parameters()) == 1
    assert sum(parameter is manifold.log_c for parameter in module.parameters()) == 1


@every_layer
def test_a_fixed_manifold_adds_nothing_to_the_state(layer: Layer) -> None:
    assert not [name for name in layer.build().state_dict() if "manifold" in name]


@every_layer
def test_documentation_says_the_shapes(layer: Layer) -> None:
    kind = getattr(lnn, layer.name)
    texts = [kind.__doc__ or "", kind.forward.__doc__ or ""]
    assert texts[0]
    assert any(sign in text for text in texts for sign in ("(..., ", "(*)", "torch.nn", "Shape"))


@every_layer
def test_copies_and_pickles_are_the_same_function_of_their_own_parameters(layer: Layer) -> None:
    module = layer.ready()
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(other) == repr(module)
        assert_same_function(layer, module, other)
        assert not {id(p) for p in module.parameters()} & {id(p) for p in other.parameters()}


@every_layer
@pytest.mark.parametrize("learnable", [False, True])
def test_weights_survive_a_file_that_holds_tensors_only(layer: Layer, learnable: bool) -> None:
    module = layer.ready(manifold=Lorentz(2.0, learnable))
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    stream.seek(0)
    other = layer.ready(seed=3, manifold=Lorentz(2.0, learnable))
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert_same_function(layer, module, other)


@every_layer
def test_weights_survive_safetensors(layer: Layer) -> None:
    module, other = layer.ready(), layer.ready(seed=3)
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(module.state_dict())))
    assert_same_function(layer, module, other)


@layers_with_twin
@pytest.mark.parametrize("learnable", [False, True])
def test_a_checkpoint_of_the_torch_twin_loads(layer: Layer, learnable: bool) -> None:
    assert layer.twin is not None
    twin = layer.twin()
    module = layer.ready(manifold=Lorentz(2.0, learnable))
    assert set(twin.state_dict()) <= set(module.state_dict())
    state = twin.state_dict()
    keys = list(state)
    module.load_state_dict(state, strict=True)
    assert list(state) == keys  # the caller's dictionary is left alone
    for name, value in twin.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
    if layer.same_space:
        inputs = layer.inputs()
        torch.testing.assert_close(first(module(*inputs)), first(twin.eval()(*inputs)))


@layers_with_weights_of_a_twin
def test_a_checkpoint_that_lacks_a_weight_of_the_twin_is_refused(layer: Layer) -> None:
    assert layer.twin is not None
    state = layer.twin().state_dict()
    state.pop(next(iter(state)))
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.build().load_state_dict(state)


@every_layer
@pytest.mark.parametrize("order", ["children first", "parents first"])
def test_a_module_made_on_meta_comes_to_life(layer: Layer, order: str) -> None:
    with torch.device("meta"):
        module = layer.build(manifold=Lorentz(2.0, learnable=True))
    assert all(value.is_meta for value in module.state_dict().values())
    repr(module)
    module.to_empty(device="cpu")
    with torch.no_grad():
        for value in module.state_dict().values():
            value.fill_(float("nan") if value.is_floating_point() else -1)
    modules = list(module.modules())
    for each in modules if order == "parents first" else reversed(modules):
        if hasattr(each, "reset_parameters"):
            each.reset_parameters()
    fresh = layer.build(manifold=Lorentz(2.0, learnable=True)).state_dict()
    for name, value in module.state_dict().items():
        assert value.isfinite().all(), name
        constant = not fresh[name].is_floating_point() or fresh[name].unique().numel() == 1
        if constant and order == "children first":  # torch's attention, too, decides about its children
            assert torch.equal(value, fresh[name]), name
    assert first(module.eval()(*layer.inputs())).isfinite().all()


@layers_with_parameters
def test_device_and_dtype_are_those_asked_for(layer: Layer) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        module = layer.build(dtype=dtype)
        assert {value.dtype for value in module.state_dict().values() if value.is_floating_point()} == {dtype}
    assert {value.device.type for value in layer.build(device="meta").state_dict().values()} == {"meta"}


@every_layer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_outputs_have_the_dtype_of_the_inputs_and_agree_with_float32(layer: Layer, dtype: torch.dtype) -> None:
    module = layer.ready(manifold=Lorentz(0.7, learnable=True))
    expected = first(module(*layer.inputs()))
    other = copy.deepcopy(module).to(dtype)
    output = first(other(*layer.inputs(dtype)))
    assert output.dtype == dtype
    tolerance = 0.06 if dtype == torch.bfloat16 else 2e-5
    torch.testing.assert_close(output.float(), expected, rtol=tolerance, atol=tolerance)


@every_layer
def test_autocast_gives_finite_outputs_and_gradients(layer: Layer) -> None:
    module, inputs = layer.ready(manifold=Lorentz(0.7, learnable=True)).train(), differentiable(layer)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        output = first(module(*inputs))
    torch.manual_seed(0)
    torch.testing.assert_close(output.float(), first(module(*inputs)), rtol=0.06, atol=0.06)
    for grad in gradients(module, inputs, output.float()):
        assert grad.isfinite().all()


@every_layer
def test_every_parameter_takes_part(layer: Layer) -> None:
    module = layer.ready()
    names = [name for name, _ in module.named_parameters()]
    inputs = differentiable(layer)
    for name, grad in zip(names, gradients(module, inputs, first(module(*inputs))), strict=False):
        assert grad.any(), name
        assert grad.isfinite().all(), name


@every_layer
def test_inputs_are_left_alone(layer: Layer) -> None:
    inputs = layer.inputs()
    first(layer.ready()(*inputs))
    assert all(torch.equal(x, y) for x, y in zip(inputs, layer.inputs(), strict=True))


@every_layer
def test_gradients_are_those_of_finite_differences(layer: Layer) -> None:
    module = layer.ready(manifold=Lorentz(0.7, learnable=True)).double()
    names = [name for name, _ in module.named_parameters()]
    inputs = differentiable(layer, torch.float64)
    parameters = [parameter for _, parameter in module.named_parameters()]

    def function(*leaves: Tensor) -> Tensor:
        replaced = dict(zip(names, leaves[len(inputs) :], strict=True))
        return first(torch.func.functional_call(module, replaced, leaves[: len(inputs)]))

    assert torch.autograd.gradcheck(function, (*inputs, *parameters), fast_mode=len(parameters) > 8)


@every_layer
def test_functional_call_replaces_the_parameters(layer: Layer) -> None:
    module, other = layer.ready(), layer.ready(seed=3)
    inputs = layer.inputs()
    replaced = dict(other.named_parameters())
    assert torch.equal(first(torch.func.functional_call(module, replaced, inputs)), first(other(*inputs)))


@every_layer
def test_nothing_is_nan_at_the_ends_of_the_curvature(layer: Layer) -> None:
    for c in (1e-3, 1e3):
        module, inputs = layer.ready(manifold=Lorentz(c, learnable=True)), differentiable(layer)
        output = first(module(*inputs))
        assert output.isfinite().all()
        assert all(grad.isfinite().all() for grad in gradients(module, inputs, output))


def assert_compiled_like_eager(layer: Layer, backend: str) -> None:
    torch.compiler.reset()
    module, inputs = layer.ready(manifold=Lorentz(0.7, learnable=True)), differentiable(layer)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    output, expected = first(compiled(*inputs)), first(module(*inputs))
    torch.testing.assert_close(output, expected)
    pairs = zip(gradients(module, inputs, output), gradients(module, inputs, expected), strict=True)
    for got, grad in pairs:  # sums that a compiler orders anew err by their terms, not by what is left of them
        torch.testing.assert_close(got, grad, rtol=1e-5, atol=1e-5 * max(1.0, grad.abs().amax().item()))


@layers_in_time
def test_modules_trace_whole(layer: Layer) -> None:
    assert_compiled_like_eager(layer, "aot_eager")


@pytest.mark.slow
@every_layer
def test_the_default_compiler_gives_the_eager_result(layer: Layer) -> None:
    assert_compiled_like_eager(layer, "inductor")


@pytest.mark.slow
@every_layer
def test_modules_export(layer: Layer) -> None:
    module, inputs = layer.ready(manifold=Lorentz(0.7, learnable=True)), layer.inputs()
    program = torch.export.export(module, inputs, strict=True)
    torch.testing.assert_close(first(program.module()(*inputs)), first(module(*inputs)))

"""A module of torch.nn becomes its Lorentz twin, weights kept."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

import lorentz.nn as lnn
from lorentz.manifold import Lorentz

# A module has the name of its twin; the output projection of torch's attention is a Linear under another name.
_TWINS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    **{getattr(nn, name): getattr(lnn, name) for name in lnn.__all__ if hasattr(nn, name)},
    NonDynamicallyQuantizableLinear: lnn.Linear,
}
# Their forward calls their children, also in a subclass.
_CONTAINERS = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)
# They move coordinates or act on each alone, and so do to the space part what a twin would do.
_AS_THEY_ARE = (
    nn.Identity, nn.Unflatten, nn.Dropout1d, nn.Dropout2d, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.Mish,
    nn.Hardswish, nn.Softplus, nn.Softsign, nn.Sigmoid, nn.Hardtanh,
)  # fmt: skip


def convert(module: nn.Module, manifold: Lorentz | None = None) -> nn.Module:
    """Return a copy of a module in which every module of torch.nn that has a twin in `lorentz.nn` is that twin.

    The copy has the parameters and buffers of the original, their dtype, device and `requires_grad`, its modes, and the
    attributes that were set on it; what was shared is shared. Parameters that only a twin has get the value at which
    the twin is closest to torch, and are frozen where its weight is. So the copy computes what the original does,
    but for attention, whose scores and means are Lorentzian. A state_dict of the original loads.

    A custom module keeps its forward, over converted children. Left alone, and named in one UserWarning, are modules
    of torch that have no twin; subclasses of those that have one; modules with hooks, parametrisations or a forward set
    on the instance, with all that is in them; and the parameters that a custom module itself owns. Not named are
    containers and functions of single coordinates, which act on the space part as they are.

    Args:
        module: the module; it is not changed.
        manifold: the space of all twins, moved to the device of the first parameter; by default curvature -1, fixed.

    Source: Chen et al., ACL 2022, Eq. 2, which contains the Euclidean linear layer in this chart.
    """
    space = manifold or Lorentz()
    reached = list(_walk(module))
    sealed = {id(inner) for _, each in reached if _is_sealed(each) for inner in each.modules()}
    pairs = [(each, _twin(each, space)) for _, each in reached if type(each) in _TWINS and id(each) not in sealed]
    # deepcopy takes for copied what its memo holds: wherever the copy would have the module, it gets the twin.
    memo: dict[int, Any] = {id(space): space, **{id(each): twin for each, twin in pairs}, **_derived(module)}
    for each, twin in pairs:
        _fill(twin, each, memo)
    converted = copy.deepcopy(module, memo)
    first = next(module.parameters(), None)
    if first is not None and not first.is_meta:
        space.to(first.device)
    left = _left_alone(reached, sealed)
    if left:
        warnings.warn(f"lorentz.convert left alone: {left}", stacklevel=2)
    return converted


def _derived(module: nn.Module) -> dict[int, Tensor]:
    """Return copies, by id, of the tensors that hooks compute from parameters, such as pruned weights."""
    values = [value for each in module.modules() for value in vars(each).values() if isinstance(value, Tensor)]
    return {id(value): value.detach().clone() for value in values if not value.is_leaf}  # deepcopy refuses those


def _walk(module: nn.Module, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules once and by name, but not what is in a sealed one."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    yield prefix, module
    if not _is_sealed(module):
        for name, child in module.named_children():
            yield from _walk(child, f"{prefix}.{name}".lstrip("."), seen)


def _is_sealed(module: nn.Module) -> bool:
    """Whether a module stays as it is, with all in it: it is not quite what a twin replaces, or not known at all."""
    kind = type(module)
    if kind in _TWINS:
        return _is_altered(module) or _has_foreign_attention(module)
    if _is_ours(module) or isinstance(module, _CONTAINERS) or kind in _AS_THEY_ARE:
        return False
    return isinstance(module, tuple(_TWINS)) or kind.__module__.startswith("torch.")


def _is_ours(module: nn.Module) -> bool:
    return any(base.__module__.startswith("lorentz.") for base in type(module).__mro__)


def _is_altered(module: nn.Module) -> bool:
    """Whether the instance does something that its class does not: hooks, or a forward of its own."""
    return any(value for name, value in vars(module).items() if name.endswith("_hooks") or name == "forward")


def _has_foreign_attention(module: nn.Module) -> bool:
    """Whether a layer of a transformer has an attention that does not understand the calls of the twin."""
    if not isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        return False
    attentions = [child for name, child in module.named_children() if name in ("self_attn", "multihead_attn")]
    known = (nn.MultiheadAttention, lnn.MultiheadAttention)
    return any(not isinstance(each, known) or _is_sealed(each) for each in attentions)


def _twin(module: nn.Module, space: Lorentz) -> nn.Module:
    """Return the twin without tensors: made on meta, it draws no random numbers."""
    arguments = _ARGUMENTS.get(type(module), _attributes)(module)
    if "manifold" in signature(_TWINS[type(module)]).parameters:
        arguments["manifold"] = space
    with torch.device("meta"):
        return _TWINS[type(module)](**arguments)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return the arguments of the constructor, which modules of torch keep as attributes; `_fill` decides on a bias."""
    names = [name for name in signature(type(module)).parameters if name != "bias"]
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


def _layer_arguments(layer: Any) -> dict[str, Any]:
    return {
        "d_model": 1,
        "nhead": 1,
        "dim_feedforward": 1,
        "activation": layer.activation,
        "norm_first": layer.norm_first,
    }


# Modules that own no tensors get their children from `_fill`, so their widths do not matter here.
_ARGUMENTS: dict[type[nn.Module], Callable[[Any], dict[str, Any]]] = {
    nn.MultiheadAttention: lambda m: {**_attributes(m), "add_bias_kv": m.bias_k is not None},
    nn.TransformerEncoderLayer: _layer_arguments,
    nn.TransformerDecoderLayer: _layer_arguments,
    nn.TransformerEncoder: lambda m: {
        "encoder_layer": nn.Identity(),
        "num_layers": len(m.layers),
        "norm": m.norm,
        "enable_nested_tensor": m.enable_nested_tensor,
        "mask_check": m.mask_check,
    },
    nn.TransformerDecoder: lambda m: {"decoder_layer": nn.Identity(), "num_layers": len(m.layers), "norm": m.norm},
    nn.Transformer: lambda m: {
        "d_model": m.d_model,
        "nhead": m.nhead,
        "custom_encoder": nn.Identity(),
        "custom_decoder": nn.Identity(),
        "batch_first": m.batch_first,
    },
}


def _fill(twin: Any, module: nn.Module, memo: dict[int, Any]) -> None:
    """Give the twin copies of all that the module has, and neutral values where it alone has a parameter."""
    twin.training = module.training
    for field in ("_parameters", "_buffers", "_modules"):
        getattr(twin, field).update(copy.deepcopy(getattr(module, field), memo))
    twin._non_persistent_buffers_set |= module._non_persistent_buffers_set
    for name, value in vars(module).items():
        if name not in vars(twin):
            vars(twin)[name] = copy.deepcopy(value, memo)
    like = next(module.parameters(recurse=False), None)
    for name, parameter in twin._parameters.items():
        if parameter is not None and name not in module._parameters and like is not None:
            neutral = twin._initial_log_scale if name == "log_scale" else 0.0
            value = torch.full_like(parameter, neutral, device=like.device, dtype=like.dtype)
            twin._parameters[name] = nn.Parameter(value, like.requires_grad)


def _reason(module: nn.Module) -> str:
    """Return why a module that could have a twin has none."""
    if type(module) not in _TWINS:
        return ""
    if _is_altered(module):
        return " with hooks or a forward of its own"
    return " with an attention that has no twin" if _has_foreign_attention(module) else " shared with one of these"


def _left_alone(reached: list[tuple[str, nn.Module]], sealed: set[int]) -> str:
    """Return what was left alone, names by type: `LSTM (encoder.rnn, decoder.rnn), parameters of Net (scale)`."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, module in reached:
        kind = type(module).__name__
        if id(module) in sealed:
            groups[kind + _reason(module)].append(name or "the module itself")
        elif type(module) not in _TWINS and not _is_ours(module):
            groups[f"parameters of {kind}"] += [own for own, _ in module.named_parameters(name, recurse=False)]
    return ", ".join(f"{kind} ({', '.join(names)})" for kind, names in groups.items() if names)

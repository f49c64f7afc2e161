"""Every module of `lorentz.nn` with arguments and inputs: the table that the tests of the machinery run over.

A new module joins by one line here; a test compares the table with `lorentz.nn.__all__`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lorentz.nn as lnn


@dataclass(frozen=True)
class Layer:
    """A module under test.

    `text` is the repr, or its first line where it ends there. `build` takes the keywords that every constructor has:
    manifold, and device and dtype where parameters are made. `shapes` are those of the inputs: points, or indices
    below `indices` where that is set. `twin` builds the torch module whose state_dict must load; `same_space` says that
    the twin, given the same weights, agrees on the space part. `stack` marks the modules that take long to trace.
    """

    name: str
    text: str
    build: Callable[..., nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    twin: Callable[[], nn.Module] | None = None
    same_space: bool = False
    indices: int = 0
    stack: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def makes_parameters(self) -> bool:
        return "dtype" in inspect.signature(getattr(lnn, self.name)).parameters

    def inputs(self, dtype: torch.dtype = torch.float32, seed: int = 1) -> tuple[Tensor, ...]:
        """The same inputs on every call."""
        generator = torch.Generator().manual_seed(seed)
        if self.indices:
            # Without the padding row, to which torch gives no gradient.
            return tuple(torch.randint(1, self.indices, shape, generator=generator) for shape in self.shapes)
        return tuple(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in self.shapes)

    def ready(self, seed: int = 2, **keywords: Any) -> nn.Module:
        """The module in eval mode with parameters away from their special values at the start."""
        module = self.build(**keywords).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        return module


def first(output: Any) -> Tensor:
    """The points among what a module returns."""
    return output[0] if isinstance(output, tuple) else output


POINTS = ((5, 4),)
SEQUENCE = ((2, 5, 4),)
WIDE = ((2, 5, 16),)  # layer norm over four features would magnify 16-bit rounding

LAYERS = [
    Layer(
        "Linear",
        "Linear(in_features=4, out_features=3, bias=True)",
        lambda **kw: lnn.Linear(4, 3, **kw),
        POINTS,
        lambda: nn.Linear(4, 3),
        same_space=True,
    ),
    Layer(
        "NormalizedLinear",
        "NormalizedLinear(in_features=4, out_features=3, bias=True, scale=10, learnable_scale=True, activation=relu)",
        lambda **kw: lnn.NormalizedLinear(4, 3, activation=torch.relu, **kw),
        POINTS,
    ),
    Layer(
        "HyboLinear",
        "HyboLinear(in_features=4, out_features=3, bias=True, scale=10, learnable_scale=True)",
        lambda **kw: lnn.HyboLinear(4, 3, **kw),
        POINTS,
    ),
    Layer(
        "HyperplaneLinear",
        "HyperplaneLinear(in_features=4, out_features=3, bias=True)",
        lambda **kw: lnn.HyperplaneLinear(4, 3, **kw),
        POINTS,
        lambda: nn.Linear(4, 3),
    ),
    Layer("Boost", "Boost(num_features=4)", lambda **kw: lnn.Boost(4, **kw), POINTS),
    Layer("Rotation", "Rotation(num_features=4)", lambda **kw: lnn.Rotation(4, **kw), POINTS),
    Layer(
        "Isometry",
        "Isometry(\n  (manifold): Lorentz(c=1, learnable=False) manifold\n"
        "  (rotation): Rotation(num_features=4)\n  (boost): Boost(num_features=4)\n)",
        lambda **kw: lnn.Isometry(4, **kw),
        POINTS,
    ),
    Layer(
        "Inverse",
        "Inverse(\n  (isometry): Boost(num_features=4)\n  (manifold): Lorentz(c=1, learnable=False) manifold\n)",
        lambda **kw: lnn.Boost(4, **kw).inverse(),
        POINTS,
    ),
    Layer(
        "LayerNorm",
        "LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)",
        lambda **kw: lnn.LayerNorm(4, **kw),
        POINTS,
        lambda: nn.LayerNorm(4),
        same_space=True,
    ),
    Layer(
        "RMSNorm",
        "RMSNorm((4,), eps=None, elementwise_affine=True)",
        lambda **kw: lnn.RMSNorm(4, **kw),
        POINTS,
        lambda: nn.RMSNorm(4),
        same_space=True,
    ),
    Layer(
        "BatchNorm1d",
        "BatchNorm1d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        lambda **kw: lnn.BatchNorm1d(4, **kw),
        POINTS,
        lambda: nn.BatchNorm1d(4),
        same_space=True,
    ),
    Layer(
        "BatchNorm2d",
        "BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        lambda **kw: lnn.BatchNorm2d(4, **kw),
        ((2, 4, 3, 3),),
        lambda: nn.BatchNorm2d(4),
        same_space=True,
    ),
    Layer("ReLU", "ReLU()", lambda **kw: lnn.ReLU(**kw), POINTS, nn.ReLU, same_space=True),
    Layer("GELU", "GELU(approximate='none')", lambda **kw: lnn.GELU(**kw), POINTS, nn.GELU, same_space=True),
    Layer("SiLU", "SiLU()", lambda **kw: lnn.SiLU(**kw), POINTS, nn.SiLU, same_space=True),
    Layer("Tanh", "Tanh()", lambda **kw: lnn.Tanh(**kw), POINTS, nn.Tanh, same_space=True),
    Layer("Dropout", "Dropout(p=0.5, inplace=False)", lambda **kw: lnn.Dropout(**kw), POINTS, nn.Dropout, True),
    Layer(
        "Embedding",
        "Embedding(6, 4, padding_idx=0)",
        lambda **kw: lnn.Embedding(6, 4, padding_idx=0, **kw),
        ((5, 2),),
        lambda: nn.Embedding(6, 4, padding_idx=0),
        same_space=True,
        indices=6,
    ),
    Layer("Residual", "Residual(ratio=0.5)", lambda **kw: lnn.Residual(0.5, **kw), (*POINTS, *POINTS)),
    Layer(
        "PositionalEncoding",
        "PositionalEncoding(4, base=10000, scale=0.707107)",
        lambda **kw: lnn.PositionalEncoding(4, **kw),
        SEQUENCE,
    ),
    Layer(
        "LearnedPositionalEncoding",
        "LearnedPositionalEncoding(7, 4, std=0.02)",
        lambda **kw: lnn.LearnedPositionalEncoding(7, 4, **kw),
        SEQUENCE,
    ),
    Layer("RotaryEmbedding", "RotaryEmbedding(4, base=10000)", lambda **kw: lnn.RotaryEmbedding(4, **kw), SEQUENCE),
    Layer(
        "MultiheadAttention",
        "MultiheadAttention(\n",
        lambda **kw: lnn.MultiheadAttention(4, 2, batch_first=True, **kw),
        SEQUENCE * 3,
        lambda: nn.MultiheadAttention(4, 2, batch_first=True),
    ),
    Layer(
        "TransformerEncoderLayer",
        "TransformerEncoderLayer(\n",
        lambda **kw: lnn.TransformerEncoderLayer(16, 2, 6, batch_first=True, **kw),
        WIDE,
        lambda: nn.TransformerEncoderLayer(16, 2, 6, batch_first=True),
    ),
    Layer(
        "TransformerDecoderLayer",
        "TransformerDecoderLayer(\n",
        lambda **kw: lnn.TransformerDecoderLayer(16, 2, 6, batch_first=True, **kw),
        WIDE * 2,
        lambda: nn.TransformerDecoderLayer(16, 2, 6, batch_first=True),
        stack=True,
    ),
    Layer(
        "TransformerEncoder",
        "TransformerEncoder(\n",
        lambda **kw: lnn.TransformerEncoder(lnn.TransformerEncoderLayer(16, 2, 6, batch_first=True, **kw), 2),
        WIDE,
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 6, batch_first=True), 2),
        stack=True,
    ),
    Layer(
        "TransformerDecoder",
        "TransformerDecoder(\n",
        lambda **kw: lnn.TransformerDecoder(lnn.TransformerDecoderLayer(16, 2, 6, batch_first=True, **kw), 2),
        WIDE * 2,
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, 6, batch_first=True), 2),
        stack=True,
    ),
    Layer(
        "Transformer",
        "Transformer(\n",
        lambda **kw: lnn.Transformer(16, 2, 1, 1, 6, batch_first=True, **kw),
        WIDE * 2,
        lambda: nn.Transformer(16, 2, 1, 1, 6, batch_first=True),
        stack=True,
    ),
]
